"""A region of interest that the user draws: a mask image (see `roi_raster`), or polygons in GeoJSON.

Polygons lie in pixels of the image's full resolution, counted from its top-left corner as QuPath counts them, where the
image has no CRS; else in longitude and latitude (RFC 7946), or in the CRS that the file's own `crs` names.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.crs import crs_name
from tilesseg.formats.reading.roi_raster import FINEST, ImagePlace, read_raster
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import Region

Ring = NDArray[np.float64]
"""Positions `(n, 2)`, each `(x, y)`."""
Polygon = list[Ring]
"""Outline and holes."""


def read_region(
    path: str, *, grid: Grid, native: Grid, stride: int, image: str, canvas: tuple[int, int] | None = None
) -> Region:
    """The region of interest of a file.

    Args:
        path: a file `.geojson` or `.json`; any other is opened as a raster.
        grid: the grid that is read.
        native: the image's own finest grid.
        stride: side of the cells that it chooses.
        image: name of the image in the refusal.
        canvas: shape of the canvas of which the image is a part, see `Source.canvas`.

    Raises:
        SourceError: it cannot be read, holds no polygon, is in a CRS that does not fit, or touches nothing of the
            image.
    """
    if path.lower().endswith((".geojson", ".json")):
        return _drawn(path, grid=grid, native=native, stride=stride, image=image)
    return read_raster(path, ImagePlace(image, grid, native, canvas, _step(grid, stride)))


def _drawn(path: str, *, grid: Grid, native: Grid, stride: int, image: str) -> Region:
    """Region of polygons, on pixels that divide a cell evenly."""
    data = _parsed(path)
    try:
        polygons = list(_polygons(data, path))
    except RecursionError:
        because = "its features are nested too deeply"
        raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again")) from None
    if not polygons:
        raise SourceError(
            f"{path} holds no polygon for the region of interest; draw at least one, or leave input.tissue out"
        )
    place = _placing(path, data, grid=grid, native=native, image=image)
    placed = [[place(ring) for ring in polygon] for polygon in polygons]
    step = _step(grid, stride)
    mask = _burnt(placed, (ceil(grid.height / step), ceil(grid.width / step)), step)
    if not mask.any():
        x, y = np.concatenate([polygon[0] for polygon in placed]).T
        raise SourceError(
            f"{path} touches nothing of {image}: its polygons lie in columns {x.min():.0f} to {x.max():.0f} and rows "
            f"{y.min():.0f} to {y.max():.0f} of an image of {grid.width} × {grid.height}; check their coordinates"
        )
    return Region(mask, (step, step))


def _step(grid: Grid, stride: int) -> float:
    """Side of a region's pixel: a part of a cell, so that a cell has eight of them along a side if that is not many."""
    most = -(-max(grid.shape) // stride)
    return stride / next((parts for parts in (8, 4, 2) if most * parts <= FINEST), 1)


def _burnt(polygons: list[Polygon], shape: tuple[int, int], step: float) -> NDArray[np.bool_]:
    """Every pixel `(y, x)` that a polygon touches."""
    shapes = [{"type": "Polygon", "coordinates": [(ring / step).tolist() for ring in polygon]} for polygon in polygons]
    with QUIET, warnings.catch_warnings(), rasterio.Env():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return np.asarray(rasterize(shapes, shape, all_touched=True, dtype="uint8"), np.bool_)


def _parsed(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SourceError(cannot(f"read {path}", error, "correct input.tissue")) from error
    except RecursionError:
        raise SourceError(cannot(f"read {path} as GeoJSON", "it is nested too deeply", "export it again")) from None
    except ValueError as error:
        raise SourceError(cannot(f"read {path} as GeoJSON", error, "correct or export it again")) from error


def _polygons(data: Any, path: str) -> Iterator[Polygon]:
    """Polygons of any GeoJSON object, and of QuPath's bare lists; points and lines have no inside."""
    if isinstance(data, list):  # as QuPath writes it
        for element in data:
            yield from _polygons(element, path)
        return
    kind = data.get("type") if isinstance(data, dict) else type(data).__name__
    try:
        match kind:
            case "FeatureCollection":
                yield from _polygons(list(data["features"]), path)
            case "Feature":
                yield from _polygons(data["geometry"], path) if data["geometry"] is not None else ()
            case "GeometryCollection":
                yield from _polygons(list(data["geometries"]), path)
            case "Polygon":
                yield from _rings([data["coordinates"]])
            case "MultiPolygon":
                yield from _rings(data["coordinates"])
            case "Point" | "MultiPoint" | "LineString" | "MultiLineString":
                return
            case _:
                because = f"it holds a {kind}, not features or geometries"
                raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again"))
    except (KeyError, TypeError, ValueError) as error:
        because = f"a {kind} is incomplete ({type(error).__name__}: {error})"
        raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again")) from error


def _rings(coordinates: Any) -> Iterator[Polygon]:
    """Polygons with at least three corners.

    Raises:
        ValueError: a position is not finite or has no two numbers.
    """
    for rings in coordinates:
        polygon = [np.array([position[:2] for position in ring], np.float64).reshape(-1, 2) for ring in rings]
        if not all(np.isfinite(ring).all() for ring in polygon):
            raise ValueError("a position is not finite")
        if polygon and len(polygon[0]) > 3:
            yield [ring for ring in polygon if len(ring) > 3]


def _placing(path: str, data: Any, *, grid: Grid, native: Grid, image: str) -> Callable[[Ring], Ring]:
    """Function from the file's coordinates to pixels of the grid, as `(x, y)`."""
    named = _crs(path, data)
    if grid.crs is None:
        if named is not None:
            raise SourceError(
                f"{path} is in {crs_name(named.to_wkt())} and {image} has no CRS; give pixels of its full resolution, "
                "without a crs member"
            )
        ratio = np.array([native.resolution[axis] / grid.resolution[axis] for axis in (1, 0)])
        return lambda ring: ring * ratio
    target, source = CRS.from_wkt(grid.crs), named or CRS.from_user_input("OGC:CRS84")
    back = ~rasterio.Affine(*grid.transform)

    def place(ring: Ring) -> Ring:
        x, y = _transformed(ring, source, target)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise SourceError(
                f"{path}: {ring[0].tolist()} in {crs_name(source.to_wkt())} has no place in {crs_name(grid.crs)}, the "
                f"CRS of {image}; give longitude and latitude, or name the CRS in a crs member"
            )
        return np.stack([back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f], axis=1)

    return place


def _transformed(ring: Ring, source: CRS, target: CRS) -> NDArray[np.float64]:
    """X and y `(2, n)` in another CRS, infinite outside its area."""
    try:
        with rasterio.Env():
            return np.array(transform(source, target, *ring.T.tolist()), np.float64)
    except (CPLE_BaseError, RasterioError):  # PROJ has other errors for other projections
        return np.full((2, len(ring)), np.inf)


def _crs(path: str, data: Any) -> CRS | None:
    """The CRS that a file names in a `crs` member, which was in use before RFC 7946."""
    member = data.get("crs") if isinstance(data, dict) else None
    if member is None:
        return None
    try:
        return CRS.from_user_input(member["properties"]["name"])
    except (CRSError, KeyError, TypeError, ValueError) as error:
        because = f"its crs member {json.dumps(member)[:80]} names no known CRS"
        raise SourceError(cannot(f"place {path}", because, "name it as EPSG:4326, or leave it out")) from error
