"""Labels of a vector file, rasterised on the image's grid in cells, and read by window.

Rasterised window by window, an outline may fall differently than in the whole image: rounding depends on the origin of
the window. So cells of 1,024 px are rasterised, fixed to the image's origin, and windows are cut from cells.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize

from tilesseg.errors import SourceError
from tilesseg.formats.labels.label_features import Feature, read_features
from tilesseg.formats.labels.label_values import LabelOptions, LabelValues, did_you_mean
from tilesseg.formats.reading.polygon_file import Polygon, Ring
from tilesseg.formats.source import file_state
from tilesseg.paths import unsigned
from tilesseg.process import QUIET
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window

CELL = 1024
"""Side in pixels of the cells that are rasterised."""
KEPT = 32
"""Number of rasterised cells that are kept: 32 MB."""
FARTHEST = 1e9
"""Largest distance in pixels of a corner from the image: GDAL counts in 32 bits, and draws nothing beyond."""
_MARGIN = 2
"""Distance in pixels from which on a line is surely beyond a cell."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons in pixels of a grid, each with the number that is burnt; later ones lie on top."""

    polygons: tuple[Polygon, ...]
    """Rings `(n, 2)` of `(x, y)`: outline and holes."""
    numbers: NDArray[np.uint8]
    """Number of each polygon."""
    bounds: NDArray[np.float64]
    """Least x, least y, greatest x, greatest y of each, `(n, 4)`."""

    @classmethod
    def of(cls, features: Sequence[tuple[Feature, int]]) -> Outlines:
        """Outlines of features and their numbers."""
        pairs = [(polygon, number) for feature, number in features for polygon in feature.polygons]
        bounds = [(*polygon[0].min(axis=0), *polygon[0].max(axis=0)) for polygon, _ in pairs]
        return cls(
            tuple(polygon for polygon, _ in pairs),
            np.array([number for _, number in pairs], np.uint8),
            np.array(bounds, np.float64).reshape(-1, 4),
        )

    def within(self, window: Window) -> Iterator[tuple[Polygon, int]]:
        """Polygons whose bounds touch a window, in their order."""
        x, y, x_stop, y_stop = self.bounds.T
        near = (x <= window.x_stop) & (x_stop >= window.x) & (y <= window.y_stop) & (y_stop >= window.y)
        for index in np.flatnonzero(near).tolist():
            yield self.polygons[index], int(self.numbers[index])


@dataclass
class RasterisedCells:
    """Outlines as a raster over a grid, read by window; the latest cells are kept. Picklable without them."""

    outlines: Outlines
    shape: tuple[int, int]
    background: int
    """Number where there is no polygon."""
    all_touched: bool = False
    _cells: OrderedDict[tuple[int, int], NDArray[np.uint8]] = field(default_factory=OrderedDict, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cells": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Numbers `(y, x)` of a window that lies in the grid."""
        out = np.empty(window.shape, np.uint8)
        for i in range(window.y // CELL, -(-window.y_stop // CELL)):
            for j in range(window.x // CELL, -(-window.x_stop // CELL)):
                place = self._place(i, j)
                part = place.intersect(window)
                out[part.slices(window)] = self._cell(i, j)[part.slices(place)]
        return out

    def _place(self, i: int, j: int) -> Window:
        return Window(i * CELL, j * CELL, CELL, CELL).intersect(Window(0, 0, *self.shape))

    def _cell(self, i: int, j: int) -> NDArray[np.uint8]:
        with self._lock:
            if (i, j) in self._cells:
                self._cells.move_to_end((i, j))
                return self._cells[i, j]
        made = self._rasterised(self._place(i, j))
        with self._lock:
            self._cells[i, j] = made
            while len(self._cells) > KEPT:
                self._cells.popitem(last=False)
        return made

    def _rasterised(self, place: Window) -> NDArray[np.uint8]:
        shapes = []
        for polygon, number in self.outlines.within(place):
            rings = [ring for ring in (_near(ring, place) for ring in polygon) if len(ring) > 3]
            if rings:
                moved = [(ring - (place.x, place.y)).tolist() for ring in rings]
                shapes.append(({"type": "Polygon", "coordinates": moved}, number))
        if not shapes:
            return np.full(place.shape, self.background, np.uint8)
        with QUIET, warnings.catch_warnings(), rasterio.Env():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            burnt = rasterize(shapes, place.shape, fill=self.background, all_touched=self.all_touched, dtype="uint8")
        return np.asarray(burnt, np.uint8)


def _near(ring: Ring, place: Window) -> Ring:
    """A ring without most of its corners beyond a window, which draws the same to the bit within.

    Of neighbours beyond one side of the window only the outermost two are kept. The lines left out and the line that
    stands for them lie beyond this side, and both cross a row an odd or an even number of times alike. An outline of
    many corners would else be drawn wholly in each of its cells.
    """
    limits = ((-1, 0, place.x), (1, 0, place.x_stop), (-1, 1, place.y), (1, 1, place.y_stop))
    for sign, axis, limit in limits:
        beyond = sign * (ring[:, axis] - limit) > _MARGIN
        kept = np.ones(len(ring), np.bool_)
        kept[1:-1] = ~(beyond[:-2] & beyond[1:-1] & beyond[2:])
        ring = ring[kept]
    return ring


@dataclass(frozen=True)
class VectorLabels:
    """Labels of features: their class inside, the first class outside."""

    path: str
    grid: Grid
    cells: RasterisedCells

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window; `IGNORED` in features that are ignored, and outside the image."""
        labels = np.full(window.shape, IGNORED, np.uint8)
        part = window.intersect(self.grid.window)
        if not part.empty:
            labels[part.slices(window)] = self.cells.read(part)
        return labels

    def identity(self) -> dict[str, Any]:
        """State of the vector file."""
        return {unsigned(self.path): file_state(self.path)}


def open_vector_labels(
    path: str, values: LabelValues, *, grid: Grid, native: Grid, image: str, options: LabelOptions
) -> VectorLabels:
    """Rasterise the features of a file on the image's grid, when they are read.

    Raises:
        SourceError: the file cannot be read, a feature has no class, or all features lie outside the image.
    """
    file = read_features(path, attribute=options.attribute, layer=options.layer)
    features = file.placed(grid=grid, native=native, image=image)
    _refuse_missing(path, features, options)
    outlines = Outlines.of([(one, _class_of(one, values, options)) for one in features])
    refuse_elsewhere(outlines, path=path, grid=grid, image=image)
    refuse_too_far(outlines, path=path, grid=grid, image=image)
    return VectorLabels(path, grid, RasterisedCells(outlines, grid.shape, 0, options.all_touched))


def refuse_elsewhere(outlines: Outlines, *, path: str, grid: Grid, image: str) -> None:
    """Refuse polygons that all lie outside the image.

    Raises:
        SourceError: with both extents.
    """
    if any(True for _ in outlines.within(grid.window)):
        return
    (x, y), (x_stop, y_stop) = outlines.bounds[:, :2].min(axis=0), outlines.bounds[:, 2:].max(axis=0)
    raise SourceError(
        f"{path} touches nothing of {image}: its polygons lie in columns {x:.0f} to {x_stop:.0f} and rows {y:.0f} to "
        f"{y_stop:.0f} of an image of {grid.width} × {grid.height}; check their coordinates"
    )


def refuse_too_far(outlines: Outlines, *, path: str, grid: Grid, image: str) -> None:
    """Refuse polygons over the image that reach farther than GDAL can draw.

    Raises:
        SourceError: with the distance.
    """
    farthest = max((float(np.abs(polygon[0]).max()) for polygon, _ in outlines.within(grid.window)), default=0.0)
    if farthest > FARTHEST:
        raise SourceError(
            f"{path}: a polygon over {image} reaches {farthest:.3g} px away, and {FARTHEST:.0e} px can be drawn; "
            "cut it to the image"
        )


def _refuse_missing(path: str, features: Sequence[Feature], options: LabelOptions) -> None:
    """Refuse features without the attribute: a missing value is none of the others.

    Raises:
        SourceError: with their number.
    """
    missing = [one.number for one in features if one.value is None]
    if options.attribute is not None and missing:
        raise SourceError(
            f"{path}: {len(missing)} of {len(features)} features have no {options.attribute}, the first is feature "
            f"{missing[0]}; give them one, or leave them out"
        )


def _class_of(feature: Feature, values: LabelValues, options: LabelOptions) -> int:
    """Number of a feature's class: by `values`, by its name, or the second of two classes.

    Raises:
        SourceError: its value is no class.
    """
    if options.attribute is None:
        return _only_foreground(values)
    value, found = feature.value, values.of_attribute(feature.value)
    if found is None:
        known = [*map(str, values.table if values.stated else values.classes)]
        raise SourceError(
            f"{values.path}: feature {feature.number} has {options.attribute} {value!r}, which is none of "
            f"{', '.join(known)}; {did_you_mean(value, known)}map it in values, to a class or to ignore"
        )
    return found


def _only_foreground(values: LabelValues) -> int:
    if len(values.classes) != 2:
        raise SourceError(
            f"{values.path}: its features are of one of {len(values.classes)} classes, {', '.join(values.classes)}; "
            "say by attribute which"
        )
    return 1
