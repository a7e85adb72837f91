import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.raster.window import Window

windows = st.builds(Window, st.integers(-40, 40), st.integers(-40, 40), st.integers(0, 40), st.integers(0, 40))


def pixels(window: Window) -> set[tuple[int, int]]:
    return {(y, x) for y in range(window.y, window.y_stop) for x in range(window.x, window.x_stop)}


@given(windows, windows)
def test_intersection_is_the_set_of_shared_pixels(a: Window, b: Window) -> None:
    assert pixels(a.intersect(b)) == pixels(a) & pixels(b)
    assert a.touches(b) == bool(pixels(a) & pixels(b))


@given(windows, windows)
def test_contains_says_whether_all_pixels_are_inside(a: Window, b: Window) -> None:
    if not b.empty:
        assert a.contains(b) == (pixels(b) <= pixels(a))


@given(windows)
def test_area_counts_the_pixels_and_empty_has_none(window: Window) -> None:
    assert window.area == len(pixels(window)) == window.height * window.width
    assert window.empty == (not pixels(window))


@given(windows, st.integers(-9, 9), st.integers(-9, 9))
def test_shift_moves_every_pixel(window: Window, dy: int, dx: int) -> None:
    assert pixels(window.shift(dy, dx)) == {(y + dy, x + dx) for y, x in pixels(window)}
    assert window.shift(dy, dx).shift(-dy, -dx) == window


@given(windows, st.integers(0, 9), st.integers(0, 9))
def test_growing_is_undone_by_insetting(window: Window, before: int, after: int) -> None:
    grown = window.inset(-before, -after)
    assert grown.contains(window)
    assert grown.shape == (window.height + before + after, window.width + before + after)
    assert grown.inset(before, after) == window


def test_insetting_by_more_than_the_window_leaves_it_empty() -> None:
    assert Window(0, 0, 5, 5).inset(3, 3).empty


@given(windows, windows)
def test_slices_index_the_same_pixels_in_an_array_of_the_origin(a: Window, b: Window) -> None:
    y, x = np.mgrid[a.y : a.y_stop, a.x : a.x_stop]
    shared = a.intersect(b)
    if not shared.empty:
        rows, columns = shared.slices(a)
        assert set(zip(y[rows, columns].flat, x[rows, columns].flat, strict=True)) == pixels(shared)


def test_slices_without_an_origin_index_the_whole_image() -> None:
    assert Window(2, 3, 4, 5).slices() == (slice(2, 6), slice(3, 8))


@given(windows)
def test_from_bounds_gives_back_its_corners(window: Window) -> None:
    assert Window.from_bounds(window.y, window.x, window.y_stop, window.x_stop) == window


def test_crossed_bounds_are_empty() -> None:
    assert Window.from_bounds(4, 4, 2, 9) == Window(4, 4, 0, 5)


@pytest.mark.parametrize(("height", "width"), [(-1, 0), (0, -1)])
def test_a_negative_size_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="no negative size"):
        Window(0, 0, height, width)
