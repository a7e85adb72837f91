"""Ground area of the pixels of a grid: on the ellipsoid of its CRS, whatever the projection.

Rows of a geographic grid have their area in closed form. Of any other grid, the area of a pixel is the determinant of
the derivatives of its place in an equal-area map of the ellipsoid (Lambert's azimuthal one about the nearer pole, on
the authalic sphere: Snyder 1987, eq. 3-11 to 3-13 and 24-23), by central differences through PROJ.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, log2

import numpy as np
from numpy.typing import NDArray
from rasterio import Env
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

from tilesseg.formats.reading.crs import ellipsoid_of, geodetic_base
from tilesseg.raster.grid import Grid, Transform
from tilesseg.raster.pixel_areas import PixelAreas, authalic

EVEN = 2e-5
"""Share by which the area of pixels may vary in a cell, where that takes no more cells than `MOST`."""
MOST = 1 << 18
"""Largest number of cells, but for one row of pixels each."""
SAMPLED = 17
"""Number of positions along each axis at which the variation is measured."""
REACH = 1000.0
"""Metres between the positions of a central difference, unless a pixel is larger."""
_RADIUS = 6_371_000.0
_POINTS = 1 << 16  # transformed at a time

Floats = NDArray[np.float64]


def pixel_areas(grid: Grid) -> PixelAreas | None:
    """Ground area of each pixel of a grid; None where it has no CRS.

    A CRS that has no latitudes, such as that of a building site, is a plane, and its areas are those of the plane.
    """
    if grid.crs is None:
        return None
    return _pixel_areas(grid.shape, grid.transform, grid.crs, grid.metres_per_unit)


def plane_area(grid: Grid) -> float | None:
    """Area of a pixel in the plane of a projection, in square metres; None where the grid is geographic or no plane."""
    if grid.crs is None or grid.metres_per_unit is None:
        return None
    a, b, _, d, e, _ = grid.transform
    return abs(a * e - b * d) * grid.metres_per_unit**2


@lru_cache(maxsize=8)
def _pixel_areas(
    shape: tuple[int, int], affine: Transform, wkt: str, metres_per_unit: float | None
) -> PixelAreas | None:
    crs = CRS.from_wkt(wkt)
    base, ellipsoid = geodetic_base(crs), ellipsoid_of(crs)
    a, b, _, d, e, f = affine
    if base is None or ellipsoid is None:
        plane = None if metres_per_unit is None else abs(a * e - b * d) * metres_per_unit**2
        return None if plane is None else PixelAreas.of(shape, np.array([[plane]]))
    if crs.is_geographic and not (b or d):
        radians = crs.units_factor[1]
        return PixelAreas.of((1, shape[1]), _rows(shape[0], (f, e, a), radians, ellipsoid)[:, None])
    unit = crs.units_factor[1] * (_RADIUS if crs.is_geographic else 1.0)
    ground = _Ground(affine, crs, base, ellipsoid, unit)
    cell = _cell(shape, ground)
    y, x = (_middles(size, side) for size, side in zip(shape, cell, strict=True))
    return PixelAreas.of(cell, ground.density(y, x))


def _middles(size: int, side: int) -> Floats:
    """Middle of each cell along an axis; of the last one, of the part that lies in the image."""
    starts = np.arange(0, size, side, dtype=np.float64)
    return np.asarray((starts + np.minimum(starts + side, size)) / 2, np.float64)


def _rows(height: int, line: tuple[float, float, float], radians: float, ellipsoid: tuple[float, float]) -> Floats:
    """Area of a pixel in each row of a north-up geographic grid; nothing lies beyond the poles."""
    (f, e, a), (axis, eccentricity2) = line, ellipsoid
    bounds = np.clip((f + e * np.arange(height + 1, dtype=np.float64)) * radians, -np.pi / 2, np.pi / 2)
    zones = axis**2 * abs(a) * radians * authalic(bounds, eccentricity2)
    return np.asarray(np.abs(np.diff(zones)), np.float64)


def _cell(shape: tuple[int, int], ground: _Ground) -> tuple[int, int]:
    """Sides of cells, powers of two, in which areas vary by at most `EVEN`; larger where those would be too many."""
    y, x = (np.linspace(0.5, size - 0.5, min(size, SAMPLED)) for size in shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(ground.density(y, x))
        changes = [np.abs(np.diff(logs, axis=axis)) for axis in (0, 1)]
    sides = []
    for axis, (at, steps) in enumerate(zip((y, x), changes, strict=True)):
        steepest = steps[np.isfinite(steps)].max(initial=0.0) / (at[1] - at[0]) if len(at) > 1 else 0.0
        even = EVEN / steepest if steepest > 0 else shape[axis]
        sides.append(2 ** floor(log2(min(max(1.0, even), shape[axis]))))
    while ceil(shape[0] / sides[0]) * ceil(shape[1] / sides[1]) > max(MOST, *shape):
        shorter = int(sides[1] < sides[0])
        sides[shorter] *= 2
    return sides[0], sides[1]


class _Ground:
    """The Earth, or another body, below the pixels of a grid."""

    def __init__(
        self, affine: Transform, crs: CRS, base: CRS, ellipsoid: tuple[float, float], metres_per_unit: float
    ) -> None:
        """Take a CRS and its geographic base, and the ellipsoid as semi-major axis and squared eccentricity."""
        self._affine, self._crs, self._base, self._ellipsoid = affine, crs, base, ellipsoid
        a, b, _, d, e, _ = affine
        sides = np.hypot(a, d) * metres_per_unit, np.hypot(b, e) * metres_per_unit
        self._reach = [max(1.0, REACH / side) for side in sides]
        """Pixels between the positions of a difference, along a row and along a column."""
        self._whole = ellipsoid[0] ** 2 * float(authalic(np.array(np.pi / 2), ellipsoid[1]))
        """Squared radius of the authalic sphere."""

    def density(self, y: Floats, x: Floats) -> Floats:
        """Square metres of a pixel `(len(y), len(x))` at positions in pixels; 0 where the CRS has no place."""
        rows, columns = (each.ravel() for each in np.meshgrid(y, x, indexing="ij"))
        found = self._determinants(rows, columns, self._reach)
        lost = np.flatnonzero(~np.isfinite(found))  # perhaps only the reach leaves the world
        if len(lost):
            found[lost] = self._determinants(rows[lost], columns[lost], [1.0, 1.0])
        return np.where(np.isfinite(found), found, 0.0).reshape(len(y), len(x))

    def _determinants(self, y: Floats, x: Floats, reach: list[float]) -> Floats:
        along, down = reach[0] / 2, reach[1] / 2
        columns = np.concatenate([x - along, x + along, x, x])
        rows = np.concatenate([y, y, y - down, y + down])
        longitude, latitude = self._geographic(rows, columns).reshape(2, 4, -1)
        with np.errstate(invalid="ignore"):  # infinite where there is no place
            sine = authalic(latitude, self._ellipsoid[1]) * self._ellipsoid[0] ** 2 / self._whole
            pole = np.where(sine.mean(axis=0) < 0, -1.0, 1.0)  # the nearer one is the middle of the map
            radius = np.sqrt(2 * self._whole * np.maximum(0.0, 1 - pole * sine))
            u, v = radius * np.cos(longitude), radius * np.sin(longitude)
            crossed = (u[1] - u[0]) * (v[3] - v[2]) - (v[1] - v[0]) * (u[3] - u[2])
        return np.asarray(np.abs(crossed) / (reach[0] * reach[1]), np.float64)

    def _geographic(self, y: Floats, x: Floats) -> Floats:
        """Longitudes and latitudes `(2, n)` in radians, infinite where there are none."""
        a, b, c, d, e, f = self._affine
        world = np.stack([a * x + b * y + c, d * x + e * y + f])
        with Env():
            parts = [self._transformed(world[:, k : k + _POINTS]) for k in range(0, world.shape[1], _POINTS)]
        return np.asarray(np.concatenate(parts, axis=1) * self._base.units_factor[1], np.float64)

    def _transformed(self, world: Floats) -> Floats:
        try:
            return np.array(transform(self._crs, self._base, *world.tolist()), np.float64)
        except (CPLE_BaseError, RasterioError):  # of one point: the others have a place
            count = world.shape[1]
            if count == 1:
                return np.full((2, 1), np.inf)
            halves = world[:, : count // 2], world[:, count // 2 :]
            return np.concatenate([self._transformed(half) for half in halves], axis=1)
