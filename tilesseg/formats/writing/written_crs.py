"""The CRS of a product is that of its image: tried before the first tile, compared before the product is published."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.reading.crs import crs_difference, round_trip
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid


def check_geotiff_crs(content: Any, path: Path, **_: Any) -> None:
    """Refuse, before the first tile, a GeoTIFF that could not keep the CRS of its mask or scores.

    Raises:
        FormatError: a GeoTIFF of one pixel comes back with another CRS, or none.
    """
    grid: Grid = content.grid
    if grid.crs is None:
        return
    kind = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
    try:
        with QUIET, warnings.catch_warnings(), rasterio.Env(), MemoryFile() as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**kind, crs=grid.crs, transform=rasterio.Affine(*grid.transform)) as file:
                file.write(np.zeros((1, 1, 1), np.uint8))
            with memory.open() as file:
                written = file.crs
    except (CRSError, RasterioError, CPLE_BaseError) as error:
        raise FormatError(cannot(f"write {path.name}", error, "give the image a CRS that GDAL knows")) from error
    refuse_other_crs(written, grid, path)


def refuse_other_crs_of(file: Path, grid: Grid, path: Path) -> None:
    """Refuse to publish a written GeoTIFF, still at `file`, whose CRS is not that of its grid.

    Raises:
        FormatError: it has another CRS, or none.
    """
    if grid.crs is None:
        return
    with QUIET, warnings.catch_warnings(), rasterio.Env():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(file) as dataset:
            written = dataset.crs
    refuse_other_crs(written, grid, path)


def refuse_other_crs(written: CRS | None, grid: Grid, path: Path) -> None:
    """Refuse a product whose CRS, as it reads back, is not that of its grid.

    Raises:
        FormatError: it is another one, or there is none.
    """
    difference = crs_difference(grid.crs, round_trip(written) if written else None)
    if difference is not None:
        cause = f"its CRS would read back as another one: {difference}"
        raise FormatError(cannot(f"write {path.name}", cause, "warp the image to a CRS with an EPSG code first"))
