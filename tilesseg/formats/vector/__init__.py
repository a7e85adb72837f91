"""Polygons of a mask: GeoJSON for QuPath and for maps, GeoPackage, FlatGeobuf, GeoParquet. Only written.

Workers trace the polygons of each tile (`write_tile_polygons`); a writer joins them at the seams and streams the result
into its file. Libraries of the extra `tilesseg[vector]` are imported when a writer or its check is called, so that a
missing library is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.writer import Mask
from tilesseg.raster.window import Window

Canvas = Literal["bounds", "full"]


def write_tile_polygons(read: Callable[[Window], NDArray[np.uint8]], core: Window, path: Path) -> None:
    """Trace the polygons of a tile's core and store them. Safe to do twice.

    Memory: the labels of a part of 2048², and all polygons of the core.

    Args:
        read: labels `(y, x)` of a window of the mask.
        core: window of the tile's core.
        path: the file (`.npz`) to write, to be listed in `Mask.tile_polygons`.
    """
    from tilesseg.formats.vector.tile_polygons import write_parts

    write_parts(read, core, path)


def check_polygons(content: Mask, path: Path, **options: Any) -> None:
    """Refuse, before the first tile, polygons of a mask that could not be written.

    Raises:
        FormatError: a library is missing, a class is unknown, or the format has no coordinates for the polygons.
    """
    from tilesseg.formats.vector.vector_checks import check

    check(content, path, **options)


def write_geojson(
    mask: Mask,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    canvas: Canvas = "bounds",
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as a FeatureCollection, one feature a line.

    With a CRS: longitude and latitude (RFC 7946). Without: pixels of the image's finest level, as QuPath counts them,
    each polygon an annotation with its class and colour.

    Args:
        mask: the mask; polygons of its tiles that are stored already are not traced again.
        path: the target; its folder must exist.
        classes: names of the requested classes; None for all classes except a first one called background.
        min_area: least area of a polygon, in µm², m² or pixels, see `features.area_unit`.
        simplify: tolerance by which lines may be moved, in pixels of the mask.
        canvas: whether pixels count from the corner of the mask, or from the origin of the slide's coordinates.
        threads: without effect.

    Returns:
        The file.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    check_polygons(mask, path, classes=classes, canvas=canvas)
    from tilesseg.formats.vector.features import Choice
    from tilesseg.formats.vector.geojson import write

    return write(mask, path, Choice.of(mask, classes, min_area, simplify), canvas=canvas)


def write_geopackage(
    mask: Mask,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as a GeoPackage with one layer `mask`, in the mask's CRS; see `write_geojson`.

    A GeoPackage that is there keeps its other layers: it is copied, the layer is added to the copy or replaced there,
    and the copy takes its place.

    A mask without a CRS keeps the coordinates of its grid: µm on a slide, else pixels.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    return _write_table("geopackage", mask, path, classes, min_area, simplify)


def write_flatgeobuf(
    mask: Mask,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as FlatGeobuf with a spatial index; see `write_geopackage`.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    return _write_table("flatgeobuf", mask, path, classes, min_area, simplify)


def write_geoparquet(
    mask: Mask,
    path: Path,
    *,
    classes: Sequence[str] | None = None,
    min_area: float = 0.0,
    simplify: float = 0.0,
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as GeoParquet 1.1; see `write_geopackage`.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    return _write_table("geoparquet", mask, path, classes, min_area, simplify)


def _write_table(
    kind: str, mask: Mask, path: Path, classes: Sequence[str] | None, min_area: float, simplify: float
) -> tuple[Path, ...]:
    check_polygons(mask, path, classes=classes)
    from tilesseg.formats.vector import vector_tables as tables
    from tilesseg.formats.vector.features import Choice

    return tables.write(mask, path, Choice.of(mask, classes, min_area, simplify), kind=kind)
