"""Zarr as a source: plain arrays and their conventions; and staged copies, which read as what they are copies of."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from tilesseg.errors import SourceError
from tilesseg.formats.geozarr.staged_source import StagedWriter, create_staged, open_staged
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.image import Image
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.source import Source
from tilesseg.raster.grid import ControlPoint, Placement
from tilesseg.raster.window import Window

RNG = np.random.default_rng(3)
TRANSFORM = (10.0, 0.0, 500000.0, 0.0, -10.0, 5600000.0)
SHAPE = (70, 90)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    return RNG.integers(1, 120, shape).astype(dtype)


def array(path: Path, data: np.ndarray, *, version: int = 3, dimensions: Any = None, **attributes: Any) -> str:
    own = {} if version == 3 or dimensions is None else {"_ARRAY_DIMENSIONS": list(dimensions)}
    chunks = tuple(min(32, n) if k >= data.ndim - 2 else n for k, n in enumerate(data.shape))
    named = {"dimension_names": dimensions} if version == 3 else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strings are no stable data type of Zarr 3
        made = zarr.create_array(
            str(path), shape=data.shape, dtype=data.dtype, chunks=chunks, zarr_format=version, fill_value=None
            if version == 2 else 0 if data.dtype.kind != "U" else "", attributes={**attributes, **own}, **named,
        )  # fmt: skip
        made[...] = data
    return str(path)


def group(path: Path, *, version: int = 3, **attributes: Any) -> Path:
    zarr.create_group(str(path), zarr_format=version, attributes=attributes)
    return path


def opened(path: Any, **options: Any) -> Image:
    source = open_source(str(path), Opening(**options))
    assert isinstance(source, Image)
    return source


def whole(source: Source) -> np.ndarray:
    return source.read(source.grid.window).values


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32", "float64"])
def test_an_array_reads_as_zarr_reads_it_in_every_window(tmp_path: Path, version: int, dtype: str) -> None:
    data = noise(3, *SHAPE, dtype=dtype)
    source = opened(array(tmp_path / "a.zarr", data, version=version))
    assert source.grid.shape == SHAPE
    assert source.storage_block == (32, 32)
    assert source.dtype == np.dtype(dtype).newbyteorder("=")
    padded = np.pad(data, ((0, 0), (20, 20), (20, 20)), mode="reflect")
    for y, x, height, width in ((0, 0, 70, 90), (-20, -20, 110, 130), (31, 40, 5, 50), (60, 80, 20, 20)):
        for bands in ((0, 1, 2), (2, 0), (1,)):
            pixels = source.select(bands).read(Window(y, x, height, width))
            expected = padded[list(bands), y + 20 : y + 20 + height, x + 20 : x + 20 + width]
            assert np.array_equal(pixels.values, expected)
            assert pixels.values.dtype.isnative
            assert pixels.valid.all()


def test_a_source_is_read_by_several_threads_and_survives_pickling(tmp_path: Path) -> None:
    data = noise(2, 300, 300)
    source = pickle.loads(pickle.dumps(opened(array(tmp_path / "a.zarr", data))))
    with ThreadPoolExecutor(4) as pool:
        for y, pixels in enumerate(pool.map(lambda y: source.read(Window(y, 0, 9, 300)), range(200))):
            assert np.array_equal(pixels.values, data[:, y : y + 9])


def test_spatial_and_proj_attributes_of_the_group_place_its_array(tmp_path: Path) -> None:
    place = {"spatial:transform": list(TRANSFORM), "spatial:dimensions": ["y", "x"]}
    for name, crs in (
        ("code", {"proj:code": "EPSG:32633"}),
        ("wkt2", {"proj:wkt2": CRS.from_epsg(32633).to_wkt(version="WKT2_2019")}),
        ("json", {"proj:projjson": CRS.from_epsg(32633).to_dict(projjson=True)}),
    ):
        folder = group(tmp_path / f"{name}.zarr", **place, **crs)
        array(folder / "image", noise(2, *SHAPE), dimensions=("channel", "y", "x"))
        for path in (folder, folder / "image"):
            grid = opened(path).grid
            assert grid.transform == TRANSFORM
            assert grid.crs is not None
            assert CRS.from_wkt(grid.crs) == CRS.from_epsg(32633)
            assert (grid.unit, grid.metres_per_unit) == ("metre", 1.0)


def test_a_transform_of_nodes_and_a_bounding_box_give_corners(tmp_path: Path) -> None:
    node = array(
        tmp_path / "a.zarr",
        noise(*SHAPE),
        **{"spatial:transform": [10, 0, 500005, 0, -10, 5599995], "spatial:registration": "node"},
    )
    box = array(tmp_path / "b.zarr", noise(*SHAPE), **{"spatial:bbox": [500000, 5599300, 500900, 5600000]})
    assert opened(node).grid.transform == opened(box).grid.transform == TRANSFORM


def test_full_resolution_of_a_pyramid_is_read_and_its_levels_serve_for_views(tmp_path: Path) -> None:
    folder = group(
        tmp_path / "a.zarr",
        **{
            "multiscales": {
                "layout": [
                    {"asset": "half", "derived_from": "full", "transform": {"scale": [2, 2]}},
                    {"asset": "full", "spatial:transform": list(TRANSFORM)},
                ]
            },
            "proj:code": "EPSG:32633",
        },
    )
    data = noise(2, 600, 600)
    array(folder / "full", data)
    array(folder / "half", np.zeros((2, 300, 300), np.uint8) + 77)
    source = opened(folder)
    assert source.grid.transform == TRANSFORM
    assert np.array_equal(whole(source), data)
    assert (source.thumbnail(200).values == 77).all()
    assert np.array_equal(np.sort(source.sample()[0]), np.sort(data[0].ravel()))
    assert source.thumbnail(500).values.max() > 77


@pytest.mark.parametrize("version", [2, 3])
def test_cf_attributes_as_rioxarray_writes_them(tmp_path: Path, version: int) -> None:
    folder = group(tmp_path / "a.zarr", version=version)
    data = noise(2, *SHAPE, dtype="int16")
    data[:, 3:9, 4:8], data[0, 30:] = -7, -7
    array(
        folder / "reflectance", data, version=version, dimensions=("band", "y", "x"), grid_mapping="spatial_ref",
        _FillValue=-7, scale_factor=0.5, add_offset=3.0, long_name=["red", "nir"],
    )  # fmt: skip
    wkt = CRS.from_epsg(32633).to_wkt()
    array(folder / "spatial_ref", np.array(0), version=version, crs_wkt=wkt, GeoTransform="500000 10 0 5600000 0 -10")
    source = opened(folder)
    assert source.bands == ("red", "nir")
    assert source.grid.transform == TRANSFORM
    assert source.grid.crs is not None
    pixels = source.select([0]).read(source.grid.window)
    assert np.array_equal(pixels.valid, data[0] != -7)
    assert np.array_equal(source.read(source.grid.window).valid, (data != -7).any(axis=0))
    assert np.array_equal(pixels.values[0], (data[0] * 0.5 + 3).astype(np.float32))
    assert source.read_raw(source.grid.window).values.dtype == np.int16


def test_coordinate_arrays_place_an_image_if_they_are_even(tmp_path: Path) -> None:
    folder = group(tmp_path / "a.zarr")
    array(folder / "image", noise(*SHAPE), dimensions=("y", "x"))
    array(folder / "y", 5599995.0 - 10 * np.arange(SHAPE[0]), dimensions=("y",))
    x = 500005.0 + 10 * np.arange(SHAPE[1])
    array(folder / "x", x, dimensions=("x",))
    assert opened(folder).grid.transform == TRANSFORM
    zarr.open_array(str(folder / "x"), mode="r+")[5] += 4
    assert_refused(folder, "x is not evenly spaced")


@pytest.mark.parametrize(("start", "step"), [(8.0, 1e-4), (-122.3, 1e-4), (179.0, 3e-5), (2_600_000.0, 0.5)])
def test_coordinates_of_single_precision_are_even(tmp_path: Path, start: float, step: float) -> None:
    folder = group(tmp_path / "a.zarr")
    array(folder / "image", noise(*SHAPE), dimensions=("y", "x"))
    y, x = 47.0 - step * (np.arange(SHAPE[0]) + 0.5), start + step * (np.arange(SHAPE[1]) + 0.5)
    for name, centres in (("y", y), ("x", x)):
        array(folder / name, centres.astype(np.float32), dimensions=(name,))
    found = opened(folder).grid
    corners = [found.to_world(*at) for at in ((0, 0), SHAPE)]
    for (got_x, got_y), (true_x, true_y) in zip(
        corners, [(start, 47.0), (start + step * SHAPE[1], 47.0 - step * SHAPE[0])], strict=True
    ):
        assert abs(got_x - true_x) < 0.15 * step and abs(got_y - true_y) < 0.15 * step
    array_x = zarr.open_array(str(folder / "x"), mode="r+")
    array_x[20] = array_x[20] + 1.5 * step
    assert_refused(folder, "x is not evenly spaced")


def test_arrays_of_one_shape_are_bands_by_their_names(tmp_path: Path) -> None:
    folder = group(tmp_path / "a.zarr")
    red, nir = noise(*SHAPE), noise(*SHAPE, dtype="uint16")
    array(folder / "red", red, nodata=5)
    array(folder / "nir", nir)
    source = opened(folder)
    assert source.bands == ("nir", "red")
    assert source.masks == (0, 1)
    assert source.dtype == np.uint16
    assert source.select([1]).dtype == np.uint8
    pixels = source.select([1, 0]).read(source.grid.window)
    assert np.array_equal(pixels.values, np.stack([red, nir]))
    assert pixels.valid.all()
    assert np.array_equal(source.select([1]).read(source.grid.window).valid, red != 5)


def test_bands_are_named_by_an_attribute_or_a_coordinate_of_strings(tmp_path: Path) -> None:
    listed = array(tmp_path / "a.zarr", noise(2, *SHAPE), band_names=["red", "nir"])
    folder = group(tmp_path / "b.zarr")
    array(folder / "image", noise(2, *SHAPE), dimensions=("band", "y", "x"))
    array(folder / "band", np.array(["red", "nir"]), dimensions=("band",))
    assert opened(listed).bands == opened(folder).bands == ("red", "nir")


def test_axes_are_told_by_their_names(tmp_path: Path) -> None:
    data = noise(*SHAPE, 3)
    last = array(tmp_path / "a.zarr", data, dimensions=("y", "x", "channel"))
    assert np.array_equal(whole(opened(last)), np.moveaxis(data, 2, 0))
    one = array(tmp_path / "b.zarr", data[None, ..., 0], dimensions=("time", "y", "x"))
    assert np.array_equal(whole(opened(one))[0], data[..., 0])
    assert_refused(array(tmp_path / "c.zarr", data), "last axis of 3 .* name its dimensions")
    two = array(tmp_path / "d.zarr", noise(2, 3, *SHAPE), dimensions=("time", "band", "y", "x"))
    assert_refused(two, "time has a length of 2, not 1")


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    assert_refused(tmp_path / "gone.zarr", "no such Zarr")
    assert_refused(group(tmp_path / "empty.zarr"), "a group without an array")
    assert_refused(array(tmp_path / "complex.zarr", noise(*SHAPE).astype("complex64")), "data type complex64")
    assert_refused(array(tmp_path / "int64.zarr", noise(*SHAPE).astype("int64")), "data type int64")
    several = group(tmp_path / "several.zarr")
    array(several / "a", noise(*SHAPE))
    array(several / "b", noise(30, 30))
    assert_refused(several, "several images, .*; open one of them")
    assert opened(several / "a").grid.shape == SHAPE


def assert_refused(path: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_chunk_costs_the_windows_that_touch_it(tmp_path: Path) -> None:
    path = Path(array(tmp_path / "a.zarr", noise(2, *SHAPE)))
    (path / "c" / "0" / "1" / "1").write_bytes(b"damaged")
    source = opened(path)
    source.read(Window(0, 0, 32, 32))
    with pytest.raises(SourceError, match="cannot read rows 40–49, columns 40–49"):
        source.read(Window(40, 40, 10, 10))


def test_identity_is_of_the_metadata_and_changes_with_them(tmp_path: Path) -> None:
    folder = group(tmp_path / "a.zarr")
    array(folder / "image", noise(*SHAPE))
    before = opened(folder).identity()
    assert {Path(name).name for name in before} == {"zarr.json"}
    assert len(before) == 2
    zarr.open_group(str(folder), mode="r+").attrs["proj:code"] = "EPSG:32633"
    assert opened(folder).identity() != before


def test_a_resolution_resamples_a_zarr_as_it_resamples_a_tiff(tmp_path: Path) -> None:
    data = noise(2, *SHAPE, dtype="uint16")
    tiff, place = tmp_path / "a.tif", {"spatial:transform": list(TRANSFORM), "proj:code": "EPSG:32633"}
    write_tiff(tiff, data)
    one = open_source(str(tiff), Opening(resolution=25))
    two = opened(array(tmp_path / "a.zarr", data, **place), resolution=25)
    assert (one.grid, one.storage_block[1], one.dtype) == (two.grid, one.storage_block[1], two.dtype)
    for window in (one.grid.window, Window(3, 4, 9, 8)):
        assert one.read(window).values.tobytes() == two.read(window).values.tobytes()


# What staging writes


def write_tiff(path: Path, data: np.ndarray, *, scales: Any = None, mask: Any = None, **options: Any) -> str:
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(*TRANSFORM)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", dtype=data.dtype, **{**profile, **place, **options}) as file,
    ):
        if scales:
            file.scales, file.offsets = scales
        file.write(data)
        if mask is not None:
            file.write_mask(mask)
    return str(path)


def stage(source: Source, path: Path, *, side: int = 32) -> Image:
    create_staged(path, source=source, shard=(side, side), chunk=(16, 16))
    writer = pickle.loads(pickle.dumps(StagedWriter(path)))
    for k, raw in enumerate(source.rows(side)):
        writer.write(k * side, 0, raw)
    return pickle.loads(pickle.dumps(opened(path)))


def assert_same(one: Source, two: Source, window: Window) -> None:
    assert one.dtype == two.dtype
    first, second = one.read(window), two.read(window)
    assert first.values.dtype == second.values.dtype
    assert first.values.tobytes() == second.values.tobytes()
    assert np.array_equal(first.valid, second.valid)


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@st.composite
def images(draw: st.DrawFn, folder: Path) -> Source:
    """One file or two, the second one finer or coarser; with nodata, masks, NaN and scales."""
    names = []
    for number in range(draw(st.integers(1, 2))):
        dtype, step = draw(st.sampled_from(DTYPES)), draw(st.sampled_from([1, 2])) if number else 1
        data = noise(draw(st.integers(1, 2)), SHAPE[0] // step, SHAPE[1] // step, dtype=dtype)
        kind = draw(st.sampled_from(["none", "nodata", "mask"]))
        if dtype.startswith("float") and draw(st.booleans()):
            data[..., 5:9, 4:30] = np.nan
        data[..., 40 // step :, 50 // step :] = 7
        mask = np.where(noise(*data.shape[1:]) > 20, 255, 0).astype(np.uint8) if kind == "mask" else None
        scales = draw(st.sampled_from([None, ((0.5,) * len(data), (3.0,) * len(data))]))
        place = {"transform": rasterio.Affine(10 * step, 0, 500000, 0, -10 * step, 5600000)}
        path = folder / f"B{number}.tif"
        names.append(write_tiff(path, data, mask=mask, scales=scales, nodata=7 if kind == "nodata" else None, **place))
    return open_source(names)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_copy_reads_as_its_image_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("copy")
    source = data.draw(images(folder))
    copy = stage(source, folder / "copy.zarr")
    assert copy.grid == source.grid
    assert copy.bands == source.bands
    assert copy.scaling == source.scaling
    assert copy.masks == source.masks
    raw, again = source.read_raw(source.grid.window), copy.read_raw(source.grid.window)
    assert raw.values.dtype == again.values.dtype
    assert raw.values.tobytes() == again.values.tobytes()
    assert np.array_equal(raw.valid, again.valid)
    bands = data.draw(st.lists(st.sampled_from(source.selected), min_size=1, max_size=4))
    y, x = data.draw(st.integers(-30, 80)), data.draw(st.integers(-30, 100))
    window = Window(y, x, data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90)))
    assert_same(source, copy, window)
    chosen = source.select(bands)
    resampled = any(source.reader.facts.bands[band].resampled for band in source.selected)
    # what is nodata in all selected bands has no part in a mean, so that means depend on the selection
    same = stage(chosen, folder / "chosen.zarr") if resampled else copy.select(bands)
    assert_same(chosen, same, window)


def test_a_copy_of_selected_bands_has_those_alone_in_their_order(tmp_path: Path) -> None:
    source = open_source(write_tiff(tmp_path / "a.tif", noise(3, *SHAPE))).select([2, 0])
    copy = stage(source, tmp_path / "copy.zarr")
    assert len(copy.bands) == 2
    assert np.array_equal(whole(copy), whole(source))


def test_a_copy_keeps_ground_control_points_and_coefficients(tmp_path: Path) -> None:
    points = (ControlPoint(0.5, 1.25, (3.0, 4.0, 5.0), "a"), ControlPoint(60.0, 80.0, (1 / 3, 2.0, 0.0)))
    placement = Placement(points, CRS.from_epsg(4326).to_wkt(), {"LINE_OFF": "1.5"})
    source: Any = open_source(write_tiff(tmp_path / "a.tif", noise(1, *SHAPE)))
    facts = replace(source.reader.facts, grid=replace(source.grid, placement=placement))
    source = Image.of(replace(source.reader, facts=facts))
    assert stage(source, tmp_path / "copy.zarr").grid == source.grid


def test_a_copy_where_nothing_is_masked_stores_no_mask_and_reads_it_for_nothing(tmp_path: Path) -> None:
    source = open_source(write_tiff(tmp_path / "a.tif", noise(1, *SHAPE)))
    copy = stage(source, tmp_path / "copy.zarr")
    assert not (tmp_path / "copy.zarr" / "valid" / "c").exists()
    assert not any(copy.read_raw(copy.grid.window).valid.strides)


def test_what_is_not_copied_yet_or_could_not_be_is_not_read(tmp_path: Path) -> None:
    source = open_source(write_tiff(tmp_path / "a.tif", np.zeros((1, *SHAPE), np.uint8)))
    create_staged(tmp_path / "copy.zarr", source=source, shard=(32, 32), chunk=(16, 16))
    StagedWriter(tmp_path / "copy.zarr").write(0, 0, source.read_raw(Window(0, 0, 32, 64)))
    copy = open_staged(tmp_path / "copy.zarr")
    assert copy.read(Window(0, 0, 32, 64)).valid.all()  # zeros are stored, too
    with pytest.raises(SourceError, match="not copied yet"):
        copy.read(Window(30, 0, 5, 5))
    holed = open_staged(tmp_path / "copy.zarr", [(Window(0, 32, 32, 32), "a.tif: cannot read rows 0–31")])
    holed.read(Window(0, 0, 32, 32))
    with pytest.raises(SourceError, match=r"a\.tif: cannot read rows 0–31"):
        holed.read(Window(0, 0, 32, 33))


def test_a_writer_takes_whole_shards_alone(tmp_path: Path) -> None:
    source = open_source(write_tiff(tmp_path / "a.tif", noise(1, *SHAPE)))
    create_staged(tmp_path / "copy.zarr", source=source, shard=(32, 32), chunk=(16, 16))
    with pytest.raises(ValueError, match="not made of whole shards"):
        StagedWriter(tmp_path / "copy.zarr").write(0, 16, source.read_raw(Window(0, 16, 32, 32)))


def test_other_readers_find_a_copy_in_its_place(tmp_path: Path) -> None:
    stage(open_source(write_tiff(tmp_path / "a.tif", noise(1, *SHAPE))), tmp_path / "copy.zarr")
    told = zarr.open_group(str(tmp_path / "copy.zarr"), mode="r").attrs.asdict()
    assert told["spatial:transform"] == list(TRANSFORM)
    assert told["proj:code"] == "EPSG:32633"
    assert [convention["name"] for convention in told["zarr_conventions"]] == ["spatial:", "proj:"]  # type: ignore[index,union-attr,call-overload]


def test_a_copy_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = group(tmp_path / "a.zarr", tilesseg={"format": 99})
    assert_refused(folder, "staged format 99, this version reads 2")
