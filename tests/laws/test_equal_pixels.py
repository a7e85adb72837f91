"""Equal pixels, equal mask, whatever file holds them: for models with statistics of the scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
import zarr
from fakes import job_data, spec_data, write_scene, write_spec
from numpy.typing import NDArray

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.formats.open import open_source
from tilesseg.planning.job import parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

SHAPE = (330, 410)
NORMALISE: dict[str, dict[str, Any]] = {
    "mean and deviation": {"kind": "scene_mean_std"},
    "percentiles": {"kind": "scene_percentiles", "low": 1, "high": 99},
    "joint percentiles": {"kind": "scene_percentiles", "low": 0, "high": 99.8, "joint": True, "clip": [0, 1]},
}
TILING = {"patch": 64, "overlap": 16, "blend": "gaussian", "core": 128, "batch": 4}


def picture(shape: tuple[int, int] = SHAPE) -> NDArray[np.uint16]:
    """Three bands of fine detail, of which any mean is wrong, and a dark part of zeros that are values."""
    rng, (y, x) = np.random.default_rng(4), np.mgrid[: shape[0], : shape[1]]
    detail = np.where((y // 2 + x) % 3, 300, 2600)[None] + rng.integers(0, 900, (3, *shape))
    detail[:, :, shape[1] // 2 :] = 0
    return detail.astype(np.uint16)


def cog(path: Path, values: NDArray[Any]) -> Path:
    plain = write_scene(path.with_suffix(".plain.tif"), values)
    rasterio.shutil.copy(plain, path, driver="COG", blocksize=128, overview_resampling="average")
    return path


def false_overviews(path: Path, values: NDArray[Any]) -> Path:
    write_scene(path, np.zeros_like(values), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
        file.write(values)
    return path


def single_bands(path: Path, values: NDArray[Any]) -> list[str]:
    return [str(write_scene(path.with_name(f"{path.stem}-{k}.tif"), band[None])) for k, band in enumerate(values)]


def store(path: Path, values: NDArray[Any]) -> Path:
    zarr.create_array(str(path), shape=values.shape, chunks=(1, 100, 90), dtype=values.dtype)[:] = values
    return path


def ome_zarr(path: Path, values: NDArray[Any], *, sparse: bool) -> Path:
    """An image with a level of means; sparse: chunks of zeros are left out, as bioformats2raw and ngff-zarr do."""
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    levels = [
        {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": [1, 2**k, 2**k]}]} for k in (0, 1)
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    root = zarr.create_group(str(path), attributes={"ome": ome})
    for k, level in enumerate((values, means(values))):
        config = {"write_empty_chunks": not sparse}
        array = root.create_array(str(k), shape=level.shape, chunks=(3, 64, 64), dtype=level.dtype, config=config)
        array[:] = level
    return path


def means(values: NDArray[Any]) -> NDArray[Any]:
    height, width = (side // 2 * 2 for side in values.shape[1:])
    cut = values[:, :height, :width].astype(float)
    return (cut.reshape(3, height // 2, 2, width // 2, 2).mean(axis=(2, 4))).astype(values.dtype)


def ome_tiff(path: Path, values: NDArray[Any], *, levels: int = 1) -> Path:
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(values, tile=(64, 64), subifds=levels - 1, metadata={"axes": "CYX"}, photometric="minisblack")
        if levels > 1:
            file.write(means(values), tile=(64, 64), subfiletype=1, photometric="minisblack")
    return path


def png(path: Path, values: NDArray[Any]) -> Path:
    rasterio.shutil.copy(write_scene(path.with_suffix(".tif"), values), path, driver="PNG")
    return path


Write = Callable[[Path, NDArray[Any]], "Path | list[str]"]
FILES: dict[str, Write] = {
    "GeoTIFF": lambda folder, values: write_scene(folder / "a.tif", values, blockysize=7),
    "COG": lambda folder, values: cog(folder / "a.tif", values),
    "overviews of other pixels": lambda folder, values: false_overviews(folder / "a.tif", values),
    "list of bands": lambda folder, values: single_bands(folder / "a.tif", values),
    "Zarr": lambda folder, values: store(folder / "a.zarr", values),
    "OME-Zarr": lambda folder, values: ome_zarr(folder / "a.ome.zarr", values, sparse=False),
    "sparse OME-Zarr": lambda folder, values: ome_zarr(folder / "a.ome.zarr", values, sparse=True),
    "OME-TIFF": lambda folder, values: ome_tiff(folder / "a.ome.tif", values),
    "OME-TIFF with levels": lambda folder, values: ome_tiff(folder / "a.ome.tif", values, levels=2),
    "PNG": lambda folder, values: png(folder / "a.png", values),
}


def mask_of(image: Any, model: Path, run: Path) -> NDArray[np.uint8]:
    entry = {"image": image if isinstance(image, list) else str(image), "name": "a"}
    data = job_data(entry, model, run, tiling=TILING, input={"bands": [1, 2, 3]})
    data["output"] = {"dir": str(run), "products": [], "preview": False}
    assert run_job(parse_job(data, where="test"), executor=SerialExecutor()).exit_code == 0
    return np.asarray(RunDirectory(run).scene("a").read(Window(0, 0, *SHAPE)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, classes = tmp_path_factory.mktemp("models"), 20
    return {
        kind: write_spec(folder / str(k), spec_data("Steps", bands=3, classes=classes, normalise=normalise))
        for k, (kind, normalise) in enumerate(NORMALISE.items())
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]) -> dict[str, NDArray[np.uint8]]:
    """Masks of a plain tiled GeoTIFF, each with many classes."""
    folder = tmp_path_factory.mktemp("plain")
    image = write_scene(folder / "plain.tif", picture(), tiled=True, blockxsize=64, blockysize=64)
    masks = {kind: mask_of(image, model, folder / kind) for kind, model in models.items()}
    assert all(len(np.unique(mask)) > 5 and mask.max() < 254 for mask in masks.values())
    return masks


@pytest.mark.parametrize("form", FILES)
def test_equal_pixels_give_an_equal_mask(
    tmp_path: Path, models: dict[str, Path], expected: dict[str, NDArray[np.uint8]], form: str
) -> None:
    image = FILES[form](tmp_path, picture())
    for kind, model in models.items():
        np.testing.assert_array_equal(mask_of(image, model, tmp_path / kind), expected[kind], err_msg=kind)


@pytest.mark.parametrize("form", [form for form in FILES if form != "GeoTIFF"])
def test_equal_pixels_have_an_equal_sample_where_not_all_are_taken(tmp_path: Path, form: str) -> None:
    values = picture((1300, 1500))
    image = FILES[form](tmp_path, values)
    plain = open_source(str(write_scene(tmp_path / "plain.tif", values))).sample()
    sample = open_source(image if isinstance(image, list) else str(image)).sample()
    np.testing.assert_array_equal(sample, plain)
