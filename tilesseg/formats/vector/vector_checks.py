"""Checks of polygons before the first tile: libraries, classes, and coordinates that the format has."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid

NEEDED = ("shapely", "pyogrio", "pyarrow")


def check(mask: Mask, path: Path, *, classes: Sequence[str] | None = None, canvas: str | None = None, **_: Any) -> None:
    """Refuse polygons that could not be written; `canvas` is None for formats without this option.

    Raises:
        FormatError: a library is missing, a class is unknown, or the format has no coordinates for the polygons.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        cause = f"{', '.join(missing)} is not installed"
        raise FormatError(cannot(f"write {path.name}", cause, "install tilesseg[vector]"))
    names = [meant.name for meant in mask.classes]
    for name in classes or ():
        if name not in names:
            cause = f"the mask has the classes {', '.join(names)}"
            raise FormatError(cannot(f"write polygons of class {name}", cause, "choose among these"))
    if canvas is not None:
        _check_geojson(mask.grid, path, canvas)
    elif path.suffix == ".parquet" and mask.grid.crs is not None:
        projjson(mask.grid.crs, path)


def projjson(crs: str, path: Path) -> dict[str, Any]:
    """CRS as PROJJSON, as GeoParquet stores it.

    Raises:
        FormatError: the CRS has no PROJJSON.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        fields: dict[str, Any] = CRS.from_wkt(crs).to_dict(projjson=True)
    except CRSError:
        fields = {}
    if not fields:
        cause = f"it stores the CRS as PROJJSON, and {crs[:60]}… has none"
        raise FormatError(cannot(f"write {path.name}", cause, "write a gpkg instead"))
    return fields


def _check_geojson(grid: Grid, path: Path, canvas: str) -> None:
    if grid.crs is None:
        if canvas == "full" and (grid.transform[1] or grid.transform[3]):
            cause = "canvas full counts pixels along the axes of a slide, and the image is rotated"
            raise FormatError(cannot(f"write {path.name}", cause, "leave canvas out"))
        return
    if canvas == "full":
        cause = "canvas full counts pixels of a slide, and the image has a CRS"
        raise FormatError(cannot(f"write {path.name}", cause, "leave canvas out"))
    for latitude, pole in ((90.0, "north"), (-90.0, "south")):
        if _contains(grid, latitude, path):
            cause = f"polygons round the {pole} pole have no longitudes and latitudes"
            raise FormatError(cannot(f"write {path.name}", cause, "write a gpkg instead"))


def _contains(grid: Grid, latitude: float, path: Path) -> bool:
    """Whether a pole lies inside the grid; never where the projection has no coordinates for the pole."""
    from rasterio._err import CPLE_BaseError, CPLE_NotSupportedError
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        x, y = transform("OGC:CRS84", grid.crs, [0.0], [latitude])
    except CPLE_NotSupportedError:
        cause = f"it stores longitudes and latitudes, and the CRS {str(grid.crs)[:40]}… has none"
        raise FormatError(cannot(f"write {path.name}", cause, "write a gpkg instead")) from None
    except (RasterioError, CPLE_BaseError):
        return False
    a, b, c, d, e, f = grid.transform
    away = np.array([x[0] - c, y[0] - f])
    if grid.unit == "degree" or not np.isfinite(away).all():
        return False  # in degrees a pole is a whole row, along which longitudes differ
    column, row = np.linalg.solve(np.array([[a, b], [d, e]]), away)
    return bool(0 < row < grid.height and 0 < column < grid.width)
