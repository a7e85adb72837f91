"""Coordinates of polygons: from pixels of the mask to the world, longitude and latitude, or pixels of the slide."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from shapely.affinity import translate
from shapely.geometry.polygon import orient

from tilesseg.errors import FormatError, cannot, joined_lines
from tilesseg.formats.reading.crs import to_lonlat
from tilesseg.formats.vector.features import Geometries
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid

DENSITY = 32
"""Longest straight line, in pixels, that is projected to longitude and latitude without further points."""
_POLYGON = 3
"""Type id of a polygon in shapely."""


def in_world(geometries: Geometries, grid: Grid, *, oblique: bool = False) -> Geometries:
    """Geometries in the CRS of a grid, or in the grid's unit where it has no CRS; shells counter-clockwise.

    Args:
        geometries: geometries in pixels.
        grid: grid of the pixels.
        oblique: whether lines leave the edges of pixels; then rounding could make them cross.
    """
    rotated = bool(grid.transform[1] or grid.transform[3])
    placed = shapely.transform(geometries, lambda xy: _world(xy, grid))
    return _counter_clockwise(_valid(placed) if rotated or oblique else placed)


def in_slide(geometries: Geometries, mask: Mask, canvas: str, *, oblique: bool = False) -> Geometries:
    """Geometries in pixels of the image's finest level, to a ten-thousandth, from the corner that `canvas` names.

    Args:
        geometries: geometries in pixels of the mask.
        mask: the mask.
        canvas: `bounds` for the mask's corner, `full` for the slide's origin.
        oblique: see `in_world`.
    """
    image = mask.image or mask.grid
    y, x = (_exact(own / fine) for own, fine in zip(mask.grid.resolution, image.resolution, strict=True))
    shift = np.zeros(2)
    if canvas == "full":
        shift = np.array([mask.grid.transform[2], mask.grid.transform[5]]) / image.resolution[::-1]
    over, under = np.array([[x.numerator, y.numerator], [x.denominator, y.denominator]], np.float64)
    placed = shapely.transform(geometries, lambda xy: np.round(xy * over / under + shift, 4))
    return _counter_clockwise(_valid(placed) if oblique else placed)


def in_lonlat(geometries: Geometries, grid: Grid) -> Geometries:
    """Geometries in longitude and latitude to 1e-9 degrees, cut at the antimeridian; shells counter-clockwise.

    Raises:
        FormatError: a corner has no longitude and latitude, or a polygon surrounds a pole.
    """
    projected = grid.unit != "degree"
    if projected:
        geometries = shapely.segmentize(geometries, DENSITY)
    placed = shapely.transform(geometries, lambda xy: _lonlat(xy, grid))
    if projected:
        west, _, east, _ = shapely.bounds(placed).T
        for k in np.flatnonzero(east - west > 180):
            placed[k] = _unwrapped(placed[k])
    west, _, east, _ = shapely.bounds(placed).T
    for k in np.flatnonzero((west < -180) | (east > 180)):
        placed[k] = _cut(placed[k])
    return _counter_clockwise(_valid(shapely.transform(placed, lambda xy: np.round(xy, 9))))


def _world(xy: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    a, b, c, d, e, f = grid.transform
    x, y = xy.T
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def _lonlat(xy: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    world = _world(xy, grid)
    try:
        lonlat = np.array(to_lonlat(world.tolist(), grid.crs)).reshape(-1, 2)
    except (CPLE_BaseError, RasterioError) as error:
        cause = f"the CRS has no longitudes and latitudes for it ({joined_lines(error)})"
        raise FormatError(cannot("write a polygon", cause, "write a gpkg instead")) from error
    if not np.isfinite(lonlat).all():
        x, y = world[~np.isfinite(lonlat).all(axis=1)][0]
        cause = f"the point ({x}, {y}) of the mask's CRS has no longitude and latitude"
        raise FormatError(cannot("write a polygon", cause, "write a gpkg instead"))
    if grid.unit == "degree":  # longitudes of a polygon continue beyond 180, as those of the grid may
        lonlat[:, 0] -= 360 * np.round((lonlat[:, 0] - world[:, 0]) / 360)
    return lonlat


def _exact(ratio: float) -> Fraction:
    """Ratio of two pixel sizes as a fraction, without the rounding error of a quotient such as 0.6 / 0.2."""
    near = Fraction(ratio).limit_denominator(1000)
    return near if abs(float(near) - ratio) < 1e-9 * ratio else Fraction(ratio)


def _unwrapped(polygon: Any) -> Any:
    """Polygon over the antimeridian, with longitudes that continue beyond 180."""
    shell, *holes = (np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors))
    for ring in (shell, *holes):
        ring[:, 0] = np.unwrap(ring[:, 0], period=360)
        if abs(ring[-1, 0] - ring[0, 0]) > 180:
            cause = "it surrounds a pole, and GeoJSON has no such polygons"
            raise FormatError(cannot("write a polygon", cause, "write a gpkg instead"))
    middle = (shell[:, 0].min() + shell[:, 0].max()) / 2
    for ring in holes:
        ring[:, 0] += 360 * round((middle - (ring[:, 0].min() + ring[:, 0].max()) / 2) / 360)
    return shapely.Polygon(shell, holes)


def _cut(polygon: Any) -> Any:
    """Polygon whose longitudes exceed ±180, as several polygons within these limits (RFC 7946, 3.1.9)."""
    parts = []
    for turn in (-1, 0, 1):
        strip = shapely.box(360 * turn - 180, -91, 360 * turn + 180, 91)
        parts.append(translate(shapely.intersection(shapely.make_valid(polygon), strip), -360 * turn))
    return _polygonal(shapely.union_all(parts))


def _valid(geometries: Geometries) -> Geometries:
    for k in np.flatnonzero(~shapely.is_valid(geometries)):
        geometries[k] = _polygonal(shapely.make_valid(geometries[k]))
    return geometries


def _polygonal(geometry: Any) -> Any:
    """Polygons of a geometry, without its lines and points, as one polygon or a multipolygon."""
    parts = [
        orient(part)
        for member in shapely.get_parts([geometry])
        for part in shapely.get_parts([member])
        if part.geom_type == "Polygon" and not part.is_empty
    ]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def _counter_clockwise(geometries: Geometries) -> Geometries:
    turned = (shapely.get_type_id(geometries) == _POLYGON) & ~shapely.is_ccw(shapely.get_exterior_ring(geometries))
    geometries[turned] = shapely.reverse(geometries[turned])
    return geometries
