"""A slide at the pixel size wanted: the same pixels whichever window asks, and means of what they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slide_files import halved, leave_out, tissue, write_pyramid

from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.band_planes import Planes
from tilesseg.formats.reading.image import Image, Reader
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.pixel_size import at_pixel_size
from tilesseg.formats.reading.resample import output_shape
from tilesseg.formats.reading.resampled_reader import resampled_reader
from tilesseg.formats.slide import open_slide
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

IMAGE = tissue((300, 410))
LEVELS = halved(IMAGE, 3)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three levels of 0.5, 1 and 2 µm, without one tile."""
    path = write_pyramid(tmp_path_factory.mktemp("slides") / "slide.tif", LEVELS)
    leave_out(path, 9)
    return str(path)


def at(slide: str, resolution: float, **opening: Any) -> Any:
    return open_source(slide, Opening(resolution=resolution, **opening))


def spans(low: int, high: int) -> st.SearchStrategy[tuple[int, int, int]]:
    """Two neighbouring stretches: beginning, end of the first, end of the second."""
    return st.lists(st.integers(low, high), min_size=3, max_size=3, unique=True).map(lambda ends: tuple(sorted(ends)))


@given(
    mpp=st.one_of(st.floats(0.3, 6.0), st.sampled_from([0.5, 0.51, 0.75, 1.0, 1.5, 2.0, 3.0])),
    level=st.sampled_from([None, 0, 1, 2]),
    y=spans(-20, 220),
    x=spans(-20, 300),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_read_in_four_parts_is_the_same_byte_for_byte(
    slide: str, mpp: float, level: int | None, y: tuple[int, int, int], x: tuple[int, int, int]
) -> None:
    source = at(slide, mpp, level=level)
    whole = source.read(Window.from_bounds(y[0], x[0], y[2], x[2]))
    values, valid = np.empty_like(whole.values), np.empty(whole.valid.shape, np.bool_)
    for top, bottom in ((y[0], y[1]), (y[1], y[2])):
        for left, right in ((x[0], x[1]), (x[1], x[2])):
            part = Window.from_bounds(top, left, bottom, right)
            place = part.slices(Window.from_bounds(y[0], x[0], y[2], x[2]))
            values[:, *place], valid[place] = source.read(part)
    assert values.tobytes() == whole.values.tobytes()
    np.testing.assert_array_equal(valid, whole.valid)


@pytest.mark.parametrize("factor", [2, 3, 5, 17])
def test_whole_factors_are_block_means(tmp_path: Path, factor: int) -> None:
    path = str(write_pyramid(tmp_path / "whole.tif", LEVELS[:1]))
    height, width = (size // factor for size in IMAGE.shape[:2])
    cut = IMAGE[: height * factor, : width * factor].astype(np.float64)
    expected = cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    source = open_slide([path], Opening())
    source = at_pixel_size(source, 0.5 * factor, tolerance=0.05)
    assert source.dtype == np.float32
    np.testing.assert_allclose(source.read(Window(0, 0, height, width)).values, expected, rtol=1e-6)


def test_the_level_read_is_the_coarsest_that_is_fine_enough(slide: str) -> None:
    for resolution, taken in ((0.7, 0.5), (1.4, 1.0), (5.0, 2.0), (0.3, 0.5)):
        notes = " ".join(at(slide, resolution).describe()["notes"])
        assert f"resampled from pixels of {taken:g} to {resolution:g} micrometre" in notes


@pytest.fixture(scope="module")
def turned(slide: str) -> Image:
    """The slide as a turned grid of pixels of 1 by 0.5 m, of which a second level has pixels of 2 by 1."""
    cos, sin = 0.8, 0.6

    def placed(base: Image, factor: float) -> Image:
        transform = (0.5 * cos * factor, sin * factor, 7e5, 0.5 * sin * factor, -cos * factor, 5e6)
        grid = Grid(*base.grid.shape, transform, unit="metre", metres_per_unit=1.0)
        return Image.of(resampled_reader(base.reader, grid, native=grid))

    base = open_slide([slide], Opening())
    image = placed(base, 1)
    return replace(image, reader=replace(image.reader, levels=(placed(base.levels[0], 2).reader,)))


def test_each_side_of_a_turned_pixel_takes_the_requested_size_and_every_point_keeps_its_place(turned: Image) -> None:
    for resolution in (0.7, 1.3, 3.0):
        source = at_pixel_size(turned, resolution, tolerance=0.05)
        assert source.grid.resolution == pytest.approx((resolution, resolution))
        steps = [resolution / side for side in turned.grid.resolution]
        for y, x in ((0, 0), (10, 0), (0, 10), (20, 30)):
            assert source.grid.to_world(y, x) == pytest.approx(turned.grid.to_world(y * steps[0], x * steps[1]))


def test_a_level_is_fine_enough_by_the_longer_side_of_its_pixels(turned: Image) -> None:
    for resolution, across in ((1.5, 0.5), (2.5, 1.0), (0.7, 0.5)):
        notes = " ".join(at_pixel_size(turned, resolution, tolerance=0.05).describe()["notes"])
        assert f"resampled from pixels of {across:g} to {resolution:g} metre" in notes
        assert ("area means" in notes) == (resolution > 1)


def test_a_level_is_near_enough_by_the_side_that_differs_most(turned: Image) -> None:
    """Pixels of 1 by 0.5 m are no pixels of 1 m, nor of 0.5 m."""
    for resolution in (0.5, 1.0, 2.0):
        source = at_pixel_size(turned, resolution, tolerance=0.05)
        assert source.grid.resolution == pytest.approx((resolution, resolution))


def test_a_broken_factor_is_the_mean_of_what_each_pixel_covers(slide: str) -> None:
    values, _ = at(slide, 0.8).read(Window(0, 1, 1, 1))  # 1.6 pixels: along x from 1.6 to 3.2, along y from 0
    weights = np.outer([1, 0.6], [0.4, 1, 0.2]) / 1.6**2
    assert values[:, 0, 0] == pytest.approx((IMAGE[:2, 1:4] * weights[..., None]).sum(axis=(0, 1)))


@pytest.mark.parametrize(("resolution", "expected"), [(0.52, 0.5), (0.48, 0.5), (1.04, 1.0), (2.09, 2.0)])
def test_within_the_tolerance_nothing_is_resampled_and_that_is_said(
    slide: str, resolution: float, expected: float
) -> None:
    source = at(slide, resolution)
    assert source.grid.resolution == pytest.approx((expected, expected))
    assert source.dtype == np.uint8
    assert "are taken as they are" in " ".join(source.describe()["notes"])


def test_beyond_the_tolerance_it_is_resampled(slide: str) -> None:
    assert at(slide, 0.53).grid.resolution == pytest.approx((0.53, 0.53))
    assert at(slide, 0.51, tolerance=0.0).grid.resolution == pytest.approx((0.51, 0.51))
    assert at(slide, 0.6, tolerance=0.25).dtype == np.uint8


def test_an_exact_size_is_the_image_itself_without_a_note(slide: str) -> None:
    source = at(slide, 1.0)
    np.testing.assert_array_equal(source.read(source.grid.window).values, LEVELS[1].transpose(2, 0, 1))
    assert not [note for note in source.describe()["notes"] if "taken" in note or "resampled" in note]


def test_the_grid_shares_the_corner_and_covers_the_image(slide: str) -> None:
    for resolution in (0.37, 0.7, 1.3, 3.3):
        source = at(slide, resolution)
        a, _, c, _, e, f = source.grid.transform
        assert (a, c, e, f) == pytest.approx((resolution, 0, resolution, 0))
        for pixels, size in zip(source.grid.shape, source.native.shape, strict=True):
            assert size * 0.5 - 2 * 2 <= pixels * resolution < size * 0.5 + resolution + 1e-6
        assert source.native.resolution == pytest.approx((0.5, 0.5))


def test_nodata_stays_nodata_and_does_not_colour_its_neighbours(slide: str) -> None:
    source = at(slide, 0.75, level=0)
    values, valid = source.read(source.grid.window)
    hole = np.zeros(IMAGE.shape[:2], np.bool_)
    hole[64:128, 128:192] = True
    centres = [np.floor((np.arange(n) + 0.5) * 1.5).astype(int) for n in valid.shape]
    np.testing.assert_array_equal(~valid, hole[np.minimum(centres[0], 299)[:, None], np.minimum(centres[1], 409)])
    assert values[:, valid].min() >= IMAGE.min()


def test_an_unknown_pixel_size_is_given_by_the_user(tmp_path: Path) -> None:
    path = str(write_pyramid(tmp_path / "unknown.tif", LEVELS, mpp=None))
    unknown = open_source(path)
    assert unknown.grid.unit == "pixel"
    assert unknown.grid.metres_per_unit is None
    source = open_source(path, Opening(mpp=0.25, resolution=1.0))
    assert source.grid.unit == "micrometre"
    assert source.grid.metres_per_unit == 1e-6
    assert source.native.resolution == (0.25, 0.25)
    told = source.describe()
    assert told["mpp"] == {"y": 0.25, "x": 0.25}
    assert (told["height"], told["width"]) == source.grid.shape
    assert unknown.describe()["mpp"] is None
    np.testing.assert_array_equal(source.read(source.grid.window).values, LEVELS[2].transpose(2, 0, 1))


def test_the_users_pixel_size_counts_more_than_the_files(slide: str) -> None:
    source = open_source(slide, Opening(mpp=0.25))
    assert source.grid.resolution == pytest.approx((0.25, 0.25))
    assert [level.grid.resolution[0] for level in source.levels] == pytest.approx([0.5, 1.0])
    coarse = open_source(slide, Opening(mpp=0.25, level=2))
    assert coarse.grid.resolution == pytest.approx((1.0, 1.0))
    assert coarse.native.resolution == pytest.approx((0.25, 0.25))


def test_micrometres_are_not_wanted_of_pixels_whose_size_nobody_states(tmp_path: Path) -> None:
    path = str(write_pyramid(tmp_path / "unknown.tif", LEVELS, mpp=None))
    with pytest.raises(SourceError, match=r"0\.5 µm are requested, and the file gives no size .* input\.mpp"):
        open_source(path, Opening(resolution=0.5))


class Counted:
    """A reader that remembers the largest window that was read of it."""

    def __init__(self, base: Reader, block: tuple[int, int]) -> None:
        self.base, self.block, self.largest = base, block, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def storage_block(self, bands: Sequence[int]) -> tuple[int, int]:
        return self.block

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        self.largest = max(self.largest, window.area)
        return self.base.read(window, bands)


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("resolution", [0.7, 3.3, 4.0])
def test_a_large_window_is_read_in_pieces_and_is_the_same_byte_for_byte(
    slide: str, monkeypatch: pytest.MonkeyPatch, resolution: float, rows: bool
) -> None:
    base, step = open_slide([slide], Opening()), (resolution / 0.5, resolution / 0.5)
    height, width = output_shape(base.grid.shape, step)
    grid = replace(base.grid, height=height, width=width)
    whole = Image.of(resampled_reader(base.reader, grid, native=base.native, step=step))
    expected = whole.read(whole.grid.window)
    monkeypatch.setattr("tilesseg.formats.reading.resampled_reader._SIDE", 64)
    counted: Any = Counted(base.reader, (16, base.grid.width) if rows else (64, 64))
    found = Image.of(replace(whole.reader, base=counted)).read(whole.grid.window)
    assert found.values.tobytes() == expected.values.tobytes()
    np.testing.assert_array_equal(found.valid, expected.valid)
    margin = 2 * int(np.ceil(step[0])) + 2
    assert counted.largest <= (64 + margin) ** 2 + (base.grid.width * margin if rows else 0)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_a_pixel_size_that_is_none_is_refused(slide: str, mpp: float) -> None:
    with pytest.raises(SourceError, match="mpp"):
        open_source(slide, Opening(mpp=mpp))


def test_raw_pixels_and_rows_are_what_is_read(slide: str) -> None:
    source = at(slide, 0.75, level=0)
    window = source.grid.window
    rows = list(source.rows(47))
    values, valid = source.read(window)
    np.testing.assert_array_equal(np.concatenate([raw.values for raw in rows], axis=1), values)
    np.testing.assert_array_equal(np.concatenate([raw.valid for raw in rows], axis=1)[0], valid)


def test_bands_are_selected_on_every_level(slide: str) -> None:
    source = open_source(slide, Opening(mpp=0.25)).select([2, 0])
    assert all(level.selected == (2, 0) for level in source.levels)
    np.testing.assert_array_equal(
        source.levels[1].read(Window(0, 0, 9, 9)).values, LEVELS[2][:9, :9, [2, 0]].transpose(2, 0, 1)
    )
