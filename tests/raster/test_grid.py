import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from tilesseg.raster.grid import IDENTITY, ControlPoint, Grid, Placement
from tilesseg.raster.window import Window

WGS84 = Geod(ellps="WGS84")
WHOLE_EARTH = 510_065_621_724_089.0  # m², area of the WGS 84 ellipsoid

coefficients = st.floats(-100, 100).filter(lambda v: abs(v) > 1e-3)
transforms = st.tuples(coefficients, coefficients, coefficients, coefficients, coefficients, coefficients)
grids = st.builds(Grid, st.integers(1, 5000), st.integers(1, 5000), transforms)


def geographic(height: int, step: float, north: float) -> Grid:
    return Grid(height, 10, (step, 0.0, 5.0, 0.0, -step, north), crs="EPSG:4326", unit="degree")


def area_by_pyproj(south: float, north: float, width: float) -> float:
    """Area of a cell between two parallels, which pyproj has to be told point by point: they are no geodesics."""
    along = np.linspace(0, width, 200)
    lon = np.concatenate([along, along[::-1]])
    lat = np.concatenate([np.full(200, south), np.full(200, north)])
    return abs(WGS84.polygon_area_perimeter(lon, lat)[0])


@given(grids, st.integers(1, 64))
def test_a_coarser_grid_shares_the_top_left_and_ends_within_one_of_its_pixels(grid: Grid, factor: int) -> None:
    coarse = grid.coarsen(factor)
    assert coarse.to_world(0, 0) == grid.to_world(0, 0)
    assert 0 <= coarse.height * factor - grid.height < factor
    assert 0 <= coarse.width * factor - grid.width < factor
    assert coarse.resolution == pytest.approx([r * factor for r in grid.resolution])


@given(grids, st.integers(0, 5000), st.integers(0, 5000), st.sampled_from([2, 3, 4, 8]))
def test_a_coarse_pixel_lies_where_its_fine_pixels_lie(grid: Grid, y: int, x: int, factor: int) -> None:
    assert grid.coarsen(factor).to_world(y, x) == pytest.approx(grid.to_world(y * factor, x * factor), abs=1e-6)


@given(grids)
def test_coarsening_twice_by_two_is_coarsening_by_four(grid: Grid) -> None:
    twice, once = grid.coarsen(2).coarsen(2), grid.coarsen(4)
    assert twice.shape == once.shape
    assert twice.transform == pytest.approx(once.transform)


@given(grids)
def test_coarsening_by_one_changes_nothing(grid: Grid) -> None:
    assert grid.coarsen(1) == grid


def test_rounding_never_adds_a_row_that_lies_outside_the_image() -> None:
    assert 21 / 0.7 > 30
    assert Grid(21, 21).coarsen(0.7).shape == (30, 30)


@given(grids)
def test_resolution_is_the_length_of_a_pixels_sides(grid: Grid) -> None:
    corner, down, right = (np.array(grid.to_world(y, x)) for y, x in [(0, 0), (1, 0), (0, 1)])
    expected = [np.linalg.norm(down - corner), np.linalg.norm(right - corner)]
    assert grid.resolution == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_window_of_a_grid_holds_all_its_pixels() -> None:
    grid = Grid(3, 4)
    assert grid.window == Window(0, 0, 3, 4)
    assert grid.shape == (3, 4)


@pytest.mark.parametrize(("height", "width"), [(0, 1), (1, 0), (-1, 5)])
def test_a_grid_without_pixels_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        Grid(height, width)


def test_only_a_crs_or_a_transform_georeferences() -> None:
    assert not Grid(1, 1).georeferenced
    assert Grid(1, 1, crs="EPSG:32633").georeferenced
    assert Grid(1, 1, (2.0, *IDENTITY[1:])).georeferenced


scales = st.floats(0.25, 16)


@given(st.floats(0, 5000), st.floats(0, 5000), scales, scales)
def test_a_scaled_placement_puts_the_same_ground_under_the_same_part_of_the_image(
    y: float, x: float, tall: float, wide: float
) -> None:
    """A control point counts from the image's corner, RPCs from the centre of the first pixel."""
    rpcs = {"LINE_OFF": "2500.25 pixels", "LINE_SCALE": "2501", "SAMP_OFF": "-3", "SAMP_SCALE": "7.5", "LAT_OFF": "48"}
    point = ControlPoint(y, x, (1.0, 2.0, 3.0), "mast")
    scaled = Placement((point,), "a CRS", rpcs).scaled(tall, wide)
    assert (scaled.points[0].y * tall, scaled.points[0].x * wide) == pytest.approx((y, x))
    assert (scaled.points[0].world, scaled.points[0].name, scaled.crs) == (point.world, point.name, "a CRS")
    assert scaled.rpcs["LAT_OFF"] == "48"
    for axis, position, scale in (("LINE", y, tall), ("SAMP", x, wide)):
        before, after = (
            (place - 0.5 - float(numbers[f"{axis}_OFF"].split()[0])) / float(numbers[f"{axis}_SCALE"])
            for place, numbers in ((position, rpcs), (position / scale, scaled.rpcs))
        )
        assert after == pytest.approx(before, abs=1e-9)


def test_a_coarser_grid_takes_its_control_points_along() -> None:
    placement = Placement((ControlPoint(40.0, 60.0, (1.0, 2.0, 0.0)),))
    assert Grid(100, 100, placement=placement).coarsen(4).placement == placement.scaled(4, 4)
    assert placement.scaled(4, 4).rpcs == {}


def test_a_grid_of_a_single_pixel_is_no_smaller_when_it_is_coarsened() -> None:
    assert Grid(1, 3).coarsen(1e9).shape == (1, 1)
