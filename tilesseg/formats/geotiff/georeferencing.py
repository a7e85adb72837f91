"""Georeference of a raster file: its transform and CRS, ground control points and RPCs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite
from typing import Any

from rasterio.errors import CRSError

from tilesseg.errors import SourceError, cannot, joined_lines
from tilesseg.formats.geotiff.raster_file import settled
from tilesseg.formats.reading.crs import round_trip, unit_of
from tilesseg.formats.reading.proj_data import data_note
from tilesseg.formats.reading.stated_size import (
    FoundSize,
    StatedSize,
    find_size,
    ground_doubt,
    number_above_0,
    sides_of,
)
from tilesseg.raster.grid import IDENTITY, ControlPoint, Grid, Placement, Transform


def find_place(dataset: Any) -> tuple[Grid, tuple[str, ...], FoundSize]:
    """Grid of an open dataset, a sentence on each unusual fact about it, and its size in micrometres if it has one.

    Raises:
        SourceError: its geotransform is not made of finite numbers.
    """
    transform, transform_note = _transform(dataset)
    placement = _placement(dataset, transform)
    grid = Grid(dataset.height, dataset.width, transform, unit="pixel" if transform == IDENTITY else "unknown")
    grid, crs_note = _with_crs(dataset, replace(grid, placement=placement))
    nowhere = grid.crs is None and grid.unit == "pixel" and placement is None
    size = find_size([_resolution(dataset)]) if nowhere else FoundSize()
    if size.mpp is not None:
        y, x = size.mpp
        grid = replace(grid, transform=(x, 0.0, 0.0, 0.0, y, 0.0), unit="micrometre", metres_per_unit=1e-6)
        transform_note = f"its pixels are {x:.4g} µm wide by {size.source}"
    notes = (crs_note, transform_note, ground_doubt(grid), *size.notes, *_placement_notes(placement))
    return grid, tuple(note for note in notes if note), size


_TAGS = tuple(f"TIFFTAG_{name}" for name in ("YRESOLUTION", "XRESOLUTION", "RESOLUTIONUNIT"))
_TAG_UNITS = {"2": 25400.0, "3": 10000.0}  # inch, centimetre


def _resolution(dataset: Any) -> StatedSize | None:
    """Size of a pixel by the resolution tags of a TIFF, None where it has none in a unit of length."""
    tags = settled(lambda: dataset.tags())
    y, x, unit = (str(tags.get(name, "")) for name in _TAGS)
    length, pixels = _TAG_UNITS.get(unit[:1]), sides_of(number_above_0(y), number_above_0(x))
    if length is None or pixels is None:
        return None
    return StatedSize((length / pixels[0], length / pixels[1]), "the TIFF's resolution", printed=True)


def _transform(dataset: Any) -> tuple[Transform, str | None]:
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    if not all(map(isfinite, (a, b, c, d, e, f))):
        because = f"its geotransform {(a, b, c, d, e, f)} has values that are no finite numbers"
        raise SourceError(cannot(f"place {dataset.name}", because, "correct it, for instance with gdal_edit -a_ullr"))
    if a * e - b * d == 0:
        return IDENTITY, f"its geotransform {(a, b, c, d, e, f)} maps no area: ignored, pixel coordinates are used"
    transform = (a, b, c, d, e, f)
    if transform == IDENTITY:
        return transform, "no geotransform: pixel coordinates are used"
    if b or d:
        return transform, "rotated: rows do not run along the axes of the coordinate system; kept as it is"
    return transform, "south-up: the first row is the southernmost; kept as it is" if e > 0 else None


def _with_crs(dataset: Any, grid: Grid) -> tuple[Grid, str | None]:
    """The grid with its CRS, and a note where it has none."""
    try:
        crs = dataset.crs
        if crs:
            unit, metres = unit_of(crs)
            return replace(grid, crs=round_trip(crs), unit=unit, metres_per_unit=metres), data_note()
    except CRSError as error:
        return grid, f"its coordinate reference system cannot be understood: {joined_lines(error)}"
    if grid.transform != IDENTITY:
        return grid, "no coordinate reference system, or one that GDAL cannot understand: the transform is kept"
    if grid.placement is not None:
        return grid, None
    return grid, "no coordinate reference system"


def _placement(dataset: Any, transform: Transform) -> Placement | None:
    """Points where nothing else places the image: a GeoTIFF holds a transform or points, not both. RPCs always."""
    points, crs = settled(lambda: dataset.gcps) if transform == IDENTITY else ([], None)
    rpcs = settled(lambda: dataset.tags(ns="RPC"))
    if not points and not rpcs:
        return None
    return Placement(
        points=tuple(ControlPoint(point.row, point.col, _world(point), point.id or "") for point in points),
        crs=round_trip(crs) if crs else None,
        rpcs=dict(rpcs),
    )


def _world(point: Any) -> tuple[float, float, float]:
    return float(point.x), float(point.y), float(point.z or 0)


def _placement_notes(placement: Placement | None) -> Iterator[str]:
    if placement is not None and placement.points:
        count = len(placement.points)
        yield f"placed by {count} ground control points only: read in pixel coordinates, the mask carries the points"
    if placement is not None and placement.rpcs:
        yield "it has rational polynomial coefficients (RPC): not used, the mask carries them"
