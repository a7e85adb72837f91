"""The image over a reader of a few lines: everything but facts and the reading of a window is written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.band_planes import ImageBand, Planes
from tilesseg.formats.reading.image import Image, ImageFacts, Reader
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

VALUES = np.random.default_rng(3).integers(1, 200, (3, 70, 90)).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class ArrayReader(Reader):
    """A format of arrays in memory."""

    values: NDArray[Any]
    damaged: bool = False

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        if self.damaged:
            raise SourceError("memory: damaged; replace it")
        values = self.values[list(bands)][:, *window.slices()]
        masks = sorted({self.facts.bands[i].mask for i in bands})
        return Planes(values, [self.values[mask][window.slices()] != 7 for mask in masks])

    def storage_block(self, bands: Sequence[int]) -> tuple[int, int]:
        return 16, 16

    def describe_files(self) -> list[dict[str, Any]]:
        return []


def image(values: NDArray[Any] = VALUES, **options: Any) -> Image:
    bands = tuple(
        ImageBand(f"b{k}", "uint16", "memory", scale=0.5 if k == 2 else 1.0, index=k, mask=k) for k in range(3)
    )
    return Image.of(ArrayReader(ImageFacts("memory", Grid(*values.shape[1:]), bands, ()), values, **options))


def test_bands_are_selected_and_each_is_scaled_by_its_own_numbers() -> None:
    source = image()
    assert source.select([0, 1]).dtype == np.uint16 and source.dtype == np.float32
    pixels = source.select([2, 0]).read(Window(3, 4, 5, 6))
    np.testing.assert_array_equal(pixels.values, VALUES[[2, 0], 3:8, 4:10] * np.array([0.5, 1.0])[:, None, None])
    np.testing.assert_array_equal(pixels.valid, (VALUES[[2, 0], 3:8, 4:10] != 7).all(axis=0))
    with pytest.raises(SourceError, match="cannot read band 3 of memory: its bands are 0 to 2; choose among them"):
        source.select([3])


def test_a_window_beyond_the_image_is_reflected_and_strips_join_to_the_whole() -> None:
    source = image().select([1])
    padded = np.pad(VALUES[1], 20, mode="reflect")
    np.testing.assert_array_equal(source.read(Window(-20, -20, 110, 130)).values[0], padded)
    strips = list(source.rows(32))
    assert [strip.values.shape[1] for strip in strips] == [32, 32, 6]
    np.testing.assert_array_equal(np.concatenate([strip.values[0] for strip in strips]), VALUES[1])


def test_a_damaged_overview_costs_neither_statistics_nor_a_view() -> None:
    large = np.tile(VALUES, (1, 24, 24))
    plain, coarse = image(large), image(large[:, ::2, ::2], damaged=True)
    broken = Image.of(replace(plain.reader, overviews=(coarse.reader,)))
    np.testing.assert_array_equal(broken.sample(), plain.sample())
    assert broken.thumbnail(2160).valid.any()
    assert not broken.thumbnail(100).valid.any(), "a level that cannot be read leaves the view invalid"
