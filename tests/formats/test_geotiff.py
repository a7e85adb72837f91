"""Georeferenced sources: rasterio, asked directly, is the oracle for every file there is."""

from __future__ import annotations

import json
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.band_names import band_names, file_names, natural
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.image import Image
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.statistics_sample import spread_windows
from tilesseg.raster.window import Window

RNG = np.random.default_rng(5)
UTM = CRS.from_epsg(32633)


def from_origin(x: float, y: float, width: float, height: float) -> rasterio.Affine:
    """As rasterio's, whose own use of affine warns with newer releases of it."""
    return rasterio.Affine(width, 0.0, x, 0.0, -height, y)


def quiet(path: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, **options)


def write(path: Path, data: np.ndarray, **options: Any) -> str:
    """A GeoTIFF of `data (channel, y, x)`; options are rasterio's profile, and what is set on the open dataset."""
    later = {key: options.pop(key) for key in ("descriptions", "scales", "offsets", "colorinterp") if key in options}
    mask = options.pop("mask", None)
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    georeference = {"crs": UTM, "transform": from_origin(500000, 5600000, 10, 10)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        quiet(path, mode="w", dtype=data.dtype, **{**profile, **georeference, **options}) as dataset,
    ):
        for key, value in later.items():
            setattr(dataset, key, value)
        dataset.write(data)
        if mask is not None:
            dataset.write_mask(mask)
    return str(path)


def virtual(path: str, member: str, size: int, more: str = "") -> None:
    """A VRT over one band of another file."""
    Path(path).write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><VRTRasterBand dataType="Byte" band="1">{more}'
        f"<SimpleSource><SourceFilename>{member}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def noise(*shape: int, dtype: str = "uint8", low: int = 1, high: int = 120) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def opened(path: Any, **options: Any) -> Image:
    source = open_source(path, Opening(**options))
    assert isinstance(source, Image)
    return source


def dataset_mask(dataset: Any, window: RasterioWindow | None = None) -> np.ndarray:
    """What rasterio calls the dataset's mask, but always the OR of all bands where bands have masks of their own."""
    flags = dataset.mask_flag_enums[0]
    if any(flag.name == "per_dataset" for flag in flags):
        return dataset.dataset_mask(window=window) != 0
    return np.logical_or.reduce(dataset.read_masks(window=window) != 0)


def windows_of(height: int, width: int) -> list[Window]:
    rng = np.random.default_rng(height * 7919 + width)
    found = [Window(0, 0, min(height, 64), min(width, 64))]
    for _ in range(4):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        found.append(
            Window(y, x, min(height - y, int(rng.integers(1, 150))), min(width - x, int(rng.integers(1, 150))))
        )
    return found


FOLDERS = ["satellite", *(f"hostile/{kind}" for kind in ("georef", "dtype", "mask_nodata", "vrt", "corrupt", "huge"))]
SUFFIXES = {".tif", ".tiff", ".jp2", ".vrt", ".bin"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_and_hostile_file_reads_as_rasterio_reads_it_or_is_refused_in_one_line(
    shared_data: Path, folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in (shared_data / folder).rglob("*") if path.suffix in SUFFIXES)
    assert files
    read = 0
    for path in files:
        try:
            source = opened(str(path))
        except SourceError as refusal:
            assert_one_line(refusal, path)
            continue
        json.dumps(source.describe(), allow_nan=False)
        assert str(path) in source.identity()
        # one window of this file decodes a strip of a gigabyte: once is enough
        read += assert_reads_as_rasterio(source, path, only_one=path.name == "huge-sparse.tiff")
    assert read or folder == "hostile/vrt"
    assert capfd.readouterr() == ("", "")  # GDAL complains to nobody but us


def assert_one_line(refusal: SourceError, path: Path) -> None:
    assert "\n" not in str(refusal)
    assert path.stem in str(refusal)


def assert_reads_as_rasterio(source: Image, path: Path, *, only_one: bool) -> int:
    with rasterio.Env(), quiet(path) as dataset:
        assert source.grid.shape == dataset.shape
        assert source.grid.transform == tuple(dataset.transform)[:6]
        assert (CRS.from_wkt(source.grid.crs) if source.grid.crs else None) == dataset.crs
        bands = [i for i in dataset.indexes if colours(dataset)[i - 1] != ColorInterp.alpha]
        assert len(source.bands) == len(bands)
        return sum(
            agree(source, dataset, bands, window) for window in windows_of(*dataset.shape)[: 1 if only_one else None]
        )


def colours(dataset: Any) -> Any:
    try:
        return dataset.colorinterp
    except Exception:  # rasterio raises what GDAL left behind while opening
        return dataset.colorinterp


def agree(source: Image, dataset: Any, bands: list[int], window: Window) -> bool:
    """Compare one window; both may fail, never one alone."""
    at = RasterioWindow(window.x, window.y, window.width, window.height)
    try:
        with quiet(dataset.name) as fresh:  # once a read has failed, the same handle may give zeros
            colours(fresh)
            values, valid = fresh.read(bands, window=at), dataset_mask(fresh, at)
            scales = [(fresh.scales[i - 1], fresh.offsets[i - 1]) for i in bands]
    except rasterio.errors.RasterioIOError:
        with pytest.raises(SourceError) as refusal:
            source.read(window)
        assert_one_line(refusal.value, Path(dataset.name))
        return False
    if any(scale != (1, 0) for scale in scales):
        expected = [channel.astype(np.float64) * a + b for channel, (a, b) in zip(values, scales, strict=True)]
        values = np.array(expected, np.float32)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    got = source.read(window)
    assert got.values.dtype == values.dtype == source.dtype
    assert np.array_equal(got.values, values, equal_nan=values.dtype.kind == "f")
    assert np.array_equal(got.valid, valid)
    return True


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_can_be_sampled_and_looked_at(shared_data: Path, folder: str) -> None:
    for path in sorted(path for path in (shared_data / folder).rglob("*") if path.suffix in SUFFIXES):
        if path.name in {"huge-sparse.tiff", "single_block_32769_16385.jp2"}:
            continue  # seconds and gigabytes of GDAL's own
        try:
            source = opened(str(path))
            sample = source.sample()
        except SourceError as refusal:
            assert_one_line(refusal, path)
            continue
        assert sample.dtype == np.float64
        assert sample.shape[0] == len(source.bands)
        assert sample.shape[1] <= 1.1 * 2**20
        assert np.isfinite(sample).all()
        assert np.array_equal(sample, source.sample())
        if source.grid.height * source.grid.width < 1e8:
            view = source.thumbnail(300)
            assert max(view.valid.shape) == min(300, max(source.grid.shape))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("nodata", [None, 7])
def test_each_data_type_is_read_as_it_is(tmp_path: Path, dtype: str, nodata: int | None) -> None:
    data = noise(3, 70, 90, dtype=dtype)
    data[:, :20, :30] = 7
    path = write(tmp_path / "a.tif", data, nodata=nodata, tiled=True, blockxsize=32, blockysize=32)
    source = opened(path)
    got = source.read(Window(10, 20, 50, 60))
    assert source.dtype == got.values.dtype == dtype
    assert np.array_equal(got.values, data[:, 10:60, 20:80])
    with quiet(path) as dataset:
        assert np.array_equal(got.valid, dataset.dataset_mask()[10:60, 20:80] != 0)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "uint64", "int64"])
def test_other_data_types_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 4, 4), dtype))
    with pytest.raises(SourceError, match=f"data type {dtype}, not one of uint8"):
        open_source(path)


def test_nodata_means_nodata_in_every_selected_band(tmp_path: Path) -> None:
    data = noise(4, 30, 30)
    data[0, :10] = data[3, 20:] = 0  # in one band only: valid
    data[:, 12:15] = 0
    path = write(tmp_path / "a.tif", data, nodata=0, photometric="RGB")
    for selection in ([0, 1, 2, 3], [0], [3], [2, 0], [0, 3]):
        expected = (data[selection] != 0).any(axis=0)
        assert np.array_equal(opened(path).select(selection).read(Window(0, 0, 30, 30)).valid, expected)


@pytest.mark.parametrize("nodata", [-9999.0, float("nan"), -3.4028234663852886e38, 0.1])
def test_float_nodata_is_what_gdal_says_it_is(tmp_path: Path, nodata: float) -> None:
    data = RNG.random((2, 40, 40)).astype(np.float32)
    data[:, 5:9], data[0, 9:12], data[1, 20:22], data[0, 30] = nodata, nodata, np.nan, np.inf
    data[:, 35] = np.nextafter(np.float32(nodata), np.float32(0))  # GDAL allows a few ulp
    path = write(tmp_path / "a.tif", data, nodata=nodata)
    with quiet(path) as dataset:
        expected = (dataset.dataset_mask() != 0) & np.isfinite(data).all(axis=0)
    assert np.array_equal(opened(path).read(Window(0, 0, 40, 40)).valid, expected)


def test_nodata_outside_the_data_type_makes_nothing_invalid(tmp_path: Path) -> None:
    vrt = tmp_path / "a.vrt"
    path = write(tmp_path / "a.tif", noise(1, 9, 9))
    virtual(str(vrt), path, 9, "<NoDataValue>-9999</NoDataValue>")
    assert opened(str(vrt)).read(Window(0, 0, 9, 9)).valid.all()


def test_internal_mask_and_alpha_say_what_is_valid(tmp_path: Path) -> None:
    data, hole = noise(3, 40, 50), np.full((40, 50), 255, np.uint8)
    hole[10:20, 5:30] = 0
    masked = opened(write(tmp_path / "mask.tif", data, mask=hole))
    transparent = opened(
        write(
            tmp_path / "alpha.tif",
            np.concatenate([data, hole[None]]),
            colorinterp=[ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha],
            photometric="RGB",
            alpha="UNSPECIFIED",
        )
    )
    assert masked.describe()["files"][0]["mask"] == "mask in the file or beside it"
    assert transparent.describe()["files"][0]["mask"] == "alpha band"
    for source in (masked, transparent):
        assert len(source.bands) == 3
        got = source.read(Window(3, 2, 30, 40))
        assert np.array_equal(got.values, data[:, 3:33, 2:42])
        assert np.array_equal(got.valid, hole[3:33, 2:42] != 0)


def test_nan_and_infinity_without_a_tag_are_nodata_only_where_selected(tmp_path: Path) -> None:
    data = RNG.random((2, 20, 20)).astype(np.float32)
    data[0, 3], data[1, 7] = np.nan, -np.inf
    source = opened(write(tmp_path / "a.tif", data))
    everything = Window(0, 0, 20, 20)
    assert np.flatnonzero(~source.read(everything).valid.all(axis=1)).tolist() == [3, 7]
    assert np.flatnonzero(~source.select([1]).read(everything).valid.all(axis=1)).tolist() == [7]
    assert any("NaN" in note for note in source.describe()["notes"])


def test_bigtiff_cog_and_vrt_give_the_same_pixels(tmp_path: Path) -> None:
    data = noise(3, 600, 700, dtype="uint16", high=9000)
    plain = write(tmp_path / "plain.tif", data, nodata=0)
    big = write(tmp_path / "big.tif", data, nodata=0, bigtiff="YES")
    cog, vrt = str(tmp_path / "cog.tif"), str(tmp_path / "all.vrt")
    with rasterio.open(plain) as dataset:
        rasterio.shutil.copy(dataset, cog, driver="COG", blocksize=128)
        rasterio.shutil.copy(dataset, vrt, driver="VRT")
    window = Window(-10, 500, 700, 300)
    expected = opened(plain).read(window)
    for path in (big, cog, vrt):
        got = opened(path).read(window)
        assert np.array_equal(got.values, expected.values)
        assert np.array_equal(got.valid, expected.valid)
    assert opened(cog).describe()["files"][0]["overviews"]


def test_identity_names_the_members_of_virtual_files_within_virtual_files(tmp_path: Path) -> None:
    inner, middle, outer = (str(tmp_path / name) for name in ("a.tif", "b.vrt", "c.vrt"))
    write(tmp_path / "a.tif", noise(1, 8, 8))
    virtual(middle, inner, 8)
    virtual(outer, middle, 8)
    before = opened(outer).identity()
    assert set(before) == {inner, middle, outer}
    os.utime(inner, ns=(1, 1))
    after = opened(outer).identity()
    assert after[inner] == [os.path.getsize(inner), 1]
    assert json.loads(json.dumps(after)) == after
    assert {name for name in before if before[name] != after[name]} == {inner}


@pytest.mark.parametrize(
    "transform",
    [
        rasterio.Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5600000.0),
        rasterio.Affine(10.0, 0.0, 500000.0, 0.0, 10.0, 5500000.0),
        rasterio.Affine(-10.0, 0.0, 500000.0, 0.0, -10.0, 5500000.0),
    ],
    ids=["rotated", "south_up", "mirrored"],
)
def test_unusual_transforms_are_kept_as_they_are(tmp_path: Path, transform: rasterio.Affine) -> None:
    data = noise(1, 12, 13)
    source = opened(write(tmp_path / "a.tif", data, transform=transform))
    assert source.grid.transform == tuple(transform)[:6]
    assert np.array_equal(source.read(Window(0, 0, 12, 13)).values, data)


def test_crs_unit_and_resolution_come_with_the_grid(tmp_path: Path) -> None:
    metres = opened(write(tmp_path / "a.tif", noise(1, 4, 4))).grid
    assert (metres.unit, metres.metres_per_unit, metres.resolution) == ("metre", 1.0, (10.0, 10.0))
    degrees = opened(write(tmp_path / "b.tif", noise(1, 4, 4), crs=CRS.from_epsg(4326))).grid
    assert (degrees.unit, degrees.metres_per_unit) == ("degree", None)
    feet = opened(write(tmp_path / "c.tif", noise(1, 4, 4), crs=CRS.from_epsg(2263))).grid
    assert feet.metres_per_unit == pytest.approx(0.3048006096)
    nothing = opened(write(tmp_path / "d.tif", noise(1, 4, 4), crs=None, transform=rasterio.Affine.identity()))
    assert (nothing.grid.crs, nothing.grid.unit, nothing.grid.georeferenced) == (None, "pixel", False)
    assert "no coordinate reference system" in nothing.describe()["notes"]


def test_scale_and_offset_tags_apply_to_their_bands_unless_overridden(tmp_path: Path) -> None:
    data = noise(2, 10, 10, dtype="int16", low=-500, high=500)
    path = write(tmp_path / "a.tif", data, scales=(0.5, 1.0), offsets=(10.0, 0.0))
    everything = Window(0, 0, 10, 10)
    tagged = opened(path)
    assert tagged.dtype == np.float32
    assert np.array_equal(
        tagged.read(everything).values, (data * [[[0.5]], [[1]]] + [[[10]], [[0]]]).astype(np.float32)
    )
    assert tagged.select([1]).dtype == np.int16
    given = opened(path, scale=2.0, offset=-1.0)
    assert np.array_equal(given.read(everything).values, (data * 2.0 - 1).astype(np.float32))
    assert opened(path, scale=1.0, offset=0.0).dtype == np.int16
    with pytest.raises(SourceError, match="scale is nan"):
        open_source(path, Opening(scale=float("nan")))


def test_windows_that_leave_the_image_are_reflected(tmp_path: Path) -> None:
    data = noise(2, 9, 11)
    got = opened(write(tmp_path / "a.tif", data)).read(Window(-20, -3, 60, 30))
    padded = np.pad(data, ((0, 0), (20, 31), (3, 16)), mode="reflect")
    assert np.array_equal(got.values, padded)


def test_bands_are_named_by_description_colour_or_not_at_all(tmp_path: Path) -> None:
    described = write(tmp_path / "a.tif", noise(3, 4, 4), descriptions=("B8A", "Band 2", ""), photometric="RGB")
    assert opened(described).bands == ("B8A", "green", "blue")
    palette = write(tmp_path / "b.tif", noise(1, 4, 4), photometric="palette", colorinterp=[ColorInterp.palette])
    assert opened(palette).bands == ("palette",)
    assert band_names([None], ["gray"]) == (None,)


def test_numbers_of_bands_are_names_unless_they_are_the_places_in_the_file() -> None:
    gray = ["gray"] * 4
    assert band_names(["Band 1", "Band_2", "layer 3", ""], gray) == (None, None, None, None)
    assert band_names(["Band 2", "Band 3", "Band 4", "Band 8"], gray) == ("Band 2", "Band 3", "Band 4", "Band 8")
    assert band_names(["Band 1", "Band 2", "Band 8A", "Band 9"], gray) == ("Band 1", "Band 2", "Band 8A", "Band 9")
    assert band_names(["Band 1", "NDVI", "Band 3", "Band"], gray) == (None, "NDVI", None, None)


def test_bands_are_named_by_the_part_of_the_file_name_that_differs() -> None:
    assert file_names(["LC08_L2SP_1_SR_B2", "LC08_L2SP_1_SR_B7", "LC08_L2SP_1_QA_PIXEL"]) == (
        "blue",
        "swir22",
        "QA_PIXEL",
    )
    assert file_names(["LC80030172015001LGN00_B5", "LC80030172015001LGN00_B10"]) == ("nir", "B10")
    assert file_names(["LT05_L1TP_1_B1", "LT05_L1TP_1_B6"]) == ("blue", "B6")
    assert file_names(["LE07_L1TP_1_B4", "LE07_L1TP_1_B6_VCID_1"]) == ("nir", "B6")
    assert file_names(["T32TQM_20190101T101411_B02_10m", "T32TQM_20190101T101411_B8A_20m"]) == ("blue", "B8A")
    assert file_names(["S2A_x_B11", "S2A_x_B12"]) == ("swir16", "swir22")
    assert file_names(["field-red", "field-nir"]) == ("red", "nir")
    assert file_names(["scene_B4"]) == (None,)
    assert file_names(["LC09_L2SP_1_SR_B4"]) == ("red",)
    assert sorted(["B10", "B2", "b1"], key=natural) == ["b1", "B2", "B10"]


def sentinel(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with bands of 10, 20 and 60 m."""
    folder.mkdir()
    data = {
        "B02": noise(1, 120, 180, dtype="uint16", high=3000),
        "B11": noise(1, 60, 90, dtype="uint16", high=3000),
        "B09": noise(1, 20, 30, dtype="uint16", high=3000),
    }
    data["B11"][0, 10:20, 30:50] = 0
    for name, pixels in data.items():
        size = 10 * 120 / pixels.shape[1]
        transform = from_origin(600000, 5000040, size, size)
        write(folder / f"T32TQM_20190101T101411_{name}.tif", pixels, transform=transform, nodata=0)
    (folder / "notes.txt").write_text("not an image")
    return folder, data


def test_a_folder_of_bands_of_other_pixel_sizes_is_one_image_on_the_finest_grid(tmp_path: Path) -> None:
    folder, data = sentinel(tmp_path / "scene")
    source = opened(str(folder))
    assert source.bands == ("blue", "B09", "swir16")
    assert source.grid.shape == (120, 180)
    assert source.grid.resolution == (10, 10)
    assert source.dtype == np.float32
    assert source.select([0]).dtype == np.uint16
    whole = source.read(source.grid.window)
    assert np.array_equal(whole.values[0], data["B02"][0])
    assert whole.valid.all()  # the other bands have data where B11 has its nodata value
    coarse = source.select([2]).read(source.grid.window)
    assert np.array_equal(coarse.valid, (data["B11"][0] != 0).repeat(2, 0).repeat(2, 1))
    assert source.select([0]).read(source.grid.window).valid.all()
    # Bilinear, centre-aligned: the mean of the four fine pixels in the middle of a valid coarse pixel's neighbours
    inner = data["B09"][0].astype(float)
    assert whole.values[1][63, 93] == pytest.approx(
        np.mean([[[inner[10 + dy, 15 + dx] * wy * wx for dx, wx in ((0, 11 / 12), (1, 1 / 12))]
                  for dy, wy in ((0, 11 / 12), (1, 1 / 12))]]) * 4,
        rel=1e-5,
    )  # fmt: skip
    assert len(source.describe()["files"]) == 3


@pytest.mark.parametrize("resolution", [None, 20.0, 15.0, 7.0, 60.0])
def test_resampled_pixels_do_not_depend_on_the_window_that_asks(tmp_path: Path, resolution: float | None) -> None:
    folder, _ = sentinel(tmp_path / "scene")
    source = opened(str(folder), resolution=resolution)
    whole = source.read(source.grid.window)
    for y, x, height, width in RNG.integers(0, 40, (12, 4)).tolist():
        part = Window(y, x, height + 1, width + 1).intersect(source.grid.window)
        if part.empty:
            continue
        got = source.read(part)
        rows, columns = part.slices()
        assert got.values.tobytes() == whole.values[:, rows, columns].tobytes()
        assert np.array_equal(got.valid, whole.valid[rows, columns])


def test_a_coarser_resolution_takes_area_means_and_moves_no_corner(tmp_path: Path) -> None:
    data = noise(1, 35, 50, dtype="uint16", high=5000)
    source = opened(write(tmp_path / "a.tif", data), resolution=20.0)
    assert source.grid.shape == (18, 25)
    assert source.grid.transform == (20.0, 0.0, 500000.0, 0.0, -20.0, 5600000.0)
    got = source.read(Window(0, 0, 17, 25))
    assert np.allclose(got.values[0], data[0, :34].reshape(17, 2, 25, 2).mean(axis=(1, 3)), rtol=1e-6)
    assert opened(str(tmp_path / "a.tif"), resolution=10.0).dtype == np.uint16
    with pytest.raises(SourceError, match="resolution is -1"):
        open_source(str(tmp_path / "a.tif"), Opening(resolution=-1.0))


def test_a_landsat_folder_with_its_offset_panchromatic_band_opens(tmp_path: Path) -> None:
    """Landsat aligns pixel centres: the 15 m grid begins a quarter of a 30 m pixel inside the 30 m grid."""
    coarse = np.arange(20.0)[None, None].repeat(20, axis=1).astype(np.float32)
    write(tmp_path / "LC08_1_B4.tif", coarse, transform=from_origin(300000, 4000000, 30, 30))
    write(tmp_path / "LC08_1_B8.tif", noise(1, 39, 39), transform=from_origin(300007.5, 3999992.5, 15, 15))
    source = opened(str(tmp_path))
    assert source.bands == ("red", "B8")
    assert source.grid.resolution == (15, 15)
    # column i of the 15 m grid has its centre at 7.5 + 15 (i + ½) metres: coarse position (i + 1) / 2 − ½
    expected = np.clip((np.arange(39) + 1) / 2 - 0.5, 0, 19)
    assert np.allclose(source.read(source.grid.window).values[0], expected, atol=1e-5)


def test_four_real_landsat_files_are_one_image(shared_data: Path) -> None:
    folder = shared_data / "satellite" / "landsat8_iceland_greenland"
    source = opened(str(folder))
    assert source.bands == ("blue", "green", "red", "nir")
    assert source.grid.shape == (1093, 1310)
    got = source.select([3, 0]).read(Window(500, 600, 100, 120))
    for channel, name in zip(got.values, ("B5", "B2"), strict=True):
        with rasterio.open(folder / f"LC80030172015001LGN00_{name}.tif") as dataset:
            assert np.array_equal(channel, dataset.read(1, window=RasterioWindow(600, 500, 120, 100)))
    assert opened(sorted(map(str, folder.iterdir()), reverse=True)).bands == ("nir", "red", "green", "blue")


def test_files_that_do_not_fit_together_are_refused_with_both_values(tmp_path: Path) -> None:
    one = write(tmp_path / "s_a.tif", noise(1, 20, 20))
    other_crs = write(tmp_path / "s_b.tif", noise(1, 20, 20), crs=CRS.from_epsg(32634))
    shifted = write(tmp_path / "s_c.tif", noise(1, 20, 20), transform=from_origin(500005, 5600000, 10, 10))
    larger = write(tmp_path / "s_d.tif", noise(1, 20, 26))
    flipped = write(tmp_path / "s_e.tif", noise(1, 20, 20), transform=rasterio.Affine(10, 0, 500000, 0, 10, 5599800))
    for path, message in (
        (other_crs, r"different coordinate reference systems, EPSG:32633 and EPSG:32634"),
        (shifted, r"different extents, x 500000 to 500200, .* and x 500005 to 500205"),
        (larger, r"different extents, x 500000 to 500200, .* and x 500000 to 500260"),
        (flipped, r"different orientations"),
    ):
        with pytest.raises(SourceError, match=message) as refusal:
            open_source([one, path])
        assert "\n" not in str(refusal.value)


def test_bands_that_the_image_does_not_have_are_refused(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "a.tif", noise(3, 4, 4)))
    assert source.select([2, 0]).selected == (2, 0)
    for wrong, message in (([3], "cannot read band 3 of .*: its bands are 0 to 2"), ([], "cannot read no band of")):
        with pytest.raises(SourceError, match=message):
            source.select(wrong)


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("this is no TIFF\nat all\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.tif").touch()
    for path, message in (
        (tmp_path / "missing.tif", "cannot open .*missing.tif: no such file"),
        (text, "text.tif: not an image that GDAL can open: .*not recognized"),
        (tmp_path / "nothing.tif", "not an image that GDAL can open"),
        (tmp_path / "empty", "cannot open the folder .*empty as an image"),
    ):
        with pytest.raises(SourceError, match=message) as refusal:
            open_source(str(path))
        assert "\n" not in str(refusal.value)


def test_a_file_cut_in_the_middle_fails_there_and_reads_elsewhere(tmp_path: Path) -> None:
    data = noise(1, 512, 512, dtype="uint16", high=60000)
    path = write(tmp_path / "a.tif", data, tiled=True, blockxsize=64, blockysize=64)
    os.truncate(path, os.path.getsize(path) // 2)
    source = opened(path)
    top, bottom = Window(0, 0, 100, 512), Window(400, 0, 64, 64)
    for _ in range(3):  # nor does a second try give zeros
        with pytest.raises(SourceError, match=r"a\.tif: cannot read rows 400–463, columns 0–63: "):
            source.read(bottom)
        assert np.array_equal(source.read(top).values, data[:, :100])
    assert 0 < source.sample().shape[1] < 512 * 512
    view = source.thumbnail(64).valid
    assert view[:20].all()
    assert not view[-20:].any()


def test_concurrent_reads_equal_serial_reads_and_no_thread_shares_a_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(3, 300, 300)
    source = opened(write(tmp_path / "a.tif", data, tiled=True, blockxsize=64, blockysize=64, compress="deflate"))
    by_thread: dict[int, set[int]] = {}
    file = source.reader.layers[0].file
    original = type(file)._handle

    def watched(self: Any, level: int | None) -> Any:
        handle = original(self, level)
        by_thread.setdefault(threading.get_ident(), set()).add(id(handle))
        return handle

    monkeypatch.setattr(type(file), "_handle", watched)
    windows = [Window(int(y), int(x), 90, 80) for y, x in RNG.integers(-40, 280, (200, 2))]
    barrier = threading.Barrier(6)
    with ThreadPoolExecutor(6, initializer=barrier.wait) as pool:
        list(pool.map(lambda _: barrier.wait(), range(6)))
        together = list(pool.map(source.read, windows))
        handles = [id(handle) for seen in by_thread.values() for handle in seen]
        assert len(by_thread) > 1
        assert len(handles) == len(set(handles)) == len(by_thread)
    for window, got in zip(windows, together, strict=True):
        alone = source.read(window)
        assert np.array_equal(got.values, alone.values)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_handles_close_with_their_thread_and_with_the_source(tmp_path: Path) -> None:
    def count() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}") == path for fd in os.listdir("/proc/self/fd"))

    path = os.path.realpath(write(tmp_path / "a.tif", noise(1, 64, 64)))
    source = opened(path)
    for _ in range(3):
        thread = threading.Thread(target=source.read, args=(Window(0, 0, 64, 64),))
        thread.start()
        thread.join()
    del thread
    assert count() == 0
    source.read(Window(0, 0, 8, 8))
    assert count() == 1
    del source
    assert count() == 0


def test_a_source_survives_pickling(tmp_path: Path) -> None:
    folder, _ = sentinel(tmp_path / "scene")
    source = opened(str(folder), scale=0.001).select([2, 0])
    window = Window(-5, 30, 60, 70)
    before = source.read(window)
    copy = pickle.loads(pickle.dumps(source))
    after = copy.read(window)
    assert (copy.grid, copy.selected, copy.bands, copy.dtype) == (
        source.grid,
        source.selected,
        source.bands,
        source.dtype,
    )
    assert before.values.tobytes() == after.values.tobytes()
    assert copy.identity() == source.identity()


def test_an_overview_serves_views_alone_and_the_sample_is_spread_over_the_image(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 60000, 1500).astype(np.uint16), (1, 1400, 1500))
    plain = write(tmp_path / "a.tif", ramp)
    with rasterio.open(plain) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "cog.tif", driver="COG", blocksize=256, overview_resampling="average")
    for path in (plain, tmp_path / "cog.tif"):
        sample = opened(str(path)).sample()
        assert np.array_equal(sample, opened(str(plain)).sample())
        assert np.percentile(sample, [2, 50, 98]) == pytest.approx(np.percentile(ramp, [2, 50, 98]), abs=600)
        view = opened(str(path)).thumbnail(100)
        assert view.values.shape == (1, 93, 100)
        assert np.allclose(view.values[0], ramp[0, 0, 7::15][:100], atol=60 * 15)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 300))
def test_sampled_windows_lie_in_the_image_apart_and_cover_it_where_it_is_small(
    height: int, width: int, count: int
) -> None:
    windows = spread_windows((height, width), count)
    assert 1 <= len(windows) <= count
    assert all(Window(0, 0, height, width).contains(window) and not window.empty for window in windows)
    assert len({(window.y // 64, window.x // 64) for window in windows}) == len(windows), "one block of 64 each"
    assert all(window.y % 64 == window.x % 64 == 0 for window in windows)
    if -(-height // 64) <= 16 >= -(-width // 64) and count >= 256:
        assert sum(window.area for window in windows) == height * width


def test_sampling_an_image_that_is_all_nodata_gives_nothing_and_no_error(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "a.tif", np.zeros((2, 50, 50), np.uint8), nodata=0))
    assert source.sample().shape == (2, 0)
    assert not source.read(Window(0, 0, 50, 50)).valid.any()


def test_gdals_block_cache_has_a_bound_that_does_not_grow_with_the_machine() -> None:
    assert os.environ["GDAL_CACHEMAX"]
