"""Labels of a raster that lies on the image's grid, read by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.labels.label_values import LabelValues
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.crs import crs_difference, crs_name
from tilesseg.formats.source import Source
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window

TOLERANCE = 1e-3
"""Largest distance in pixels between a corner of the labels and that of the image."""
PIECE = 4096
"""Largest side in pixels of the labels that are read at once for an image of coarser pixels."""


@dataclass(frozen=True)
class RasterLabels:
    """Labels of a raster; where an image is resampled, each of its pixels has the label at its centre."""

    source: Source
    grid: Grid
    """Grid of the image as it is read."""
    values: LabelValues
    steps: tuple[float, float] = (1.0, 1.0)
    """Number of the labels' rows and columns in a pixel of the image as it is read."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window, `IGNORED` where nothing is labelled and outside the image.

        Raises:
            SourceError: the labels cannot be read, or a value has no class.
        """
        labels = np.full(window.shape, IGNORED, np.uint8)
        for part in _pieces(window.intersect(self.grid.window), self.steps):
            labels[part.slices(window)] = self._inside(part)
        return labels

    def _inside(self, part: Window) -> NDArray[np.uint8]:
        if self.steps == (1.0, 1.0):
            return self._read(part)
        height, width = self.source.grid.shape
        rows = _centres(part.y, part.y_stop, self.steps[0], height)
        columns = _centres(part.x, part.x_stop, self.steps[1], width)
        y, x = int(rows[0]), int(columns[0])
        labels = self._read(Window.from_bounds(y, x, int(rows[-1]) + 1, int(columns[-1]) + 1))
        return labels[(rows - y)[:, None], columns - x]

    def _read(self, window: Window) -> NDArray[np.uint8]:
        pixels = self.source.read(window)
        values = pixels.values[0]
        if values.dtype.kind == "f":
            self._refuse_fractions(values, pixels.valid)
        labels = self.values.classified(values, pixels.valid, (window.y, window.x))
        if self.values.stated and not pixels.valid.all():
            labels[~self._covered(window)] = IGNORED
        return labels

    def _covered(self, window: Window) -> NDArray[np.bool_]:
        """Pixels `(y, x)` that the file's alpha or mask leaves: what it takes away has no label, whatever its value."""
        covered: NDArray[np.bool_] = self.source.read_raw(window).valid[self.source.masks[0]]
        return covered

    def _refuse_fractions(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        broken = valid & (values != np.rint(values))
        if broken.any():
            raise SourceError(
                f"{self.values.path}: labels are whole numbers, and one is {values[broken][0]:g}; give a mask of "
                "classes, not of scores"
            )

    def identity(self) -> dict[str, Any]:
        """State of the files of the labels."""
        return self.source.identity()


def open_raster_labels(path: str, values: LabelValues, *, grid: Grid, native: Grid, image: str) -> RasterLabels:
    """Open labels that lie on the image's own pixels, or on the pixels that are read.

    Args:
        path: the raster, of any format that is read.
        values: class of each value.
        grid: grid of the image as it is read.
        native: the image's own grid.
        image: name of the image in the refusal.

    Raises:
        SourceError: the raster cannot be opened, has several bands, or lies elsewhere than the image.
    """
    source = open_source(path)
    if len(source.bands) != 1:
        raise SourceError(
            f"{path}: labels are one band of classes, and this has {len(source.bands)} bands; export the classes as "
            "one band (a picture of colours is none)"
        )
    source = source.select([0])
    _refuse_texts(values)
    if grid_difference(source.grid, grid) is None:
        return RasterLabels(source, grid, values)
    if problem := grid_difference(source.grid, native):
        raise SourceError(f"{path} does not lie on the grid of {image}: {problem}; make the labels on the image's grid")
    y, x = (read / own for read, own in zip(grid.resolution, native.resolution, strict=True))
    return RasterLabels(source, grid, values, (y, x))


def _refuse_texts(values: LabelValues) -> None:
    """Refuse a mapping of texts: no pixel holds one.

    Raises:
        SourceError: a listed value is a text.
    """
    if texts := [key for key in values.table if isinstance(key, str)]:
        raise SourceError(
            f"{values.path} is a raster of numbers, and values list the text '{texts[0]}'; write numbers without quotes"
        )


def grid_difference(labels: Grid, image: Grid) -> str | None:
    """The first difference between the grids of labels and image, with both values; None where they are the same.

    Labels without a place in the world lie where the image lies, if they have its size.
    """
    if labels.shape != image.shape:
        return f"its size is {_size(labels)} px and the image's {_size(image)} px"
    if labels.crs is not None and image.crs is not None and (other := crs_difference(labels.crs, image.crs)):
        return f"its CRS is not the image's: {other}"
    if not labels.georeferenced or not image.georeferenced:
        return None
    if labels.crs is None and image.crs is not None and labels.unit == image.unit == "pixel":
        return f"its CRS is {crs_name(labels.crs)} and the image's {crs_name(image.crs)}"
    distance, corner = _distance(labels, image)
    if distance > TOLERANCE:
        at, there = labels.to_world(*corner), image.to_world(*corner)
        return (
            f"its {_CORNERS[corner != (0.0, 0.0)]} corner lies at {at[0]:.6f}, {at[1]:.6f} and the image's at "
            f"{there[0]:.6f}, {there[1]:.6f}, {distance:.3g} px away"
        )
    return None


_CORNERS = {False: "first", True: "last"}


def _distance(labels: Grid, image: Grid) -> tuple[float, tuple[float, float]]:
    """Largest distance in pixels between corners of two grids of one shape, and the corner, `(y, x)`."""
    corners: Sequence[tuple[float, float]] = ((0.0, 0.0), (float(image.height), float(image.width)))
    side = min(image.resolution)
    away = [float(np.hypot(*np.subtract(labels.to_world(*at), image.to_world(*at)))) / side for at in corners]
    return max(zip(away, corners, strict=True))


def _pieces(window: Window, steps: tuple[float, float]) -> Iterator[Window]:
    """Windows that together are a window, each over at most `PIECE` rows and columns of the labels."""
    height, width = (max(1, int(PIECE / step)) for step in steps)
    for y in range(window.y, window.y_stop, height):
        for x in range(window.x, window.x_stop, width):
            yield Window(y, x, height, width).intersect(window)


def _size(grid: Grid) -> str:
    return f"{grid.width} × {grid.height}"


def _centres(start: int, stop: int, ratio: float, size: int) -> NDArray[np.intp]:
    """Indices of the pixels at the centres of coarser or finer pixels."""
    centres = np.floor((np.arange(start, stop) + 0.5) * ratio)
    return np.asarray(np.clip(centres, 0, size - 1), np.intp)
