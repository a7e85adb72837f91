"""What can be refused before the first tile: a missing library, an unknown class, a place the format cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tilesseg.errors import FormatError
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid

NEEDED = ("shapely", "pyogrio", "pyarrow")


def check(mask: Mask, path: Path, *, classes: Sequence[str] | None = None, canvas: str | None = None, **_: Any) -> None:
    """Refuse what could not be written later; `canvas` is None where the format has none.

    Raises:
        FormatError: as said.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise FormatError(f"{path.name} needs {', '.join(missing)}, which is not installed; install tilesseg[vector]")
    names = [one.name for one in mask.classes]
    for name in classes or ():
        if name not in names:
            raise FormatError(f"polygons are asked for class {name}, and the mask has {', '.join(names)}; take these")
    if canvas is not None:
        _check_geojson(mask.grid, path, canvas)
    elif path.suffix == ".parquet" and mask.grid.crs is not None:
        projjson(mask.grid.crs, path)


def projjson(crs: str, path: Path) -> dict[str, Any]:
    """A CRS as GeoParquet says it.

    Raises:
        FormatError: it cannot be said so.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        said: dict[str, Any] = CRS.from_wkt(crs).to_dict(projjson=True)
    except CRSError:
        said = {}
    if not said:
        raise FormatError(f"{path.name} needs the CRS as PROJJSON, and {crs[:60]}… has none; write a gpkg instead")
    return said


def _check_geojson(grid: Grid, path: Path, canvas: str) -> None:
    if grid.crs is None:
        if canvas == "full" and (grid.transform[1] or grid.transform[3]):
            raise FormatError(
                f"canvas full counts pixels along a slide's axes, and the image of {path.name} is rotated"
            )
        return
    if canvas == "full":
        raise FormatError(
            f"canvas full counts pixels of a slide, and the image of {path.name} has a CRS; leave canvas out"
        )
    for latitude, pole in ((90.0, "north"), (-90.0, "south")):
        if _contains(grid, latitude, path):
            raise FormatError(
                f"{path.name} cannot hold polygons round the {pole} pole in longitudes and latitudes; write a gpkg"
            )


def _contains(grid: Grid, latitude: float, path: Path) -> bool:
    """Whether a pole lies inside the grid; a projection that cannot say where it is has none."""
    from rasterio._err import CPLE_BaseError, CPLE_NotSupportedError
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        x, y = transform("OGC:CRS84", grid.crs, [0.0], [latitude])
    except CPLE_NotSupportedError:
        raise FormatError(
            f"{path.name} holds longitudes and latitudes, and the CRS {str(grid.crs)[:40]}… has none; write a gpkg"
        ) from None
    except (RasterioError, CPLE_BaseError):
        return False
    a, b, c, d, e, f = grid.transform
    away = np.array([x[0] - c, y[0] - f])
    if grid.unit == "degree" or not np.isfinite(away).all():
        return False  # in degrees a pole is a whole row, along which longitudes differ
    column, row = np.linalg.solve(np.array([[a, b], [d, e]]), away)
    return bool(0 < row < grid.height and 0 < column < grid.width)
