"""One-strip TIFFs: what the stream gives is what GDAL reads, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.windows import Window as RasterioWindow

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.strip_stream import find_strip
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.image import Image
from tilesseg.raster.window import Window

RNG = np.random.default_rng(11)
SHAPE = (61, 43)


def noise(dtype: str, channels: int = 3) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=(channels, *SHAPE)).astype(dtype)
    return RNG.integers(0, np.iinfo(dtype).max, (channels, *SHAPE)).astype(dtype)


def by_gdal(path: Path, data: np.ndarray, **options: Any) -> Image:
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5600000)}
    strip = {"blockysize": data.shape[1], "compress": "deflate"}
    with rasterio.open(path, "w", dtype=data.dtype, **{**profile, **place, **strip, **options}) as file:
        file.write(data)
    return opened(path)


def opened(path: Path) -> Image:
    source = open_source(str(path))
    assert isinstance(source, Image)
    return source


def assert_streams_as_read(source: Image, *, streamed: bool = True) -> None:
    assert (find_strip(source.reader.layers[0].file) is not None) == streamed
    height, width = source.grid.shape
    for selection in (source.selected, source.selected[::-1], source.selected[:1]):
        chosen = source.select(selection)
        for step in (1, 16, 1000):
            bands = list(chosen.rows(step))
            assert [band.values.shape[1] for band in bands[:-1]] == [step] * (len(bands) - 1)
            expected = chosen.read_raw(Window(0, 0, height, width))
            values = np.concatenate([band.values for band in bands], axis=1)
            assert values.dtype == expected.values.dtype
            assert values.tobytes() == expected.values.tobytes()
            assert np.array_equal(np.concatenate([band.valid for band in bands], axis=1), expected.valid)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_a_strip_that_gdal_wrote_streams_as_gdal_reads_it(
    tmp_path: Path, dtype: str, endian: str, predictor: int, interleave: str
) -> None:
    if predictor == 3 and not dtype.startswith("float"):
        predictor = 1
    options = {"predictor": predictor, "interleave": interleave, "endianness": endian}
    source = by_gdal(tmp_path / "a.tif", noise(dtype), **options)
    assert source.storage_block == SHAPE
    assert_streams_as_read(source)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "predictor"), [("uint8", 2), ("uint16", 2), ("uint32", 1), ("float16", 3), ("float32", 3), ("float64", 3)]
)
def test_a_strip_that_tifffile_wrote_streams_as_gdal_reads_it(
    tmp_path: Path, dtype: str, predictor: int, byteorder: str, planar: str
) -> None:
    data = noise(dtype)
    pixels = data if planar == "separate" else np.moveaxis(data, 0, 2)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb" if dtype[0] == "u" else "minisblack", planarconfig=planar,
        compression="zlib", predictor=predictor, byteorder=byteorder, rowsperstrip=SHAPE[0], metadata=None,
    )  # fmt: skip
    source = opened(tmp_path / "a.tif")
    assert np.array_equal(source.read_raw(source.grid.window).values, data)
    assert_streams_as_read(source)


def test_nodata_is_told_from_the_rows_as_from_the_file(tmp_path: Path) -> None:
    data = noise("uint16")
    data[:, 5:20, 3:30], data[0, 40:, :] = 7, 7
    source = by_gdal(tmp_path / "a.tif", data, nodata=7)
    assert not source.read_raw(source.grid.window).valid.all()
    assert_streams_as_read(source)


def test_floats_near_nodata_are_left_to_gdal_to_tell(tmp_path: Path) -> None:
    data = noise("float32")
    data[:, 5:9] = np.nextafter(np.float32(-9999), np.float32(0))
    assert_streams_as_read(by_gdal(tmp_path / "a.tif", data, nodata=-9999))


@pytest.mark.parametrize("options", [{"compress": "lzw"}, {"compress": "zstd"}])
def test_what_cannot_be_streamed_is_read_by_gdal(tmp_path: Path, options: dict[str, Any]) -> None:
    source = by_gdal(tmp_path / "a.tif", noise("uint16"), **options)
    assert source.storage_block == SHAPE
    assert_streams_as_read(source, streamed=False)


def test_a_mask_in_the_file_is_read_by_gdal(tmp_path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        by_gdal(tmp_path / "a.tif", noise("uint8"))
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            mask = np.full(SHAPE, 255, np.uint8)
            mask[9:33, 4:20] = 0
            file.write_mask(mask)
    source = opened(tmp_path / "a.tif")
    assert np.array_equal(source.read_raw(source.grid.window).valid[0], mask > 0)
    assert_streams_as_read(source, streamed=False)


def test_an_image_of_many_strips_or_tiles_has_their_cell(tmp_path: Path) -> None:
    assert by_gdal(tmp_path / "a.tif", noise("uint8"), blockysize=16).storage_block == (16, SHAPE[1])
    assert by_gdal(tmp_path / "b.tif", np.zeros((3, 400, 300), np.uint8), compress=None).storage_block == (1, 300)
    tiled = by_gdal(tmp_path / "c.tif", noise("uint8"), tiled=True, blockxsize=16, blockysize=16)
    assert tiled.storage_block == (16, 16)
    assert_streams_as_read(tiled, streamed=False)


def test_a_damaged_strip_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    by_gdal(path, noise("uint8"))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[0], page.databytecounts[0]  # type: ignore[union-attr]
    content = bytearray(path.read_bytes())
    content[offset + size // 2 : offset + size // 2 + 60] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.tif: cannot read row \d+ and the rows below") as caught:
        list(opened(path).rows(7))
    assert "\n" not in str(caught.value)


def test_a_vrt_has_the_largest_cell_of_its_members_and_ignores_those_that_are_gone(tmp_path: Path) -> None:
    by_gdal(tmp_path / "a.tif", noise("uint16", 1))
    sources = "".join(f"<SimpleSource><SourceFilename>{tmp_path}/{n}.tif</SourceFilename></SimpleSource>" for n in "ab")
    (tmp_path / "m.vrt").write_text(
        f'<VRTDataset rasterXSize="{SHAPE[1]}" rasterYSize="{SHAPE[0]}">'
        f'<VRTRasterBand dataType="UInt16" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    assert opened(tmp_path / "m.vrt").storage_block == SHAPE


def test_rows_of_several_files_are_joined(tmp_path: Path) -> None:
    one = tmp_path / "B1.tif"
    by_gdal(one, noise("uint16", 1), nodata=3)
    coarse = noise("uint16", 1)[:, ::2, ::2]
    place = {"transform": rasterio.Affine(20, 0, 500000, 0, -20, 5600000)}
    by_gdal(tmp_path / "B2.tif", coarse, **place)
    source = open_source([str(one), str(tmp_path / "B2.tif")])
    assert (source.masks, source.gaps) == ((0, 1), (2, None))
    assert source.storage_block == SHAPE
    whole = source.read_raw(source.grid.window)
    assert whole.valid.shape == (3, *SHAPE)
    rows = list(source.rows(10))
    assert np.concatenate([raw.values for raw in rows], axis=1).tobytes() == whole.values.tobytes()
    assert np.array_equal(np.concatenate([raw.valid for raw in rows], axis=1), whole.valid)


def test_a_raw_read_is_what_rasterio_reads_without_scale(tmp_path: Path) -> None:
    by_gdal(tmp_path / "a.tif", noise("uint16"))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.scales, file.offsets = (0.5, 1.0, 2.0), (0.0, 1.0, 0.0)
    source = opened(tmp_path / "a.tif")
    assert source.scaling == ((0.5, 0.0), (1.0, 1.0), (2.0, 0.0))
    assert source.dtype == np.float32
    assert {str(dtype) for dtype in source.raw_dtypes} == {"uint16"}
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = file.read(window=RasterioWindow(4, 3, 9, 8))
    assert np.array_equal(source.read_raw(Window(3, 4, 8, 9)).values, expected)
