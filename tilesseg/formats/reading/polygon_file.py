"""Polygons of a file: read from GeoJSON, and placed on the pixels of an image.

Polygons lie in pixels of the image's full resolution, counted from its top-left corner as QuPath counts them, where the
image has no CRS; else in longitude and latitude (RFC 7946), or in the CRS that the file itself names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.crs import crs_name
from tilesseg.raster.grid import Grid

Ring = NDArray[np.float64]
"""Positions `(n, 2)`, each `(x, y)`."""
Polygon = list[Ring]
"""Outline and holes."""


def parsed_geojson(path: str) -> Any:
    """Plain data of a GeoJSON file.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SourceError(cannot(f"read {path}", error, "correct its path")) from error
    except RecursionError:
        raise SourceError(cannot(f"read {path} as GeoJSON", "it is nested too deeply", "export it again")) from None
    except ValueError as error:
        raise SourceError(cannot(f"read {path} as GeoJSON", error, "correct or export it again")) from error


def polygons_of(data: Any, path: str) -> Iterator[Polygon]:
    """Polygons of any GeoJSON object, and of QuPath's bare lists; points and lines have no inside."""
    if isinstance(data, list):  # as QuPath writes it
        for element in data:
            yield from polygons_of(element, path)
        return
    kind = data.get("type") if isinstance(data, dict) else type(data).__name__
    try:
        match kind:
            case "FeatureCollection":
                yield from polygons_of(list(data["features"]), path)
            case "Feature":
                yield from polygons_of(data["geometry"], path) if data["geometry"] is not None else ()
            case "GeometryCollection":
                yield from polygons_of(list(data["geometries"]), path)
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
        polygon = [_closed(ring) for ring in polygon]
        if polygon and len(polygon[0]) > 3:
            yield [ring for ring in polygon if len(ring) > 3]


def _closed(ring: Ring) -> Ring:
    """A ring that ends where it begins; many programs leave its last position out."""
    return ring if not len(ring) or (ring[0] == ring[-1]).all() else np.concatenate([ring, ring[:1]])


def placing(path: str, named: CRS | None, *, grid: Grid, native: Grid, image: str) -> Callable[[Ring], Ring]:
    """Function from a file's coordinates to pixels of the grid, as `(x, y)`.

    Args:
        path: path of the file, for the refusal.
        named: CRS of the file; None: longitude and latitude, or pixels where the image has no CRS.
        grid: grid that is read.
        native: the image's own finest grid, whose pixels are counted where it has no CRS.
        image: name of the image in the refusal.

    Raises:
        SourceError: the CRS of file and image do not fit; the function, for a position that has no place.
    """
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


def named_crs(path: str, data: Any) -> CRS | None:
    """The CRS that a file names in a `crs` member, which was in use before RFC 7946."""
    member = data.get("crs") if isinstance(data, dict) else None
    if member is None:
        return None
    try:
        return CRS.from_user_input(member["properties"]["name"])
    except (CRSError, KeyError, TypeError, ValueError) as error:
        because = f"its crs member {json.dumps(member)[:80]} names no known CRS"
        raise SourceError(cannot(f"place {path}", because, "name it as EPSG:4326, or leave it out")) from error
