"""The laws hold for a mean of scores: over the turns of a patch, and over the models of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, FakeModel, fake_model, job_data, write_scene, write_unet_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_segment_tile import AWKWARD, BLENDS, lattice_of, picture, run

from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.models.averaging import Averaged, mean_scores, turned, turned_back
from tilesseg.models.load import load_model
from tilesseg.models.network import Call
from tilesseg.planning.ensemble import common_contract
from tilesseg.planning.job import parse_job
from tilesseg.raster.labels import decide
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

TURNS = (4, 8)


def averaged(model: FakeModel, turns: int) -> Averaged:
    return Averaged(common_contract([model.spec], turns=turns), (model,), turns)


@pytest.mark.parametrize("turn", range(8))
def test_a_turn_is_undone(turn: int) -> None:
    values = np.arange(50).reshape(1, 2, 5, 5)
    assert (turned_back(turned(values, turn), turn) == values).all()


def test_the_eight_turns_are_all_symmetries_of_a_square() -> None:
    values = np.arange(4).reshape(2, 2)
    assert len({turned(values, turn).tobytes() for turn in range(8)}) == 8
    assert (turned(values, 1) == np.rot90(values)).all()


@settings(max_examples=15)
@given(data=st.data())
def test_tiling_never_changes_a_mean_over_turns(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    draw = data.draw
    shape, blend = draw(st.tuples(st.integers(1, 40), st.integers(1, 40))), draw(st.sampled_from(BLENDS))
    model = averaged(fake_model("Positional", margin=3), draw(st.sampled_from(TURNS)))
    lattice, shard = lattice_of(blend), draw(st.integers(5, 20))
    source = picture(shape, seed=draw(st.integers(0, 99)), holes=draw(st.booleans()))
    core = (shard * draw(st.integers(1, 5)), shard * draw(st.integers(1, 5)))
    folder = tmp_path_factory.mktemp("turns")
    whole, _ = run(folder / "whole", source, model, lattice, blend=blend, shard=48)
    batch = draw(st.integers(1, 3))
    tiled, _ = run(folder / "tiled", source, model, lattice, blend=blend, core=core, shard=shard, batch=batch)
    assert (tiled == whole).all()


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("shape", AWKWARD[3::5])
def test_an_identity_model_gives_a_label_image_back_through_all_turns(
    tmp_path: Path, blend: Any, shape: tuple[int, int]
) -> None:
    source = picture(shape, seed=3)
    model = averaged(fake_model("Identity", classes=250), 8)
    mask, _ = run(tmp_path, source, model, lattice_of(blend), blend=blend, core=(8, 24))
    assert (mask == source.values[0]).all()


def test_a_constant_model_gives_its_constant_scores_back_exactly() -> None:
    model = fake_model("Constant")
    network = model.network(call_of_patch(model))
    patches = np.zeros((1, 1, 9, 9), np.uint8)
    for networks in ([network], [network] * 3):
        for turns in (1, *TURNS):
            assert (mean_scores(networks, patches, turns=turns) == network(patches)).all()


def call_of_patch(model: FakeModel) -> Any:
    return Call(np.dtype(np.uint8), model.spec.normalisation(), labels=False)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two U-Nets of different depth, normalisation and margin, with the same classes."""
    folder = tmp_path_factory.mktemp("unets")
    fixed = {"kind": "mean_std", "mean": [90.0, 110.0, 130.0], "std": [50.0, 60.0, 70.0]}
    scene = {"kind": "scene_percentiles", "low": 2, "high": 98}
    return [
        write_unet_bundle(folder / "deep", depth=2, seed=1, normalise=fixed, name="deep"),
        write_unet_bundle(folder / "flat", depth=1, seed=2, normalise=scene, name="flat"),
    ]


def image_of(shape: tuple[int, int]) -> NDArray[np.uint8]:
    rng = np.random.default_rng(shape)
    coarse = rng.integers(0, 200, (3, -(-shape[0] // 8), -(-shape[1] // 8)))
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : shape[0], : shape[1]]
    return (blocks + rng.integers(0, 56, blocks.shape)).astype(np.uint8)


def segmented(folder: Path, image: NDArray[np.uint8], model: Any, *, threads: int = 0, **tiling: Any) -> Any:
    """Mask of a job, and the recipe of its scene."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = write_scene(folder / "scene.tif", image, names=["b1", "b2", "b3"])
    data = job_data(scene, "", folder / "run", tiling={"blend": "crop", **tiling}, precision="fp32", engine="torch")
    job = parse_job({**data, "model": model}, where="test")
    assert run_job(job, executor=ThreadExecutor(threads) if threads else SerialExecutor()).exit_code == 0
    store = RunDirectory(folder / "run").scene("scene")
    return store.read(ArraySource.of(image).grid.window), store.read_json("plan.json")["scene"]


def whole(image: NDArray[np.uint8], bundles: list[Path], plan: Any, turns: int, *, margin: int) -> NDArray[np.uint8]:
    """Whole-image inference: one forward pass for each turn of the image, reflect-padded, and each model."""
    numbers = [(plan["subtract"], plan["divide"]), *((o["subtract"], o["divide"]) for o in plan["others"])]
    ends = [(margin, margin + -size % 4) for size in image.shape[1:]]
    total = 0.0
    height, width = image.shape[1:]
    for turn in range(turns):
        for bundle, (subtract, divide) in zip(bundles, numbers, strict=True):
            model = load_model(bundle, device="cpu", threads=1, engine="torch", precision="fp32")
            normal = model.spec.normalisation(tuple(subtract), tuple(divide)).apply(image)
            padded = np.pad(normal, [(0, 0), *ends], mode="reflect")[None]
            scores = turned_back(model.predict(np.ascontiguousarray(turned(padded, turn))), turn)
            total = total + scores.astype(np.float64)
    mean = np.asarray(total / (turns * len(bundles))).astype(np.float32)
    return decide(np.ascontiguousarray(mean[0, :, margin : margin + height, margin : margin + width]))


@pytest.mark.parametrize("turns", (1, 8))
@pytest.mark.parametrize("together", [False, True])
def test_crop_equals_the_mean_over_turned_whole_images_and_models(
    tmp_path: Path, bundles: list[Path], turns: int, together: bool
) -> None:
    image, chosen = image_of((101, 86)), bundles if together else bundles[:1]
    masks = []
    for number, (patch, core, threads) in enumerate(((88, 40, 0), (152, "auto", 2))):
        tiling = {"turns": turns, "patch": patch, "core": core}
        models = [str(bundle) for bundle in chosen]
        mask, plan = segmented(tmp_path / str(number), image, models, threads=threads, **tiling)
        masks.append(mask)
    assert (masks[0] == masks[1]).all()
    assert (masks[0] == whole(image, chosen, plan, turns, margin=24)).all()
    assert len(np.unique(masks[0])) > 2, "the network tells nothing apart, so the test shows nothing"


def test_a_turned_scene_gives_the_turned_mask(tmp_path: Path, bundles: list[Path]) -> None:
    """The mean over all turns prefers no direction; patches of a square scene that is one patch are turned as it is."""
    image, one = image_of((64, 64)), str(bundles[0])
    tiling = {"turns": 8, "patch": 128, "blend": "crop"}
    mask, _ = segmented(tmp_path / "a", image, one, **tiling)
    other, _ = segmented(tmp_path / "b", np.ascontiguousarray(np.rot90(image, axes=(1, 2))), one, **tiling)
    once = {**tiling, "turns": 1}
    alone, _ = segmented(tmp_path / "c", np.ascontiguousarray(np.rot90(image, axes=(1, 2))), one, **once)
    plain, _ = segmented(tmp_path / "d", image, one, **once)
    agree = (other == np.rot90(mask)).mean()
    assert agree > 0.999 > (alone == np.rot90(plain)).mean()
