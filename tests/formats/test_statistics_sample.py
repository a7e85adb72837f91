"""Statistics are of the pixels that the network will see: valid, at full resolution, whatever else the file holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
import zarr
from fakes import write_scene
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.statistics_sample import PIXELS, Readable, sample_image
from tilesseg.formats.source import Pixels
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window

HEIGHT, WIDTH = 1310, 1450
NODATA = 0


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint16]:
    """A checkerboard of dark and bright pixels, of which any mean is wrong, with a border of nodata."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.where((y + x) % 2, 200, 4000) + np.random.default_rng(2).integers(0, 90, (HEIGHT, WIDTH))
    values[:, :400] = NODATA
    return values.astype(np.uint16)


def tiff(path: Path, values: NDArray[Any], **how: Any) -> Path:
    return write_scene(path, values[None], nodata=NODATA, **how)


def cog(path: Path, values: NDArray[Any]) -> Path:
    rasterio.shutil.copy(
        tiff(path.with_suffix(".plain.tif"), values), path, driver="COG", overview_resampling="average"
    )
    return path


def false_overviews(path: Path, values: NDArray[Any]) -> Path:
    """A file whose overviews are of other pixels."""
    tiff(path, np.full_like(values, 9), tiled=True)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
        file.write(values[None])
    return path


def store(path: Path, values: NDArray[Any]) -> Path:
    array = zarr.create_array(str(path), shape=values.shape, chunks=(700, 600), dtype=values.dtype, fill_value=0)
    array.attrs["_FillValue"] = NODATA
    array[:] = values
    return path


FILES = {
    "tiles": lambda path, values: tiff(path.with_suffix(".tif"), values, tiled=True, blockxsize=256, blockysize=256),
    "strips": lambda path, values: tiff(path.with_suffix(".tif"), values, blockysize=40, compress="deflate"),
    "one strip": lambda path, values: tiff(path.with_suffix(".tif"), values, blockysize=HEIGHT, compress="deflate"),
    "COG": lambda path, values: cog(path.with_suffix(".tif"), values),
    "false overviews": lambda path, values: false_overviews(path.with_suffix(".tif"), values),
    "Zarr": lambda path, values: store(path.with_suffix(".zarr"), values),
}


@pytest.mark.parametrize("kind", FILES)
def test_equal_pixels_give_an_equal_sample(tmp_path: Path, picture: NDArray[np.uint16], kind: str) -> None:
    path = FILES[kind](tmp_path / "scene", picture)
    plain = open_source(str(FILES["tiles"](tmp_path / "plain", picture))).sample()
    np.testing.assert_array_equal(open_source(str(path)).sample(), plain)
    valid = picture[picture != NODATA]
    assert plain.mean() == pytest.approx(valid.mean(), rel=0.01)
    assert np.percentile(plain, [2, 98]) == pytest.approx(np.percentile(valid, [2, 98]), rel=0.01)


def test_a_coarser_level_of_a_slide_gives_no_statistics(tmp_path: Path) -> None:
    values = np.where(np.indices((600, 700)).sum(axis=0) % 2, 10, 240).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(values, tile=(128, 128), subifds=1, metadata={"axes": "YX"})
        file.write(values[::2, ::2], tile=(128, 128), subfiletype=1)
    sample = open_source(str(tmp_path / "a.ome.tif")).sample()
    assert np.unique(sample).tolist() == [10, 240] and sample.size == values.size


def test_the_pixels_of_a_resampled_image_are_those_that_are_read(tmp_path: Path, picture: NDArray[np.uint16]) -> None:
    path = tiff(tmp_path / "scene.tif", picture, transform=rasterio.Affine(10, 0, 0, 0, -10, 0), crs="EPSG:32632")
    source = open_source(str(path), Opening(resolution=20))
    pixels = source.read(source.grid.window)
    np.testing.assert_array_equal(np.sort(source.sample()[0]), np.sort(pixels.values[0][pixels.valid]))


def test_a_small_valid_area_is_found_and_taken_whole(tmp_path: Path) -> None:
    values = np.zeros((3000, 2900), np.uint16)
    values[2041:2060, 1111:1130] = np.arange(1, 362).reshape(19, 19)
    for number, how in enumerate(({"tiled": True}, {"blockysize": 17}, {"blockysize": 3000, "compress": "deflate"})):
        sample = open_source(str(tiff(tmp_path / f"{number}.tif", values, **how))).sample()
        assert sample[0].tolist() == list(range(1, 362))


def test_many_small_valid_areas_are_sampled_evenly() -> None:
    values = np.zeros((2048, 4096), np.uint16)
    y, x = np.indices(values.shape)
    values[(y % 64 < 12) & (x % 64 < 10)] = 1 + (y // 64 * 64 + x // 64)[(y % 64 < 12) & (x % 64 < 10)]
    image = Memory(values, block=(512, 512))
    sample, valid = sample_image(image.readable), values[values > 0]
    assert len(valid) // 8 < sample.size <= PIXELS
    assert np.percentile(sample, [2, 50, 98]) == pytest.approx(np.percentile(valid, [2, 50, 98]), rel=0.02)


def test_statistics_are_of_the_region_of_interest_alone() -> None:
    values = np.ones((2000, 3000), np.uint16)
    values[480:960, 960:1440] = 7
    in_roi = np.zeros((42, 63), bool)
    in_roi[10:20, 20:30] = True
    inside = RoiCells.of(in_roi, stride=48, label=255)
    sample = sample_image(Memory(values, block=(256, 256)).readable, inside)
    assert (sample == 7).all() and sample.size > 480 * 480 / 8


def test_a_small_valid_area_in_a_region_of_interest_is_found() -> None:
    values = np.zeros((2000, 3000), np.uint16)
    values[500:503, 1000:1003], values[1500:1600, 100:200] = 7, 9
    in_roi = np.zeros((42, 63), bool)
    in_roi[10:20, 20:30] = True
    sample = sample_image(Memory(values, block=(256, 256)).readable, RoiCells.of(in_roi, stride=48, label=255))
    assert sample.tolist() == [[7.0] * 9]


@dataclass
class Memory:
    """An image in memory that counts how often each of its blocks is decoded."""

    values: NDArray[Any]
    block: tuple[int, int]
    damaged: frozenset[tuple[int, int]] = frozenset()
    decoded: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def readable(self) -> Readable:
        return Readable(self.values.shape, 1, self.block, 1 << 20, self.read)

    def blocks(self, window: Window) -> Iterator[tuple[int, int]]:
        for y in range(window.y // self.block[0], -(-window.y_stop // self.block[0])):
            for x in range(window.x // self.block[1], -(-window.x_stop // self.block[1])):
                yield y, x

    def read(self, window: Window) -> Pixels:
        blocks = list(self.blocks(window))
        if self.damaged.intersection(blocks):
            raise SourceError("a damaged block")
        self.decoded.update(blocks)
        values = self.values[window.slices()][None]
        return Pixels(values, values[0] != NODATA)


@pytest.mark.parametrize("block", [(64, 64), (512, 512), (1024, 1024), (128, 40_000), (20_000, 40_000)])
def test_no_block_is_decoded_twice_and_a_window_costs_one_at_most(block: tuple[int, int]) -> None:
    image = Memory(np.broadcast_to(np.uint8(1), (20_000, 40_000)), block)
    sample = sample_image(image.readable)
    assert 0.95 * PIXELS <= sample.size <= PIXELS
    assert max(image.decoded.values()) == 1 or block[0] * block[1] > 1 << 24
    assert sum(image.decoded.values()) <= 256


def test_an_image_with_a_period_is_sampled_at_all_its_phases() -> None:
    ramp = np.add.outer(np.zeros(1024), np.arange(1024)).astype(np.uint16) + 1
    values = np.tile(ramp, (8, 8))
    sample = sample_image(Memory(values, (512, 512)).readable)
    assert np.percentile(sample, [2, 50, 98]) == pytest.approx([20, 512, 1004], abs=40)


def test_damaged_blocks_cost_no_other_pixel_of_the_sample() -> None:
    values = np.zeros((4000, 5000), np.uint16)
    values[1000:1100, 1024:1100] = 7
    image = Memory(values, (256, 256), frozenset({(3, 3), (3, 5), (9, 9)}))
    assert sample_image(image.readable).size == 100 * 76
    with pytest.raises(SourceError, match="no window of the image can be read"):
        sample_image(Memory(values, (4000, 5000), frozenset({(0, 0)})).readable)
