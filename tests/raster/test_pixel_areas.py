"""Laws of areas of pixels: whole numbers, exact in any order. Oracle: one number for each pixel, summed by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesseg.raster.pixel_areas import PixelAreas, authalic
from tilesseg.raster.window import Window

SHAPE = (41, 53)
WHOLE_EARTH = 510_065_621_724_089.0  # m², area of the WGS 84 ellipsoid
E2 = 0.0066943799901413165


def areas(cell: tuple[int, int]) -> PixelAreas:
    count = tuple(-(-size // side) for size, side in zip(SHAPE, cell, strict=True))
    return PixelAreas.of(cell, np.random.default_rng(0).uniform(90, 110, count))


def each(of: PixelAreas) -> NDArray[np.int64]:
    """Quanta of each pixel."""
    return of.quanta.repeat(of.cell[0], axis=0).repeat(of.cell[1], axis=1)[: SHAPE[0], : SHAPE[1]]


@pytest.mark.parametrize("cell", [(1, 53), (8, 16), (41, 53), (64, 64), (1, 1), (5, 64)])
@given(st.integers(0, 41), st.integers(0, 41), st.integers(0, 53), st.integers(0, 53))
def test_a_windows_area_is_the_sum_over_its_pixels(cell: tuple[int, int], y: int, y2: int, x: int, x2: int) -> None:
    of, window = areas(cell), Window.from_bounds(min(y, y2), min(x, x2), max(y, y2), max(x, x2))
    assert of.of_window(window) == each(of)[window.slices()].sum()


@pytest.mark.parametrize("cell", [(8, 16), (1, 53), (5, 64)])
def test_pixels_of_a_row_of_cells_are_weighed_by_their_cells(cell: tuple[int, int]) -> None:
    of, counts = areas(cell), np.random.default_rng(1).integers(0, 9, 30)
    expected = counts @ each(of)[2 * cell[0], 11:41]
    assert of.of_columns(2, counts, 11) == expected


def test_areas_are_right_to_a_ten_millionth() -> None:
    given_areas = np.random.default_rng(0).uniform(90, 110, (6, 4))
    assert areas((8, 16)).quanta * areas((8, 16)).quantum == pytest.approx(given_areas, rel=1e-7)


def test_zones_of_an_ellipsoid_add_up_to_it() -> None:
    poles = authalic(np.array([-np.pi / 2, np.pi / 2]), E2)
    assert 2 * np.pi * 6378137.0**2 * (poles[1] - poles[0]) == pytest.approx(WHOLE_EARTH, rel=1e-12)
    assert authalic(np.array([np.pi / 6]), 0.0) == pytest.approx(0.5)
