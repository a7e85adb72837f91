"""A mask at the image's own pixels: each takes the label under its centre, whichever window asks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesseg.formats.writer import Mask, MaskLevel, at_image
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]
MICROMETRE = {"unit": "micrometre", "metres_per_unit": 1e-6}


def slide(shape: tuple[int, int], mpp: tuple[float, float]) -> Grid:
    return Grid(*shape, transform=(mpp[1], 0.0, 12.5, 0.0, mpp[0], 40.0), **MICROMETRE)  # type: ignore[arg-type]


def as_mask(labels: Labels, mpp: tuple[float, float], image: Grid | None) -> Mask:
    def read(window: Window) -> Labels:
        assert Window(0, 0, *labels.shape).contains(window)
        return labels[window.slices()]

    level = MaskLevel((1, 1), lambda window: labels[:1, :1])
    return Mask(slide(labels.shape, mpp), read, (), {}, image, levels=(level,))


def under(pixel: int, image: Fraction, mask: Fraction, size: int) -> int:
    """The oracle: exact numbers."""
    return min(int((pixel + Fraction(1, 2)) * image / mask), size - 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int], list[Fraction], list[Fraction], tuple[int, int]]:
    """Shape of the mask, and pixel sizes that people meet; the image overhangs by up to one of its pixels."""
    sizes = st.sampled_from([Fraction(n, 10_000) for n in (2500, 2505, 2498, 3333, 4990, 5000, 7500, 10_000, 20_000)])
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    image, mask = [draw(sizes), draw(sizes)], [draw(sizes), draw(sizes)]
    more = draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
    whole = tuple(max(1, int(n * m / i)) + k for n, i, m, k in zip(shape, image, mask, more, strict=True))
    return shape, image, mask, whole  # type: ignore[return-value]


@given(cases(), st.data())
def test_every_pixel_has_the_label_under_its_centre_whichever_window_asks(case, data) -> None:  # type: ignore[no-untyped-def]
    shape, image, mask, whole = case
    labels = np.random.default_rng(0).integers(0, 254, shape, np.uint8)
    rows, columns = (
        [under(pixel, own, coarse, size) for pixel in range(length)]
        for length, own, coarse, size in zip(whole, image, mask, shape, strict=True)
    )
    expected = labels[np.ix_(rows, columns)]
    enlarged = at_image(as_mask(labels, tuple(map(float, mask)), slide(whole, tuple(map(float, image)))))  # type: ignore[arg-type]
    y, x = (data.draw(st.integers(0, length - 1)) for length in whole)
    height, width = data.draw(st.integers(1, whole[0] - y)), data.draw(st.integers(1, whole[1] - x))
    window = Window(y, x, height, width)
    np.testing.assert_array_equal(enlarged.read(window), expected[window.slices()])
    np.testing.assert_array_equal(enlarged.read(Window(0, 0, *whole)), expected)


def test_a_whole_factor_repeats_each_label() -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    enlarged = at_image(as_mask(labels, (2.0, 2.0), slide((6, 8), (0.5, 0.5))))
    labels = labels.repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(enlarged.read(Window(0, 0, 6, 8)), labels[:6, :8])


def test_the_image_may_end_beyond_the_mask_by_a_part_of_a_pixel() -> None:
    """9 pixels of 0.25 µm are 2.25 µm, and the mask has two of 1 µm."""
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    enlarged = at_image(as_mask(labels, (1.0, 1.0), slide((9, 9), (0.25, 0.25))))
    assert enlarged.read(Window(0, 0, 9, 9))[:, 0].tolist() == [1] * 4 + [3] * 5
    assert enlarged.read(Window(8, 8, 1, 1)).tolist() == [[4]]


def test_grid_and_origin_are_the_images_and_stored_levels_are_not_its_levels() -> None:
    image = slide((8, 8), (0.25, 0.25))
    enlarged = at_image(as_mask(np.zeros((4, 4), np.uint8), (0.5, 0.5), image))
    assert enlarged.grid == image and enlarged.levels == () and enlarged.tile_polygons == ()


@pytest.mark.parametrize("same", [True, False])
def test_a_mask_of_the_images_own_pixels_is_itself(same: bool) -> None:
    labels = np.zeros((4, 4), np.uint8)
    mask = as_mask(labels, (0.5, 0.5), slide((4, 4), (0.5, 0.5)) if same else None)
    assert at_image(mask) is mask
