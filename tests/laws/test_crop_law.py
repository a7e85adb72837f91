"""Law 5: `crop` equals whole-image inference, with the real network, through the real run, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_scene, write_unet_bundle
from numpy.typing import NDArray

from tilesseg.cluster.executors import Executor, SerialExecutor, ThreadExecutor
from tilesseg.formats.source import Source
from tilesseg.models.load import Model, load_model
from tilesseg.planning import tiling_options
from tilesseg.planning.job import parse_job
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.raster.labels import decide
from tilesseg.raster.tiling import Lattice, Tiling
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

Scores = NDArray[np.float32]
MARGIN, MULTIPLE = 96, 16
"""Of the U-Net of depth 4 with transposed convolutions; see test_receptive."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth 4, width 16, weights and batch-norm statistics drawn at random."""
    statistics = {"kind": "mean_std", "mean": [90.0, 110.0, 130.0], "std": [50.0, 60.0, 70.0]}
    return write_unet_bundle(tmp_path_factory.mktemp("unet"), depth=4, width=16, normalise=statistics)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return load_model(bundle, device="cpu", threads=1, precision="fp32")
    # ^ in bf16 what is fused rounds otherwise than `predict`; test_engines shows the law for it


def picture(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Three bands with structure at every scale."""
    rng = np.random.default_rng(shape)
    coarse = rng.integers(0, 200, (3, -(-shape[0] // 16), -(-shape[1] // 16)))
    blocks = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : shape[0], : shape[1]]
    return (blocks + rng.integers(0, 56, blocks.shape)).astype(np.uint8)


def whole(image: NDArray[np.uint8], model: Model) -> Scores:
    """One forward pass over the image, reflect-padded by the margin, and by as much as makes a legal size."""
    normal = model.spec.normalisation().apply(image)
    ends = [(MARGIN, MARGIN + -size % MULTIPLE) for size in image.shape[1:]]
    padded = np.pad(normal, [(0, 0), *ends], mode="reflect")
    height, width = image.shape[1:]
    return model.predict(padded[None])[0, :, MARGIN : MARGIN + height, MARGIN : MARGIN + width]


def run(
    folder: Path, image: NDArray[np.uint8], bundle: Path, executor: Executor, **tiling: Any
) -> tuple[NDArray[np.uint8], ScenePlan]:
    """The mask that a job leaves behind, and its plan."""
    scene = write_scene(
        folder / "scene.tif", image, names=["b1", "b2", "b3"], tiled=True, blockxsize=256, blockysize=256
    )
    data = job_data(scene, bundle, folder / "run", tiling={"blend": "crop", **tiling})
    job = parse_job({**data, "precision": "fp32"}, where="test")
    report = run_job(job, executor=executor)
    assert report.exit_code == 0
    store = RunDirectory(folder / "run").scene("scene")
    plan = stored_scene_plan(store)
    assert plan is not None
    return store.read(plan.grid.window), plan


def patchwise(tiling: Tiling, source: Source, model: Model) -> Scores:
    """The scores that count, patch after patch, as tiles read and predict them."""
    scores = np.full((model.spec.score_channels, *tiling.shape), np.nan, np.float32)
    for tile in tiling:
        for row in tile.patch_rows:
            pixels = source.read(row.window).values
            for patch in row.patches:
                inputs = model.spec.normalisation().apply(pixels[:, *patch.window.slices(row.window)])
                seen = patch.support.intersect(tile.core)
                scores[:, *seen.slices()] = model.predict(inputs[None])[0][:, *seen.slices(patch.window)]
    return scores


@pytest.mark.parametrize(
    ("shape", "patch", "core"),
    [
        ((500, 430), 304, 224),
        ((600, 430), 512, "auto"),
        ((500, 430), "auto", "auto"),
        ((331, 257), 240, 144),
        ((77, 53), 208, 32),  # smaller than the margin, which is reflected to and fro
    ],
)
def test_crop_equals_whole_image_inference(
    tmp_path: Path, bundle: Path, model: Model, shape: tuple[int, int], patch: int | str, core: int | str
) -> None:
    image = picture(shape)
    expected = whole(image, model)
    mask, scene = run(tmp_path, image, bundle, SerialExecutor(), patch=patch, core=core)
    assert np.abs(patchwise(scene.tiling, scene.open(), model) - expected).max() == 0.0
    assert (mask == decide(expected)).all()
    assert len(np.unique(mask)) > 2, "the network tells nothing apart, so the test shows nothing"


def test_crop_equals_whole_image_inference_on_two_threads(tmp_path: Path, bundle: Path, model: Model) -> None:
    image = picture((300, 470))
    mask, _ = run(tmp_path, image, bundle, ThreadExecutor(2), patch=304, core=224)
    assert (mask == decide(whole(image, model))).all()


@pytest.mark.parametrize(("shift", "equal"), [(0, True), (1, False), (8, False)])
def test_a_lattice_shifted_off_the_stride_multiple_does_not(
    tmp_path: Path, bundle: Path, model: Model, monkeypatch: pytest.MonkeyPatch, shift: int, equal: bool
) -> None:
    """The margins stay as wide as they must be: the phase of pooling alone makes the difference."""
    lead = MARGIN + shift
    monkeypatch.setattr(
        tiling_options, "crop_lattice", lambda *_, **__: Lattice(320, 112, lead, before=lead, after=208 - lead)
    )
    image = picture((331, 257))
    expected = whole(image, model)
    mask, scene = run(tmp_path, image, bundle, SerialExecutor(), patch=320, core=224)
    difference = np.abs(patchwise(scene.tiling, scene.open(), model) - expected).max()
    assert ((difference == 0.0), (mask == decide(expected)).all()) == (equal, equal)
