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

    Memory: what a part of 2048² needs, and the core's polygons.

    Args:
        read: labels `(y, x)` of a window of the mask.
        core: the tile's own pixels.
        path: the file (`.npz`) to write, which a writer gets as one of `Mask.tile_polygons`.
    """
    from tilesseg.formats.vector.tile_polygons import write_parts

    write_parts(read, core, path)


def check_polygons(content: Mask, path: Path, **options: Any) -> None:
    """Look, before the first tile, whether the polygons of a mask can be written.

    Raises:
        FormatError: a library is missing, a class unknown, or the format cannot say where the polygons are.
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
        mask: what to write; polygons of its tiles, where it has any, are not traced again.
        path: the target; its folder must exist.
        classes: those wanted, by name; None for all but the first where that is called background.
        min_area: smaller polygons are left out: µm², m² or pixels, see `features.area_unit`.
        simplify: how far lines may be moved, in pixels of the mask.
        canvas: whether pixels count from the mask's corner, or from the origin of the slide's coordinates.
        threads: not used.

    Returns:
        The file.

    Raises:
        FormatError: it cannot be written; nothing is left behind.
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

    A mask without a CRS keeps the coordinates of its grid: µm on a slide, else pixels.

    Raises:
        FormatError: it cannot be written; nothing is left behind.
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
        FormatError: it cannot be written; nothing is left behind.
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
        FormatError: it cannot be written; nothing is left behind.
    """
    return _write_table("geoparquet", mask, path, classes, min_area, simplify)


def _write_table(
    kind: str, mask: Mask, path: Path, classes: Sequence[str] | None, min_area: float, simplify: float
) -> tuple[Path, ...]:
    check_polygons(mask, path, classes=classes)
    from tilesseg.formats.vector import vector_tables as tables
    from tilesseg.formats.vector.features import Choice

    return tables.write(mask, path, Choice.of(mask, classes, min_area, simplify), kind=kind)
