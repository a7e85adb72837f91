"""Laws of which pixels count: equal pixels have equal validity in every form; alpha is the mask of any file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import zarr
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from tilesseg.formats.geozarr.staged_source import StagedWriter, create_staged, open_staged
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.validity import choose_mask
from tilesseg.raster.window import Window

SHAPE = 61, 73
NAMES = ("red", "green", "blue", "nir")
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5600000)}
NODATA = 0


def picture() -> NDArray[np.uint16]:
    """Four bands: nodata in all at the left, in one of them at the top, in two in the middle."""
    values = np.random.default_rng(5).integers(1, 3000, (4, *SHAPE)).astype(np.uint16)
    values[:, :, :16] = NODATA
    values[0, :16, 16:] = NODATA
    values[1:3, 32:48, 32:64] = NODATA
    return values


def tiff(path: Path, values: NDArray[Any], names: tuple[str, ...] = NAMES, **how: Any) -> str:
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **PLACE, **{"nodata": NODATA, **how}) as file:
        file.write(values)
        for number, name in enumerate(names, start=1):
            file.set_band_description(number, name)
    return str(path)


def cog(folder: Path, values: NDArray[Any]) -> str:
    rasterio.shutil.copy(tiff(folder / "a.tif", values), folder / "cog.tif", driver="COG", blocksize=16)
    return str(folder / "cog.tif")


def several_files(folder: Path, values: NDArray[Any]) -> list[str]:
    return [tiff(folder / f"{k}.tif", values[k : k + 1], NAMES[k : k + 1]) for k in range(4)]


def one_file_and_three(folder: Path, values: NDArray[Any]) -> list[str]:
    return [tiff(folder / "a.tif", values[:1], NAMES[:1]), tiff(folder / "b.tif", values[1:], NAMES[1:])]


def one_strip(folder: Path, values: NDArray[Any]) -> str:
    return tiff(folder / "a.tif", values, blockysize=SHAPE[0], compress="deflate")


def array(group: zarr.Group, name: str, values: NDArray[Any], *, sparse: bool, **how: Any) -> None:
    attributes = {"_FillValue": NODATA, "band_names": list(NAMES), "spatial:transform": list(PLACE["transform"])[:6]}
    made = group.create_array(
        name, shape=values.shape, dtype=values.dtype, attributes=attributes, fill_value=0,
        config={"write_empty_chunks": not sparse}, **{"chunks": (1,) * (values.ndim - 2) + (16, 16), **how},
    )  # fmt: skip
    made[...] = values


def dense_zarr(folder: Path, values: NDArray[Any]) -> str:
    array(zarr.create_group(str(folder / "a.zarr")), "image", values, sparse=False)
    return str(folder / "a.zarr")


def sparse_zarr(folder: Path, values: NDArray[Any]) -> str:
    array(zarr.create_group(str(folder / "a.zarr"), zarr_format=2), "image", values, sparse=True, chunks=(4, 16, 16))
    return str(folder / "a.zarr")


def zarr_of_arrays(folder: Path, values: NDArray[Any]) -> str:
    group = zarr.create_group(str(folder / "a.zarr"))
    for k, name in enumerate(("a", "b", "c", "d")):
        array(group, name, values[k], sparse=bool(k % 2))
    return str(folder / "a.zarr")


def ome_zarr(folder: Path, values: NDArray[Any], *, sparse: bool) -> str:
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    steps = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    images = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    group = zarr.create_group(str(folder / "a.zarr"), attributes={"ome": {"version": "0.5", "multiscales": images}})
    array(group, "0", values, sparse=sparse, shards=(1, 32, 32) if sparse else None)
    return str(folder / "a.zarr")


def staged(folder: Path, values: NDArray[Any]) -> str:
    source = open_source(tiff(folder / "a.tif", values))
    create_staged(folder / "a.zarr", source=source, shard=(64, 128), chunk=(32, 32))
    StagedWriter(folder / "a.zarr").write(0, 0, source.read_raw(source.grid.window))
    assert open_staged(folder / "a.zarr").grid.shape == SHAPE
    return str(folder / "a.zarr")


FORMS: dict[str, Callable[[Path, NDArray[Any]], str | list[str]]] = {
    "tiff": lambda folder, values: tiff(folder / "a.tif", values),
    "cog": cog,
    "one strip": one_strip,
    "a file for each band": several_files,
    "two files": one_file_and_three,
    "zarr": dense_zarr,
    "sparse zarr 2": sparse_zarr,
    "a zarr of arrays": zarr_of_arrays,
    "ome-zarr": lambda folder, values: ome_zarr(folder, values, sparse=False),
    "sparse ome-zarr in shards": lambda folder, values: ome_zarr(folder, values, sparse=True),
    "staged copy": staged,
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_pixels_have_equal_validity_and_statistics_in_every_form(tmp_path: Path, form: str) -> None:
    values = picture()
    source = open_source(FORMS[form](tmp_path, values))
    for bands in ([0, 1, 2, 3], [2, 1], [3], [0]):
        one = source.select(bands)
        pixels = one.read(source.grid.window)
        expected = (values[bands] != NODATA).any(axis=0)
        np.testing.assert_array_equal(pixels.valid, expected)
        np.testing.assert_array_equal(pixels.values, values[bands])
        inner = Window(7, 9, 31, 40)
        np.testing.assert_array_equal(one.read(inner).valid, expected[inner.slices()])
        np.testing.assert_array_equal(np.sort(one.sample()), np.sort(values[bands][:, expected]))
        rows = np.concatenate([raw.values for raw in one.rows(10)], axis=1)
        np.testing.assert_array_equal(rows, values[bands])


@pytest.mark.parametrize("resolution", [5.0, 14.0, 30.0])
@pytest.mark.parametrize("form", ["a file for each band", "two files", "zarr", "a zarr of arrays", "sparse zarr 2"])
def test_equal_pixels_are_equal_when_they_are_resampled(tmp_path: Path, form: str, resolution: float) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    opening = Opening(resolution=resolution)
    oracle = open_source(FORMS["tiff"](folders[0], picture()), opening)
    source = open_source(FORMS[form](folders[1], picture()), opening)
    for bands in ([0, 1, 2, 3], [2, 1], [3]):
        one, other = (image.select(bands).read(oracle.grid.window) for image in (oracle, source))
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_array_equal(one.values, other.values)


def test_a_nan_in_one_of_several_bands_is_nodata_and_a_nodata_value_in_one_is_not(tmp_path: Path) -> None:
    values = picture().astype(np.float32)
    values[values == NODATA] = -9999
    values[2, 50:55, 20:30] = np.nan
    values[3, 56, 20] = np.inf
    expected = (values != -9999).any(axis=0) & np.isfinite(values).all(axis=0)
    whole = tiff(tmp_path / "a.tif", values, nodata=-9999)
    parts = [tiff(tmp_path / f"{k}.tif", values[k : k + 1], NAMES[k : k + 1], nodata=-9999) for k in range(4)]
    for image in (whole, parts):
        np.testing.assert_array_equal(open_source(image).read(Window(0, 0, *SHAPE)).valid, expected)


def test_a_band_without_a_nodata_value_has_data_everywhere(tmp_path: Path) -> None:
    values = picture()
    parts = [
        tiff(tmp_path / "0.tif", values[:1], NAMES[:1]),
        tiff(tmp_path / "1.tif", values[1:2], ("b",), nodata=None),
    ]
    source = open_source(parts)
    assert source.read(source.grid.window).valid.all()
    np.testing.assert_array_equal(source.select([0]).read(source.grid.window).valid, values[0] != NODATA)


def alpha_file(path: Path, count: int, dtype: str = "uint8", *, at: int = -1, **how: Any) -> NDArray[np.bool_]:
    """A file of so many bands, one of them alpha, of which the right third is transparent and white."""
    values = np.random.default_rng(count).integers(1, 200, (count, *SHAPE)).astype(dtype)
    values[:, :, 50:] = 255
    values[at], values[at, :, 50:] = 255, 0
    profile = {"count": count, "height": SHAPE[0], "width": SHAPE[1], "dtype": dtype, **PLACE, **how}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        colours = [ColorInterp.undefined] * count
        colours[at] = ColorInterp.alpha
        file.colorinterp = colours
        file.write(values)
    return np.asarray(values[at] != 0)


@pytest.mark.parametrize("nodata", [None, 0, 255])
@pytest.mark.parametrize(("count", "dtype", "at"), [
    (2, "uint8", -1), (4, "uint8", -1), (5, "uint8", -1), (6, "uint16", -1), (4, "float32", -1), (5, "uint8", 3),
    (13, "uint16", -1), (4, "int16", 0),
])  # fmt: skip
def test_alpha_is_the_mask_whatever_the_number_of_bands_and_the_nodata_value(
    tmp_path: Path, count: int, dtype: str, at: int, nodata: int | None
) -> None:
    expected = alpha_file(tmp_path / "a.tif", count, dtype, at=at, nodata=nodata)
    source = open_source(str(tmp_path / "a.tif"))
    assert len(source.bands) == count - 1
    assert [band.number for band in source.alpha] == [at % count + 1]
    np.testing.assert_array_equal(source.read(source.grid.window).valid, expected)
    np.testing.assert_array_equal(source.select([0]).read(source.grid.window).valid, expected)
    assert source.describe()["files"][0]["mask"] == "alpha band"
    unused = [note for note in source.describe()["notes"] if "is not used" in note]
    assert bool(unused) == (nodata is not None)


@pytest.mark.parametrize("count", [2, 4, 5, 6])
@pytest.mark.parametrize("nodata", [None, 0])
def test_alpha_as_a_band_masks_nothing_and_has_its_place(tmp_path: Path, count: int, nodata: int | None) -> None:
    inside = alpha_file(tmp_path / "a.tif", count, nodata=nodata)
    source = open_source(str(tmp_path / "a.tif"), Opening(alpha="band"))
    assert (len(source.bands), source.alpha) == (count, ())
    pixels = source.select([count - 1, 0]).read(source.grid.window)
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.values[0], np.where(inside, 255, 0))
    assert any("is tagged alpha, and is read as a band" in note for note in source.describe()["notes"])


def test_alpha_in_a_list_masks_where_any_file_is_transparent(tmp_path: Path) -> None:
    expected = alpha_file(tmp_path / "a.tif", 4)
    tiff(tmp_path / "b.tif", picture()[:1], ("nir",), nodata=None)
    source = open_source([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    assert [band.number for band in source.alpha] == [4]
    np.testing.assert_array_equal(source.read(source.grid.window).valid, expected)
    assert source.select([3]).read(source.grid.window).valid.all()  # the other file has no alpha


def test_a_mask_of_the_file_counts_beside_alpha(tmp_path: Path) -> None:
    expected = alpha_file(tmp_path / "a.tif", 4)
    hole = np.full(SHAPE, 255, np.uint8)
    hole[:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.write_mask(hole)
    source = open_source(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(source.read(source.grid.window).valid, expected & (hole != 0))


@pytest.mark.parametrize("driver", ["PNG", "JP2OpenJPEG", "VRT"])
@pytest.mark.parametrize("count", [2, 4])
def test_alpha_of_other_formats_is_the_mask(tmp_path: Path, driver: str, count: int) -> None:
    expected = alpha_file(tmp_path / "a.tif", count)
    lossless = {"JP2OpenJPEG": {"QUALITY": "100", "REVERSIBLE": "YES"}}.get(driver, {})
    path = tmp_path / f"b.{driver.lower()[:3]}"
    rasterio.shutil.copy(tmp_path / "a.tif", path, driver=driver, **lossless)
    source = open_source(str(path))
    assert len(source.bands) == count - 1
    np.testing.assert_array_equal(source.read(source.grid.window).valid, expected)


def test_a_file_of_nothing_but_alpha_is_a_band(tmp_path: Path) -> None:
    """`gdal_translate -b 4` of red, green, blue and near infrared keeps the tag."""
    values = picture()[:1]
    profile = {"count": 1, "height": SHAPE[0], "width": SHAPE[1], "dtype": "uint16", **PLACE}
    with rasterio.open(tmp_path / "nir.tif", "w", driver="GTiff", **profile) as file:
        file.colorinterp = [ColorInterp.alpha]
        file.write(values)
    source = open_source(str(tmp_path / "nir.tif"))
    assert source.read(source.grid.window).valid.all()
    np.testing.assert_array_equal(source.read(source.grid.window).values, values)


@pytest.mark.parametrize(("tagged", "flags", "use", "alpha", "kind"), [
    ([0, 0, 0, 1], [{"per_dataset", "alpha"}] * 3 + [{"all_valid"}], None, (3,), "none"),
    ([0, 0, 0, 1], [{"per_dataset", "alpha"}] * 3 + [{"all_valid"}], "band", (), "none"),
    ([0, 0, 0, 1], [{"nodata"}] * 4, None, (3,), "none"),
    ([0, 0, 0, 1], [{"nodata"}] * 4, "band", (), "nodata"),
    ([0, 0, 0, 0, 1], [{"all_valid"}] * 5, "mask", (4,), "none"),
    ([0, 0, 0, 1], [{"per_dataset"}] * 4, None, (3,), "dataset"),
    ([0, 0, 0, 1], [{"per_dataset", "nodata"}] * 4, None, (3,), "none"),
    ([0, 0, 0], [{"per_dataset", "nodata"}] * 3, None, (), "dataset"),
    ([0, 0], [{"nodata"}, {"all_valid"}], None, (), "bands"),
    ([0, 0], [set(), set()], None, (), "bands"),
    ([1], [{"all_valid"}], None, (), "none"),
])  # fmt: skip
def test_one_function_decides_what_the_mask_of_a_file_is(
    tagged: list[int], flags: list[set[str]], use: Any, alpha: tuple[int, ...], kind: str
) -> None:
    choice = choose_mask([bool(one) for one in tagged], flags, use)
    assert (choice.alpha, choice.kind) == (alpha, kind)
    assert len(choice.gaps) == len(tagged) - len(alpha)
