"""Laws of areas on the ground. Oracle: pyproj's geodesics on the ellipsoid of the CRS, never our own formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.crs import CRS

from tilesseg.formats.reading.crs import unit_of
from tilesseg.formats.reading.ground_area import pixel_areas, plane_area
from tilesseg.raster.grid import IDENTITY, Grid, Transform
from tilesseg.raster.window import Window

WHOLE_EARTH = 510_065_621_724_089.0  # m², area of the WGS 84 ellipsoid
CASES = Path(__file__).parents[2].parent / "shared" / "cases" / "geo"


def grid_of(crs: str, shape: tuple[int, int], transform: Transform) -> Grid:
    known = CRS.from_user_input(crs)
    unit, metres = unit_of(known)
    return Grid(*shape, transform=transform, crs=known.to_wkt(version="WKT2_2019"), unit=unit, metres_per_unit=metres)


def by_pyproj(grid: Grid, window: Window, points: int = 200) -> float:
    """Geodesic area of a window whose edges have many points."""
    left, right, steps = window.x, window.x_stop, np.linspace(0, 1, points)
    across, down = left + steps * window.width, window.y + steps * window.height
    x = np.concatenate([across, np.full(points, right), across[::-1], np.full(points, left)])
    y = np.concatenate([np.full(points, window.y), down, np.full(points, window.y_stop), down[::-1]])
    a, b, c, d, e, f = grid.transform
    crs = pyproj.CRS(grid.crs)
    to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = crs.get_geod()
    assert geod is not None
    radians = crs.geodetic_crs.axis_info[0].unit_conversion_factor  # some count in grads
    lonlat = np.degrees(np.array(to_lonlat.transform(a * x + b * y + c, d * x + e * y + f)) * radians)
    area, _ = geod.polygon_area_perimeter(*lonlat)
    return abs(float(area))


GRIDS = {
    "Web Mercator at 60° north": grid_of("EPSG:3857", (2000, 2000), (10, 0, 1e6, 0, -10, 8.4e6)),
    "Web Mercator, a continent": grid_of("EPSG:3857", (2000, 2000), (5000, 0, -5e6, 0, -5000, 1.5e7)),
    "UTM": grid_of("EPSG:32632", (10980, 10980), (10, 0, 3e5, 0, -10, 5.1e6)),
    "UTM, turned": grid_of("EPSG:32719", (900, 1200), (8, 6, 2e5, 6, -8, 7.2e6)),
    "polar stereographic": grid_of("EPSG:3413", (3000, 3000), (400, 0, -1.9e6, 0, -400, 1.9e6)),
    "antarctic": grid_of("EPSG:3031", (3000, 3000), (40, 0, 1e6, 0, -40, 1e6)),
    "equal-area": grid_of("EPSG:3035", (5000, 5000), (100, 0, 4e6, 0, -100, 3.5e6)),
    "conic": grid_of("EPSG:2154", (5000, 5000), (1, 0, 7e5, 0, -1, 6.6e6)),
    "US feet": grid_of("EPSG:2263", (5000, 4000), (20, 0, 9e5, 0, -20, 2.5e5)),
    "oblique": grid_of("EPSG:2056", (3000, 3000), (10, 0, 2.6e6, 0, -10, 1.2e6)),
    "degrees, turned": grid_of("EPSG:4326", (500, 500), (1e-3, 5e-4, 8, 5e-4, -1e-3, 47)),
    "degrees": grid_of("EPSG:4258", (500, 500), (1e-3, 0, 8, 0, -1e-3, 60)),
    "grads": grid_of("EPSG:4901", (500, 500), (1e-3, 0, 2, 0, -1e-3, 52)),
    "the Moon": grid_of("IAU_2015:30110", (500, 500), (1000, 0, -2e5, 0, -1000, 1.2e6)),
    "compound": grid_of("EPSG:32632+5773", (500, 500), (10, 0, 3e5, 0, -10, 5.1e6)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_areas_are_those_of_the_ellipsoid(name: str) -> None:
    grid = GRIDS[name]
    areas = pixel_areas(grid)
    assert areas is not None
    height, width = grid.shape
    for window, near in (
        (Window(height // 3, width // 4, height // 5, width // 5), 5e-6),
        (Window(height // 2, width // 2, 40, 50), 2e-5),
        (Window(height - 60, 3, 50, 60), 2e-5),
    ):
        assert areas.of_window(window) * areas.quantum == pytest.approx(by_pyproj(grid, window), rel=near), window


def test_a_pixel_of_web_mercator_at_60_degrees_is_a_quarter_of_its_plane() -> None:
    grid = GRIDS["Web Mercator at 60° north"]
    areas = pixel_areas(grid)
    assert areas is not None
    row = round((8.4e6 - 8_399_737.889818) / 10)  # y of 60° north
    assert areas.of_window(Window(row, 0, 1, 1)) * areas.quantum == pytest.approx(25.08, rel=1e-3)
    assert plane_area(grid) == 100.0


@pytest.mark.parametrize("step", [30.0, 1.0, 0.25])
def test_geographic_pixels_of_the_whole_earth_add_up_to_it(step: float) -> None:
    grid = grid_of("EPSG:4326", (round(180 / step), round(360 / step)), (step, 0, -180, 0, -step, 90))
    areas = pixel_areas(grid)
    assert areas is not None
    assert areas.of_window(grid.window) * areas.quantum == pytest.approx(WHOLE_EARTH, rel=1e-7)


def test_there_is_no_earth_beyond_the_poles_nor_outside_a_world_map() -> None:
    areas = pixel_areas(grid_of("EPSG:4326", (4, 1), (1, 0, 0, 0, -1, 92)))
    assert areas is not None and (areas.quanta[:2] == 0).all() and (areas.quanta[2:] > 0).all()
    mollweide = grid_of("ESRI:54009", (180, 360), (1e5, 0, -18e6, 0, -1e5, 9e6))
    areas = pixel_areas(mollweide)
    assert areas is not None and areas.of_window(Window(0, 0, 3, 3)) == 0
    assert areas.of_window(mollweide.window) * areas.quantum == pytest.approx(WHOLE_EARTH, rel=1e-2)


def test_a_pole_inside_a_grid_is_a_place_like_any_other() -> None:
    grid = grid_of("EPSG:3413", (600, 600), (1000, 0, -3e5, 0, -1000, 3e5))
    areas = pixel_areas(grid)
    assert areas is not None
    middle = areas.of_window(Window(299, 299, 2, 2)) * areas.quantum
    assert middle == pytest.approx(4e6 / 0.9699**2, rel=1e-3)  # scale of the projection at the pole
    parts = [areas.of_window(Window(y, x, 300, 300)) for y in (0, 300) for x in (0, 300)]
    assert sum(parts) * areas.quantum == pytest.approx(
        sum(by_pyproj(grid, Window(y, x, 300, 300)) for y in (0, 300) for x in (0, 300)), rel=1e-5
    )


@pytest.mark.parametrize(
    ("transform", "unit", "expected"),
    [
        ((10.0, 0.0, 5e5, 0.0, -10.0, 5e6), "metre", 100.0),
        ((3.0, -4.0, 0.0, 4.0, 3.0, 0.0), "metre", 25.0),  # turned: side 5
        ((10.0, 0.0, 0.0, 0.0, 10.0, 0.0), "foot", 100 * 0.3048**2),
    ],
)
def test_a_crs_without_latitudes_is_a_plane(transform: Transform, unit: str, expected: float) -> None:
    factor = {"metre": 1, "foot": 0.3048}[unit]
    site = f'LOCAL_CS["assembly hall",UNIT["{unit}",{factor}],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    areas = pixel_areas(Grid(7, 7, transform, crs=site, unit=unit, metres_per_unit=float(factor)))
    assert areas is not None and areas.uniform
    assert areas.of_window(Window(2, 3, 1, 1)) * areas.quantum == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    "grid", [Grid(5, 5), Grid(5, 5, (0.5, 0.0, 0.0, 0.0, 0.5, 0.0), unit="micrometre"), Grid(5, 5, IDENTITY)]
)
def test_pixels_not_of_the_earth_have_no_area(grid: Grid) -> None:
    assert pixel_areas(grid) is None and plane_area(grid) is None


def test_case_of_web_mercator() -> None:
    path = CASES / "13-web-mercator-60n.tif"
    if not path.exists():
        pytest.skip("no cases: ../shared/cases does not exist beside the checkout")
    with rasterio.open(path) as file:
        grid = grid_of("EPSG:3857", file.shape, tuple(file.transform)[:6])
    areas = pixel_areas(grid)
    assert areas is not None
    assert areas.of_window(grid.window) * areas.quantum == pytest.approx(by_pyproj(grid, grid.window), rel=1e-5)
