"""Statistics of a scene are of the pixels that the network sees: cases from public reports, and the same made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from fakes import job_data, spec_data, write_scene, write_spec
from numpy.typing import NDArray

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

NORMALISE: dict[str, dict[str, Any]] = {
    "mean_std": {"kind": "scene_mean_std"},
    "percentiles": {"kind": "scene_percentiles", "low": 1, "high": 99},
}


@pytest.fixture(params=NORMALISE)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    data = spec_data("Steps", classes=20, normalise=NORMALISE[request.param], patch={"multiple": 16, "preferred": 64})
    return write_spec(tmp_path / "model", data)


def mask_of(image: Path, model: Path, run: Path, **how: Any) -> NDArray[np.uint8]:
    data = job_data({"image": str(image), "name": "a"}, model, run, input=how)
    data["output"] = {"dir": str(run), "products": [], "preview": False}
    assert run_job(parse_job(data, where="test"), executor=SerialExecutor()).exit_code == 0
    shape = open_source(str(image)).grid.shape
    return np.asarray(RunDirectory(run).scene("a").read(Window(0, 0, *shape)))


def expected(values: NDArray[Any], model: Path) -> NDArray[np.uint8]:
    """The mask, by NumPy, of values that are all valid."""
    exact = values.astype(np.float64)
    if "mean_std" in (model / "model.yaml").read_text():
        subtract, divide = exact.mean(), exact.std()
    else:
        subtract, top = np.percentile(exact, [1, 99])
        divide = top - subtract
    steps = np.floor((values.astype(np.float32) - np.float32(subtract)) / np.float32(divide) * 20)
    return np.clip(steps, 0, 19).astype(np.uint8)


@pytest.mark.parametrize("name", ["06-zero-overviews", "06-stale-ovr"])
def test_overviews_of_other_pixels_change_nothing(shared_cases: Path, tmp_path: Path, model: Path, name: str) -> None:
    folder = shared_cases / "geo"
    right = mask_of(folder / "06-same-image-no-overviews.tif", model, tmp_path / "right")
    assert len(np.unique(right)) == 20
    np.testing.assert_array_equal(mask_of(folder / f"{name}.tif", model, tmp_path / "run"), right)


def test_external_overviews_of_an_earlier_image_change_nothing(tmp_path: Path, model: Path) -> None:
    values = np.random.default_rng(0).integers(1, 5000, (300, 400)).astype(np.uint16)
    path = write_scene(tmp_path / "scene.tif", values[None] // 50)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert Path(f"{path}.ovr").exists()
    write_scene(tmp_path / "new.tif", values[None]).replace(path)
    np.testing.assert_array_equal(mask_of(path, model, tmp_path / "run"), expected(values, model))


def test_a_small_valid_area_has_its_own_statistics(shared_cases: Path, tmp_path: Path, model: Path) -> None:
    image = shared_cases / "geo" / "07-small-valid-area.tif"
    with rasterio.open(image) as file:
        values, valid = file.read(1), file.dataset_mask() != 0
    mask = mask_of(image, model, tmp_path / "run")
    np.testing.assert_array_equal(mask == 255, ~valid)
    np.testing.assert_array_equal(mask[valid], expected(values[valid], model))


@pytest.mark.parametrize("corner", [(0, 0), (1180, 777), (1460, 1560)])
def test_a_small_valid_area_anywhere_has_its_own_statistics(
    tmp_path: Path, model: Path, corner: tuple[int, int]
) -> None:
    inside = slice(corner[0], corner[0] + 40), slice(corner[1], corner[1] + 40)
    values = np.zeros((1500, 1600), np.uint16)
    values[inside] = np.random.default_rng(0).integers(1, 5000, (40, 40))
    image = write_scene(tmp_path / "scene.tif", values[None], nodata=0, tiled=True, compress="deflate")
    mask = mask_of(image, model, tmp_path / "run")
    np.testing.assert_array_equal(mask[inside], expected(values[inside], model))
    assert (mask == 255).sum() == mask.size - 1600


@pytest.mark.parametrize("name", ["stats-flat", "stats-pyramid", "sparse-scan"])
def test_slides_of_the_cases_have_the_statistics_of_their_stored_pixels(
    shared_cases: Path, tmp_path: Path, model: Path, name: str
) -> None:
    image = shared_cases / "micro" / f"{name}.ome.tif"
    values = tifffile.imread(image, series=0, level=0)
    valid = values > 0 if name == "sparse-scan" else np.ones(values.shape, bool)
    mask = mask_of(image, model, tmp_path / "run")
    seen = mask != 255
    assert seen[valid].all()
    np.testing.assert_array_equal(mask[seen], expected(values[seen], model))


def test_statistics_of_a_stained_slide_are_of_its_tissue(tmp_path: Path, model: Path) -> None:
    glass, rng = np.full((1200, 1400, 3), 243, np.uint8), np.random.default_rng(0)
    glass[600:900, 500:800] = rng.integers(60, 180, (300, 300, 1)) + np.array([40, 0, 30])
    tifffile.imwrite(tmp_path / "slide.tif", glass, tile=(128, 128), photometric="rgb")
    how: dict[str, Any] = {"mpp": 0.5, "bands": [1]}
    mask = mask_of(tmp_path / "slide.tif", model, tmp_path / "run", **how)
    seen = mask != 255
    assert seen[600:900, 500:800].all() and seen.mean() < 0.2
    np.testing.assert_array_equal(mask[seen], expected(glass[..., 0][seen], model))
    assert len(np.unique(mask[seen])) > 10


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_field_with_few_cells_is_segmented_by_a_model_of_its_unit(tmp_path: Path, dtype: str) -> None:
    """Fluorescence on 0.7 % of the area: 98 % of the values are dark, which is content and no other unit."""
    values = np.random.default_rng(4).integers(0, 6, (512, 512)).astype(dtype)
    for y, x in ((40, 40), (300, 90), (410, 470)):
        values[y : y + 25, x : x + 25] = 200
    most = np.iinfo(dtype).max
    spec = spec_data("Shades", dtype=dtype, input_range=[0, int(most)], classes=3)
    mask = mask_of(
        write_scene(tmp_path / "a.tif", values[None]), write_spec(tmp_path / "model", spec), tmp_path / "run"
    )
    np.testing.assert_array_equal(mask, np.digitize(values, [110, 165]))


def test_the_field_with_few_cells_of_the_cases_is_segmented(shared_cases: Path, tmp_path: Path) -> None:
    image = shared_cases / "micro" / "few-cells.ome.tif"
    spec = spec_data("Shades", dtype="uint8", input_range=[0, 255], classes=3)
    mask = mask_of(image, write_spec(tmp_path / "model", spec), tmp_path / "run")
    np.testing.assert_array_equal(mask, np.digitize(tifffile.imread(image), [110, 165]))
