"""Laws of validation: what is measured is what is served, in the part alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fakes import job_data, write_scene, write_unet_bundle
from numpy.typing import NDArray
from safetensors.torch import load_file
from training_scenes import FakeLabels, FakeScene

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.formats.open import open_source
from tilesseg.models.spec import ClassSpec, ModelSpec, read_spec
from tilesseg.models.unet.architecture import UNet
from tilesseg.planning.job import parse_job
from tilesseg.raster.labels import SCORE_STEPS, quantise
from tilesseg.raster.metrics import confusion
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.scene_validation import (
    Device,
    PartOfScene,
    best_step,
    decided,
    matrix_at,
    mean_dice,
    step_of,
    threshold_of,
    validate,
)

HEIGHT, WIDTH = 150, 213
DEVICE = Device("cpu", 1, "fp32")
CLASSES = (ClassSpec(name="background", colour="black"), ClassSpec(name="other", colour="white"))


def scene(tmp_path: Path, spec: ModelSpec, classes: int) -> FakeScene:
    rng = np.random.default_rng(5)
    values = rng.integers(1, 200, (2, HEIGHT, WIDTH)).astype(np.uint8)
    values[:, :20, :30] = 0
    path = write_scene(tmp_path / "scene.tif", values, nodata=0)
    labels = rng.integers(0, classes, (HEIGHT, WIDTH)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = 255
    return FakeScene("scene", open_source(str(path)), FakeLabels(labels), spec.normalisation())


def network_of(folder: Path) -> tuple[ModelSpec, UNet]:
    spec = read_spec(folder / "model.yaml")
    assert spec.unet is not None
    network = UNet(len(spec.bands), spec.score_channels, spec.unet)
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return spec, network.train()


def run(tmp_path: Path, bundle: Path) -> NDArray[np.uint8]:
    """Mask of the scene by a run of the bundle."""
    more = {"engine": "torch", "precision": "fp32"}
    job = parse_job(job_data(tmp_path / "scene.tif", bundle, tmp_path / "run", **more), where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0
    return RunDirectory(tmp_path / "run").scene("scene").read(Window(0, 0, HEIGHT, WIDTH))


def of_valid(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(mask == 255, np.uint8(255), truth)


def test_a_validation_counts_what_a_run_of_the_bundle_gives(tmp_path: Path) -> None:
    bundle = write_unet_bundle(tmp_path / "model", bands=2, classes=3, depth=1)
    spec, network = network_of(bundle)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    held = scene(tmp_path, spec, 3)
    whole = (Window(0, 0, HEIGHT, WIDTH),)
    found = validate(network, spec, [PartOfScene(held, whole)], device=DEVICE, folder=tmp_path / "state")
    mask = run(tmp_path, bundle)
    assert len(np.unique(mask)) == 4
    wanted = confusion(of_valid(held.labels.values, mask), mask, 3)
    assert np.array_equal(found.matrix, wanted)
    assert found.score == mean_dice(wanted, spec.classes)
    assert not (tmp_path / "state").exists()
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_only_the_part_is_computed_and_counted(tmp_path: Path) -> None:
    bundle = write_unet_bundle(tmp_path / "model", bands=2, classes=3, depth=1)
    spec, network = network_of(bundle)
    held = scene(tmp_path, spec, 3)
    windows = (Window(10, 0, 40, 70), Window(100, 131, 50, 82))
    tiles = []
    found = validate(
        network, spec, [PartOfScene(held, windows)], device=DEVICE, folder=tmp_path / "state",
        after_tile=lambda: tiles.append(1),
    )  # fmt: skip
    mask = run(tmp_path, bundle)
    truth = np.full_like(held.labels.values, 255)
    for window in windows:
        truth[window.slices()] = held.labels.values[window.slices()]
    assert np.array_equal(found.matrix, confusion(of_valid(truth, mask), mask, 3))
    assert len(tiles) >= 1


def test_the_threshold_that_is_chosen_is_served(tmp_path: Path) -> None:
    decision = {"kind": "threshold", "threshold": 0.5}
    more = {"decision": decision, "activation": "sigmoid"}
    untuned = write_unet_bundle(tmp_path / "untuned", bands=2, classes=1, depth=1)
    bundle = tmp_path / "model"
    data = yaml.safe_load((untuned / "model.yaml").read_text()) | more
    data["classes"] = [{"name": "land", "colour": "black"}, {"name": "water", "colour": "white"}]
    (untuned / "model.yaml").write_text(yaml.safe_dump(data))
    binary, trained = network_of(untuned)
    held = scene(tmp_path, binary, 2)
    part = [PartOfScene(held, (Window(0, 0, HEIGHT, WIDTH),))]
    found = validate(trained, binary, part, device=DEVICE, folder=tmp_path / "state")
    assert found.threshold not in (None, 0.5)
    assert found.matrix[:, :2].any(axis=0).all()  # both labels occur
    tuned = decided(binary, found.threshold)
    untuned.rename(bundle)
    (bundle / "model.yaml").write_text(tuned.to_yaml())
    mask = run(tmp_path, bundle)
    assert np.array_equal(found.matrix, confusion(of_valid(held.labels.values, mask), mask, 2))
    again = validate(trained, tuned, part, device=DEVICE, folder=tmp_path / "state", choose=False)
    assert np.array_equal(again.matrix, found.matrix)
    assert again.threshold == found.threshold


def test_what_is_raised_after_a_tile_ends_the_validation_and_leaves_nothing(tmp_path: Path) -> None:
    spec, network = network_of(write_unet_bundle(tmp_path / "model", bands=2, classes=3, depth=1))
    part = PartOfScene(scene(tmp_path, spec, 3), (Window(0, 0, HEIGHT, WIDTH),))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(network, spec, [part], device=DEVICE, folder=tmp_path / "state", after_tile=stop)
    assert not (tmp_path / "state").exists()


# ------------------------------------------------------------------ arithmetic


def test_the_mean_leaves_out_the_background_and_classes_that_nobody_has() -> None:
    matrix = np.array([[50, 10, 0, 0], [5, 20, 0, 3], [0, 0, 0, 0]])
    classes = (*CLASSES, ClassSpec(name="third", colour="red"))
    assert mean_dice(matrix, classes) == pytest.approx(40 / (28 + 30))
    named = (ClassSpec(name="land", colour="black"), *classes[1:])
    assert mean_dice(matrix, named) == pytest.approx((100 / (60 + 55) + 40 / 58) / 2)
    assert mean_dice(np.zeros((3, 4), np.int64), classes) == 0.0


def test_the_best_threshold_equals_a_search_over_all() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 5000)
    scores = quantise(np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).astype(np.float32))
    histogram = np.stack([np.bincount(scores[truth == k], minlength=SCORE_STEPS + 1) for k in (0, 1)])

    def dice_at(step: int) -> float:
        found = scores >= step
        return float(2 * (found & (truth == 1)).sum() / (found.sum() + truth.sum()))

    best = best_step(histogram, CLASSES)
    assert dice_at(best) == max(dice_at(step) for step in range(1, SCORE_STEPS + 1))
    assert mean_dice(matrix_at(histogram, best), CLASSES) == pytest.approx(dice_at(best))
    empty = np.zeros((2, SCORE_STEPS + 1), np.int64)
    assert best_step(empty, CLASSES) == SCORE_STEPS // 2  # of equal ones that in the middle


def test_a_threshold_divides_scores_as_their_stored_values() -> None:
    for step in range(1, SCORE_STEPS + 1):
        threshold = np.float32(threshold_of(step))
        below = np.nextafter(threshold, np.float32(0))
        assert step_of(float(threshold)) == step == step_of(float(below)) + 1
        around = np.array([[[below, threshold]]], np.float32)
        assert [*quantise(around).flat] == [step - 1, step]
