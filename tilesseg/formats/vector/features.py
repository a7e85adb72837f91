"""Polygons as features: chosen, measured, simplified, and converted to geometries, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from tilesseg.formats.reading.ground_area import pixel_areas
from tilesseg.formats.vector.merge_polygons import joined_polygons
from tilesseg.formats.vector.polygon_outlines import Polygons, areas
from tilesseg.formats.vector.tile_polygons import parts_of, write_parts
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid

Geometries = NDArray[Any]
"""`(polygon,)` of shapely geometries."""
Unit = Literal["m2", "um2", "px"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Choice of polygons by class and area, and the tolerance of their lines."""

    labels: frozenset[int]
    min_area: float = 0.0
    """Least area of a polygon, in the mask's `area_unit`."""
    simplify: float = 0.0
    """Tolerance by which lines may be moved, in pixels of the mask."""

    @classmethod
    def of(cls, mask: Mask, classes: Sequence[str] | None, min_area: float, simplify: float) -> Choice:
        """Choice by the options of a product; without names, all classes except a first one called background."""
        names = [meant.name for meant in mask.classes]
        if classes is None:
            background = len(names) > 1 and names[0].casefold() == "background"
            return cls(frozenset(range(int(background), len(names))), min_area, simplify)
        return cls(frozenset(k for k, name in enumerate(names) if name in classes), min_area, simplify)


@dataclass(frozen=True, slots=True)
class Features:
    """A batch of polygons, as arrays over `(polygon,)`."""

    labels: NDArray[np.uint8]
    geometries: Geometries
    """Polygons in corners `(x, y)` of the mask's pixels."""
    areas: NDArray[np.float64]
    """Areas of the polygons before they are simplified, in the mask's `area_unit`."""
    pixels: NDArray[np.int64]
    """Number of pixels of each polygon."""
    corners: NDArray[np.int32]
    """`(polygon, 2)`: the topmost corner `(y, x)`, of several the leftmost. Two polygons of a label never share it."""


def features(mask: Mask, choice: Choice, scratch: Path) -> Iterator[Features]:
    """Chosen polygons of a mask; unless its tiles are traced already, files of its parts are written to `scratch`."""
    files, ground = mask.tile_polygons or _traced(mask, scratch), pixel_areas(mask.grid)
    side = 1.0 if area_unit(mask.grid) == "px" else float(np.prod(mask.grid.resolution))
    for polygons in joined_polygons(files, choice.labels):
        pixels = areas(polygons)
        sizes = np.asarray(
            pixels * side if ground is None else areas(polygons, ground.up_to) * ground.quantum, np.float64
        )
        large = np.flatnonzero(sizes >= choice.min_area)
        if len(large):
            yield _features(polygons.take(large), sizes[large], pixels[large], choice.simplify)


def area_unit(grid: Grid) -> Unit:
    """Unit of areas: m² on the ground, µm² on a slide, else pixels."""
    if pixel_areas(grid) is not None:
        return "m2"
    return "um2" if grid.unit == "micrometre" else "px"


def _traced(mask: Mask, scratch: Path) -> Sequence[Path]:
    files = []
    for number, window in enumerate(parts_of(mask.grid.window)):
        files.append(scratch / f"{number}.npz")
        write_parts(mask.read, window, files[-1])
    return files


def _features(polygons: Polygons, sizes: NDArray[np.float64], pixels: NDArray[np.int64], tolerance: float) -> Features:
    points = polygons.points[:, ::-1].astype(np.float64)
    geometries = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points, (polygons.rings, polygons.polygons)
    )  # fmt: skip
    if tolerance:
        geometries = _simplified(geometries, tolerance)
    return Features(polygons.labels, geometries, sizes, pixels, _topmost(polygons))


def _simplified(geometries: Geometries, tolerance: float) -> Geometries:
    """Geometries with simplified lines; a polygon that would become invalid or empty is kept unchanged."""
    simple = shapely.simplify(geometries, tolerance, preserve_topology=True)
    good = shapely.is_valid(simple) & ~shapely.is_empty(simple) & (shapely.get_type_id(simple) == 3)
    return np.where(good, simple, geometries)


def _topmost(polygons: Polygons) -> NDArray[np.int32]:
    y, x = polygons.points.astype(np.int64).T
    lowest = np.minimum.reduceat((y << 32) + x, polygons.rings[polygons.polygons[:-1]])
    return np.stack([lowest >> 32, lowest & 0xFFFFFFFF], axis=1).astype(np.int32)
