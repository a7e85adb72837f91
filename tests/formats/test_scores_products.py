"""Stored scores: what whole-image inference gives, quantised; whatever the tiling; and a COG that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from fakes import job_data, write_bundle, write_scene, write_unet_bundle
from numpy.typing import NDArray
from rio_cogeo import cog_validate

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.errors import FormatError, JobError, ModelError, StoreError
from tilesseg.models.load import load_model
from tilesseg.planning.job import Product, parse_job
from tilesseg.planning.stored_plan import open_run_directory
from tilesseg.raster.labels import quantise
from tilesseg.raster.pyramid import halve_mean
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import run_job
from tilesseg.run.write_products import export_run
from tilesseg.store.scene_store import Store

Bytes = NDArray[np.uint8]
SHAPE = (331, 270)
MARGIN = 24
"""Of the U-Net of depth 2, its stride multiple being 4."""


def picture(shape: tuple[int, int] = SHAPE, *, bands: int = 3) -> Bytes:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 200, (bands, -(-shape[0] // 16), -(-shape[1] // 16)))
    cells = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : shape[0], : shape[1]]
    return (cells + rng.integers(0, 56, cells.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rule = {"kind": "mean_std", "mean": [90.0, 110.0, 130.0], "std": [50.0, 60.0, 70.0]}
    return write_unet_bundle(tmp_path_factory.mktemp("unet"), normalise=rule)


def scene_of(folder: Path, image: Bytes, *, nodata: int | None = None) -> Path:
    names = [f"b{k + 1}" for k in range(len(image))]
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    return write_scene(folder / "scene.tif", image, names=names, nodata=nodata, **tiled)


def carry_out(
    folder: Path, scene: Path, bundle: Path, *, scores: Any = True, executor: Any = None, products: Any = (), **how: Any
) -> Report:
    output = {"dir": str(folder), "scores": scores, "products": list(products), "preview": False}
    job = parse_job({**job_data(scene, bundle, folder), "output": output, **how}, where="test")
    return run_job(job, executor=executor or SerialExecutor())


def stored(folder: Path) -> Bytes:
    store = Store(folder / "scenes" / "scene")
    window = Window(0, 0, *store.shape)
    return np.stack([store.read_scores(k, window) for k in range(len(store.score_classes))])


def whole(image: Bytes, bundle: Path) -> NDArray[np.float32]:
    """One forward pass over the image, reflect-padded by the margin and as much as makes a legal size."""
    model = load_model(bundle, device="cpu", threads=1)
    ends = [(MARGIN, MARGIN + -size % 4) for size in image.shape[1:]]
    padded = np.pad(model.spec.normalisation().apply(image), [(0, 0), *ends], mode="reflect")
    scores = model.predict(padded[None])[0]
    return scores[:, MARGIN : MARGIN + image.shape[1], MARGIN : MARGIN + image.shape[2]]


def test_stored_scores_are_those_of_whole_image_inference(tmp_path: Path, bundle: Path) -> None:
    image = picture()
    report = carry_out(tmp_path / "run", scene_of(tmp_path, image), bundle, tiling={"blend": "crop", "patch": 128})
    assert report.exit_code == 0
    expected = np.rint(whole(image, bundle).astype(np.float64) * 250)
    found = stored(tmp_path / "run")
    assert found.shape == (4, *SHAPE)
    assert np.abs(found - expected).max() <= 1, "a score on the edge of two steps"
    assert (found == expected).mean() > 0.9999
    assert len(np.unique(found)) > 50, "the network tells nothing apart, so the test shows nothing"


@pytest.mark.parametrize("blend", ["gaussian", "crop"])
def test_tiling_never_changes_the_scores(tmp_path: Path, bundle: Path, blend: str) -> None:
    image = picture()
    image[:, 40:90, 100:270] = 0
    scene = scene_of(tmp_path, image, nodata=0)
    found = []
    for number, (core, executor) in enumerate([("auto", SerialExecutor()), (64, ThreadExecutor(2)), (192, None)]):
        tiling = {"blend": blend, "patch": 128, "core": core, "batch": 1}
        if blend == "crop" and core != "auto":
            tiling["core"] = 80 * (1 if core == 64 else 2)
        carry_out(tmp_path / str(number), scene, bundle, executor=executor, tiling=tiling)
        found.append(stored(tmp_path / str(number)))
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()
    mask = Store(tmp_path / "0" / "scenes" / "scene").read(Window(0, 0, *SHAPE))
    assert ((found[0] == 255) == (mask == 255)).all() and (mask == 255).any()
    assert found[0][:, mask != 255].max() <= 250


def test_the_mask_is_the_same_with_scores_and_without(tmp_path: Path, bundle: Path) -> None:
    scene, masks = scene_of(tmp_path, picture()), []
    for scores in (False, ["class 2"]):
        folder = tmp_path / str(bool(scores))
        carry_out(folder, scene, bundle, scores=scores, tiling={"blend": "gaussian", "patch": 64})
        store = Store(folder / "scenes" / "scene")
        masks.append(store.read(Window(0, 0, *SHAPE)))
        assert store.score_classes == (("class 2",) if scores else ())
    assert (masks[0] == masks[1]).all()


def test_a_threshold_model_stores_the_score_of_its_second_class(tmp_path: Path) -> None:
    decision = {"kind": "threshold", "threshold": 0.5}
    rule = {"kind": "range", "low": 0, "high": 255}
    changes = {"activation": "sigmoid", "decision": decision, "normalise": rule}
    with pytest.raises(Exception, match="classes"):
        write_bundle(tmp_path / "none", classes=3, decision=decision) and load_model(tmp_path / "none")
    bundle = write_bundle(tmp_path / "model", "Positional", classes=2, **changes)
    scene = scene_of(tmp_path, picture(bands=1))
    with pytest.raises(JobError, match=r"output\.scores names class 0.*gives scores of class 1"):
        carry_out(tmp_path / "run", scene, bundle, scores=["class 0"])


def test_an_unknown_class_is_refused_with_those_that_exist(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(JobError, match=r"names water, and untrained-3 gives scores of class 0, class 1"):
        carry_out(tmp_path / "run", scene_of(tmp_path, picture()), bundle, scores=["water"])
    assert not (tmp_path / "run").exists()


def test_scores_that_are_none_are_refused_before_the_first_tile(tmp_path: Path) -> None:
    bundle = write_unet_bundle(tmp_path / "model", activation="none")
    with pytest.raises(JobError, match=r"a score of -?[\d.]+ of the model: scores are stored as 0 to 1; set"):
        carry_out(tmp_path / "run", scene_of(tmp_path, picture()), bundle)
    assert not Store(tmp_path / "run" / "scenes" / "scene").done_names()


@pytest.mark.parametrize("score", [-0.01, 1.002, 12.0])
def test_a_score_beyond_0_to_1_is_refused_with_its_value(score: float) -> None:
    with pytest.raises(ModelError, match=f"a score of {score:.4g}"):
        quantise(np.array([[0.5, score]], np.float32))


def test_scores_are_rounded_to_the_nearest_step() -> None:
    given = np.array([[-0.0005, 0.0, 0.0021, 0.00199, 0.5, 0.9981, 1.0, 1.0005]], np.float32)
    assert quantise(given).tolist() == [[0, 0, 1, 0, 125, 250, 250, 250]]


def test_a_failed_tile_has_254_in_mask_and_scores(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "model", "Broken")
    image = np.ones((1, 128, 128), np.uint8)
    image[0, 100, 100] = 13
    tiling = {"blend": "gaussian", "patch": 32, "overlap": 8, "core": 64}
    how = {"tiling": tiling, "input": {"check_range": False}}
    report = carry_out(tmp_path / "run", scene_of(tmp_path, image), bundle, **how)
    assert report.exit_code == 3
    scores, mask = stored(tmp_path / "run"), Store(tmp_path / "run" / "scenes" / "scene").read(Window(0, 0, 128, 128))
    assert ((scores == 254) == (mask == 254)).all() and (mask[64:, 64:] == 254).all() and (mask[:64] == 1).all()
    assert (scores[1, :64] == 250).all() and (scores[0, :64] == 0).all()


def test_stored_scores_have_a_plane_for_each_class(tmp_path: Path) -> None:
    store = Store(tmp_path / "scene")
    store.create(shape=(50, 70), shard=16, chunk=8, fingerprint="a", scores=["x", "y"])
    array = zarr.open_array(store.folder / "scores.zarr", mode="r")
    assert array.shards == (1, 16, 16) and array.metadata.dimension_names == ("class", "y", "x")  # type: ignore[union-attr]


def test_asking_for_scores_of_a_run_that_has_begun_without_is_refused(tmp_path: Path, bundle: Path) -> None:
    scene = scene_of(tmp_path, picture())
    carry_out(tmp_path / "run", scene, bundle, scores=False)
    with pytest.raises(StoreError, match=r"output\.scores was none and is class 1 now"):
        carry_out(tmp_path / "run", scene, bundle, scores=["class 1"])
    with pytest.raises(FormatError, match=r"needs stored scores, and output\.scores is false"):
        export_run(tmp_path / "run", Product(format="scores-cog"))


def test_lost_scores_under_records_are_refused(tmp_path: Path, bundle: Path) -> None:
    scene = scene_of(tmp_path, picture())
    carry_out(tmp_path / "run", scene, bundle)
    (tmp_path / "run" / "scenes" / "scene" / "scores.zarr").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"no scores\.zarr; restore that"):
        carry_out(tmp_path / "run", scene, bundle)


def test_a_scores_product_without_stored_scores_is_refused_before_the_first_tile(tmp_path: Path, bundle: Path) -> None:
    scene, products = scene_of(tmp_path, picture()), [{"format": "scores-cog"}]
    with pytest.raises(FormatError, match=r"output\.scores is false"):
        carry_out(tmp_path / "run", scene, bundle, scores=False, products=products)
    products = [{"format": "scores-cog", "classes": ["class 2"]}]
    with pytest.raises(FormatError, match=r"requested for class class 2, and scores are stored of class 0, class 1"):
        carry_out(tmp_path / "run", scene, bundle, scores=["class 0", "class 1"], products=products)
    assert not (tmp_path / "run").exists()


def test_the_cog_holds_the_stored_scores_with_names_scale_and_place(tmp_path: Path, bundle: Path) -> None:
    shape = (700, 1100)
    scene = scene_of(tmp_path, picture(shape))
    products = [{"format": "cog"}, {"format": "scores-cog"}]
    assert carry_out(tmp_path / "run", scene, bundle, scores=["class 3", "class 1"], products=products).exit_code == 0
    path = tmp_path / "run" / "scenes" / "scene" / "scene-scores.tif"
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    scores = stored(tmp_path / "run")
    with rasterio.open(path) as file, rasterio.open(scene) as source:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, source.shape)
        assert file.descriptions == ("class 3", "class 1") and set(file.dtypes) == {"uint8"}
        assert file.scales == (1 / 250, 1 / 250) and file.offsets == (0.0, 0.0) and set(file.nodatavals) == {255}
        assert (file.read() == scores).all()
        assert file.tags()["TILESSEG_SCORE_254"] == "failed"
        assert file.overviews(1) == [2, 4][: len(file.overviews(1))] and file.overviews(1)
    with rasterio.open(path, overview_level=0) as level:
        assert (level.read() == np.stack([halve_mean(one) for one in scores])).all()


def test_export_writes_the_classes_asked_for(tmp_path: Path, bundle: Path) -> None:
    carry_out(tmp_path / "run", scene_of(tmp_path, picture()), bundle)
    out = tmp_path / "one.tif"
    arguments = ["export", str(tmp_path / "run"), "--format", "scores-cog", "--out", str(out)]
    assert run([*arguments, "--class", "class 2"]) == 0
    with rasterio.open(out) as file:
        assert file.descriptions == ("class 2",) and (file.read(1) == stored(tmp_path / "run")[2]).all()
    assert run(["export", str(tmp_path / "run"), "--class", "class 2"]) == 1


def test_segment_writes_scores_in_one_command(tmp_path: Path, bundle: Path) -> None:
    scene, out = scene_of(tmp_path, picture()), tmp_path / "scores.tif"
    arguments = ["segment", str(scene), "--model", str(bundle), "--out", str(tmp_path / "mask.tif"), "--workers", "1"]
    assert run([*arguments, "--score-class", "class 1"]) == 1
    assert run([*arguments, "--scores", str(out), "--score-class", "class 1", "--run", str(tmp_path / "run")]) == 0
    with rasterio.open(out) as file:
        assert file.descriptions == ("class 1",)
    plan = open_run_directory(tmp_path / "run")[1]
    assert plan.score_classes == ("class 1",)


def test_a_mean_counts_scores_alone_and_rounds_half_up() -> None:
    cells = {
        (10, 11, 10, 11): 11, (10, 254, 255, 254): 10, (255, 255, 255, 255): 255, (255, 254, 255, 255): 254,
        (0, 0, 0, 1): 0, (250, 250, 250, 250): 250, (0, 255, 1, 255): 1,
    }  # fmt: skip
    for (a, b, c, d), mean in cells.items():
        assert halve_mean(np.array([[a, b], [c, d]], np.uint8)).tolist() == [[mean]]
    odd = np.random.default_rng(0).integers(0, 251, (7, 5)).astype(np.uint8)
    padded = np.pad(odd.astype(float), ((0, 1), (0, 1)), constant_values=np.nan)
    expected = np.nanmean(padded.reshape(4, 2, 3, 2), axis=(1, 3))
    assert (halve_mean(odd) == np.floor(expected + 0.5)).all()
