"""A labelled area: polygons outside which labels say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.labels.label_features import read_features
from tilesseg.formats.labels.vector_labels import Outlines, RasterisedCells, refuse_elsewhere, refuse_too_far
from tilesseg.formats.source import file_state
from tilesseg.paths import unsigned
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


@dataclass(frozen=True)
class Area:
    """The inside of polygons, on an image's grid: pixels whose centres lie in one of them."""

    path: str
    grid: Grid
    cells: RasterisedCells

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Mask `(y, x)` of a window: True inside the polygons, False outside the image."""
        mask = np.zeros(window.shape, np.bool_)
        part = window.intersect(self.grid.window)
        if not part.empty:
            mask[part.slices(window)] = self.cells.read(part).view(np.bool_)
        return mask

    def identity(self) -> dict[str, Any]:
        """State of the file of the polygons."""
        return {unsigned(self.path): file_state(self.path)}


def open_area(path: str, *, grid: Grid, native: Grid, image: str, elsewhere: bool = False) -> Area:
    """Open polygons on an image's grid.

    Args:
        path: the vector file.
        grid: grid of the image as it is read.
        native: the image's own grid.
        image: name of the image in the refusal.
        elsewhere: whether all polygons may lie outside the image.

    Raises:
        SourceError: the file cannot be read, or touches nothing of the image.
    """
    features = read_features(path).placed(grid=grid, native=native, image=image)
    outlines = Outlines.of([(one, 1) for one in features])
    if not elsewhere:
        refuse_elsewhere(outlines, path=path, grid=grid, image=image)
    refuse_too_far(outlines, path=path, grid=grid, image=image)
    return Area(path, grid, RasterisedCells(outlines, grid.shape, 0))
