"""Laws of `tilesseg.train`: from images and labels on disk to a bundle that serves what was scored."""

from __future__ import annotations

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import job_data
from raster_files import held, write

import tilesseg
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, StoreError
from tilesseg.events import Event, StepDone
from tilesseg.models.spec import read_spec
from tilesseg.planning.job import parse_job
from tilesseg.raster.metrics import confusion, dice
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.train_job import materials_of
from tilesseg.training.train_network import TrainingResult
from tilesseg.training.train_spec import TrainSpec, read_train_spec
from tilesseg.training.training_data import gather

HEIGHT, WIDTH = 120, 152


def make_scenes(folder: Path, number: int = 4) -> None:
    """Bright squares on a dark ground, a corner without data, labels of 0 and 255 beside them."""
    for n in range(number):
        rng = np.random.default_rng(n)
        labels = np.kron(rng.integers(0, 2, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8))).astype(np.uint8)
        values = np.clip(rng.normal(80, 30, (2, HEIGHT, WIDTH)) + 70 * labels, 1, 255).astype(np.uint8)
        values[:, :20, :30] = 0
        write(folder / f"s{n}.tif", values, 10, nodata=0)
        write(folder / f"s{n}_mask.tif", 255 * labels, 10)


def plain(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "squares",
        "licence": "CC0-1.0",
        "classes": [{"name": "background", "colour": "black"}, {"name": "bright", "colour": "white"}],
        "data": {"scenes": "s?.tif", "labels": "{scene}_mask.tif", "values": {0: "background", 255: "bright"}},
        "split": {"validate": 0.25, "test": 0.25},
        "network": {"depth": 1, "width": 4},
        "sampling": {"patch": 32, "batch": 4},
        "optimise": {"steps": 40, "ema": 0.9, "rate": 0.01},
        "stop": {"every": 20},
        "threads": 1,
        "output": {"dir": "run"},
        **changes,
    }


def spec_file(folder: Path, **changes: Any) -> Path:
    path = folder / "squares.yaml"
    path.write_text(yaml.safe_dump(plain(folder, **changes)))
    return path


def parse(folder: Path, **changes: Any) -> TrainSpec:
    return read_train_spec(spec_file(folder, **changes))


def served(folder: Path, result: TrainingResult, scene: str, where: Window) -> float:
    """Dice of the foreground of a run of the bundle, in a window, where there is data."""
    more = {"engine": "torch", "precision": "fp32"}
    job = parse_job(job_data(folder / f"{scene}.tif", result.bundle, folder / "serve", **more), where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0
    mask = RunDirectory(folder / "serve").scene(scene).read(where)
    truth = np.minimum(held(folder / f"{scene}_mask.tif"), 1)[where.slices()]
    return float(dice(confusion(np.where(mask == 255, np.uint8(255), truth), mask, 2))[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    folder = tmp_path_factory.mktemp("squares")
    make_scenes(folder)
    return folder, tilesseg.train(spec_file(folder))


def test_a_bundle_serves_what_validation_and_test_have_scored(trained: tuple[Path, TrainingResult]) -> None:
    folder, result = trained
    materials = materials_of(request := parse(folder), gather(request))
    whole = Window(0, 0, HEIGHT, WIDTH)
    (validated,), (tested,) = materials.validation, materials.test
    assert (validated.windows, tested.windows) == ((whole,), (whole,))
    assert result.score == served(folder, result, validated.scene.name, whole)
    assert result.test == served(folder, result, tested.scene.name, whole)
    assert result.score > 0.75


def test_a_finished_training_is_left_alone(trained: tuple[Path, TrainingResult]) -> None:
    folder, result = trained
    events: list[Event] = []
    again = tilesseg.train(spec_file(folder), listeners=[events.append])
    assert again.before
    assert events == []
    assert (again.score, again.test, again.steps) == (result.score, result.test, result.steps)
    with pytest.raises(StoreError, match=r"optimise\.steps was 40 and is 50 now"):
        tilesseg.train(spec_file(folder, optimise={"steps": 50, "ema": 0.9, "rate": 0.01}))


def test_interrupted_and_called_again_it_gives_the_same_bundle(trained: tuple[Path, TrainingResult]) -> None:
    folder, result = trained

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step in (7, 26):
            signal.raise_signal(signal.SIGINT)

    spec = spec_file(folder, output={"dir": "cut"}, sampling={"patch": 32, "batch": 4, "readers": 3})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tilesseg.train(spec, listeners=[interrupt])
    again = tilesseg.train(spec)
    assert (again.score, again.test) == (result.score, result.test)
    assert _weights(again) == _weights(result)


def _weights(result: TrainingResult) -> bytes:
    return (result.bundle / "weights.safetensors").read_bytes()


def test_labels_that_have_changed_are_refused(tmp_path: Path) -> None:
    make_scenes(tmp_path)

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone):
            signal.raise_signal(signal.SIGINT)

    spec = spec_file(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tilesseg.train(spec, listeners=[interrupt])
    labels = held(tmp_path / "s2_mask.tif")
    labels[0, 0] = 255 - labels[0, 0]
    write(tmp_path / "s2_mask.tif", labels, 10)
    with pytest.raises(StoreError, match=r"began with other files: s2.labels.* and is .* now; give the old value"):
        tilesseg.train(spec)


def test_data_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    make_scenes(tmp_path)
    with pytest.raises(JobError, match=r"sampling\.patch is 33 and the network takes"):
        tilesseg.train(spec_file(tmp_path, sampling={"patch": 33}))
    assert not (tmp_path / "run").exists()


def test_parts_of_a_scene_validate_there_alone(tmp_path: Path) -> None:
    make_scenes(tmp_path, 2)
    split = {"by": "block", "block": 64, "validate": 0.25, "gap": "auto"}
    result = tilesseg.train(spec_file(tmp_path, split=split, optimise={"steps": 4}, augment={"scale": 0}))
    request = parse(tmp_path, split=split, optimise={"steps": 4}, augment={"scale": 0})
    materials = materials_of(request, gather(request))
    assert 0 < sum(window.area for part in materials.validation for window in part.windows) < 2 * HEIGHT * WIDTH
    assert result.score is not None
    assert result.test is None
    with (tmp_path / "run" / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    sides = ("y", "x", "height", "width")
    validate = [row for row in rows if row["part"] == "validate"]
    written = {(row["scene"], *(int(row[side]) for side in sides)) for row in validate}
    assert written == {
        (part.scene.name, window.y, window.x, window.height, window.width)
        for part in materials.validation
        for window in part.windows
    }
    assert {row["part"] for row in rows} == {"train", "validate"}


def test_the_threshold_that_validation_chose_is_served(tmp_path: Path) -> None:
    make_scenes(tmp_path, 2)
    changes = {"decision": "threshold", "split": {"validate": 0.5}, "optimise": {"steps": 20, "rate": 0.01}}
    result = tilesseg.train(spec_file(tmp_path, **changes))
    spec = read_spec(result.bundle / "model.yaml")
    assert (spec.activation, spec.decision.kind) == ("sigmoid", "threshold")
    assert spec.decision.threshold != 0.5
    request = parse(tmp_path, **changes)
    (validated,) = materials_of(request, gather(request)).validation
    assert result.score == served(tmp_path, result, validated.scene.name, Window(0, 0, HEIGHT, WIDTH))
