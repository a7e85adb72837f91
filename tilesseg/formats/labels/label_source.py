"""The label source: labels of an image, read by window like the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.labels.label_values import LabelOptions, LabelValues
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.labels.labelled_area import Area

VECTORS = (".geojson", ".json", ".gpkg", ".fgb", ".parquet", ".geoparquet", ".shp")
"""Suffixes of files that are rasterised on the image's grid."""


class LabelSource(Protocol):
    """Labels of an image. Picklable; safe to read from several threads at once."""

    @property
    def grid(self) -> Grid:
        """Grid of the image as it is read."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window, `IGNORED` (255) where nothing is labelled and outside the image.

        Raises:
            SourceError: the labels cannot be read, or a value has no class.
        """

    def identity(self) -> dict[str, Any]:
        """State of every file that the labels come from, as `Source.identity`."""


@dataclass(frozen=True)
class AreaLabels:
    """Labels inside an area."""

    labels: LabelSource
    area: Area

    @property
    def grid(self) -> Grid:
        """Grid of the image as it is read."""
        return self.labels.grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window, `IGNORED` outside the area."""
        return np.where(self.area.read(window), self.labels.read(window), np.uint8(IGNORED))

    def identity(self) -> dict[str, Any]:
        """State of the files of labels and area."""
        return {**self.labels.identity(), **self.area.identity()}


def open_labels(
    path: str, *, grid: Grid, native: Grid, image: str, classes: Sequence[str], options: LabelOptions | None = None
) -> LabelSource:
    """Open the labels of an image.

    Args:
        path: a raster on the image's grid, or a vector file, which is rasterised on it.
        grid: grid of the image as it is read.
        native: the image's own grid.
        image: name of the image in the refusal.
        classes: names of the classes 0 … n − 1.
        options: what the values mean; None: they are the classes.

    Raises:
        SourceError: the file cannot be read, lies elsewhere than the image, or names classes that there are not.
    """
    from tilesseg.formats.labels.labelled_area import open_area

    options = options or LabelOptions()
    labels = _without_area(path, grid=grid, native=native, image=image, classes=classes, options=options)
    if options.area is None:
        return labels
    return AreaLabels(labels, open_area(options.area, grid=grid, native=native, image=image))


def _without_area(
    path: str, *, grid: Grid, native: Grid, image: str, classes: Sequence[str], options: LabelOptions
) -> LabelSource:
    from tilesseg.formats.labels.raster_labels import open_raster_labels
    from tilesseg.formats.labels.vector_labels import open_vector_labels

    values = LabelValues.of(path, classes, options.values)
    if path.lower().endswith(VECTORS):
        return open_vector_labels(path, values, grid=grid, native=native, image=image, options=options)
    return open_raster_labels(path, values, grid=grid, native=native, image=image)
