"""Images as GeoTIFF: generated scenes for the demo, the workflows and the tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from tilesseg.atomic_write import published
from tilesseg.raster.grid import IDENTITY, Grid

TILE = 512


def write_image(
    path: Path,
    *,
    grid: Grid,
    rows: Iterable[NDArray[Any]],
    names: Sequence[str],
    dtype: str,
    nodata: float | None = None,
) -> Path:
    """Write a tiled GeoTIFF, compressed by DEFLATE, from strips of rows, under a temporary name until it is complete.

    Args:
        path: the file to write.
        grid: shape and georeference of the image.
        rows: arrays `(channel, rows, width)` of `dtype`, top to bottom; heights that are multiples of 512 are fastest.
        names: descriptions of the channels.
        dtype: data type of the file.
        nodata: value that marks invalid pixels.
    """
    place = {} if grid.transform == IDENTITY else {"transform": rasterio.Affine(*grid.transform)}
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(names),
        "dtype": dtype,
        "crs": grid.crs,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 3 if np.issubdtype(np.dtype(dtype), np.floating) else 2,
        "bigtiff": "if_safer",
        "num_threads": "all_cpus",
    }
    with published(path) as temporary, rasterio.open(temporary, "w", **profile, **place) as file:
        file.descriptions = tuple(names)
        y = 0
        for strip in rows:
            file.write(strip, window=RasterWindow(0, y, grid.width, strip.shape[1]))
            y += strip.shape[1]
    return path


def utm_grid(shape: tuple[int, int], *, resolution: float, zone: int = 32) -> Grid:
    """North-up grid in a northern UTM zone, for generated scenes; `resolution` in metres."""
    transform = (resolution, 0.0, 600_000.0, 0.0, -resolution, 5_400_000.0)
    crs = rasterio.CRS.from_epsg(32600 + zone).to_wkt()
    return Grid(*shape, transform=transform, crs=crs, unit="metre", metres_per_unit=1.0)
