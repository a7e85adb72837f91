"""A region of interest that the user draws: a mask image (see `roi_raster`), or polygons in GeoJSON.

Polygons lie in pixels of the image's full resolution, counted from its top-left corner as QuPath counts them, where the
image has no CRS; else in longitude and latitude (RFC 7946), or in the CRS that the file's own `crs` names.
"""

from __future__ import annotations

import warnings
from math import ceil

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.polygon_file import Polygon, named_crs, parsed_geojson, placing, polygons_of
from tilesseg.formats.reading.roi_raster import FINEST, ImagePlace, read_raster
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import Region


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
    data = parsed_geojson(path)
    try:
        polygons = list(polygons_of(data, path))
    except RecursionError:
        because = "its features are nested too deeply"
        raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again")) from None
    if not polygons:
        raise SourceError(
            f"{path} holds no polygon for the region of interest; draw at least one, or leave input.tissue out"
        )
    place = placing(path, named_crs(path, data), grid=grid, native=native, image=image)
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
