"""Class counts of a mask: pixels and square metres by label, counted while the labels are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.grid import Grid
from tilesseg.raster.pixel_areas import PixelAreas
from tilesseg.raster.window import Window

_TALLIED = 1 << 17
"""Number of labels counted at a time: NumPy makes each of them eight bytes first."""
_FEW = 8
"""Largest number of labels that are counted one by one; counting all at once takes as long as a dozen."""


@dataclass(slots=True)
class ClassCounts:
    """Number of pixels and square metres by label of a core, counted row by row."""

    pixel_areas: PixelAreas | None
    x: int = 0
    """First column of the core in the image."""
    _counts: Counter[int] = field(default_factory=Counter)
    _quanta: Counter[int] = field(default_factory=Counter)
    _known: list[int] = field(default_factory=list)

    def add(self, labels: NDArray[np.uint8], y: int) -> None:
        """Count the rows `labels (rows, width)` that begin at image row `y`."""
        areas = self.pixel_areas
        if areas is None or areas.uniform:
            self._counts.update(self._tally(labels))
            return
        tall, stop = areas.cell[0], y + len(labels)
        for row in range(y // tall, ceil(stop / tall)):
            first, last = max(y, row * tall), min(stop, (row + 1) * tall)
            self._add_cells(labels[first - y : last - y], first, areas)

    def _add_cells(self, labels: NDArray[np.uint8], y: int, areas: PixelAreas) -> None:
        """Count rows that lie in one row of cells."""
        counts, row = self._tally(labels), y // areas.cell[0]
        self._counts.update(counts)
        for label, count in counts.items():
            if len(counts) == 1:
                self._quanta[label] += areas.of_window(Window(y, self.x, *labels.shape))
            elif areas.quanta.shape[1] == 1:
                self._quanta[label] += count * int(areas.quanta[row, 0])
            else:
                columns = np.add.reduce(labels == label, axis=0, dtype=np.int64)
                self._quanta[label] += areas.of_columns(row, columns, self.x)

    def add_uniform(self, label: int, window: Window) -> None:
        """Count a window that holds a single label."""
        self._counts[label] += window.area
        if self.pixel_areas is not None and not self.pixel_areas.uniform:
            self._quanta[label] += self.pixel_areas.of_window(window)

    @property
    def counts(self) -> Mapping[str, int]:
        return {str(label): self._counts[label] for label in sorted(self._counts)}

    @property
    def areas(self) -> Mapping[str, float]:
        """Square metres on the ground by label; empty where the grid has none."""
        if self.pixel_areas is None:
            return {}
        one = int(self.pixel_areas.quanta[0, 0]) if self.pixel_areas.uniform else None
        quanta = self._quanta if one is None else {label: one * count for label, count in self._counts.items()}
        return {str(label): quanta[label] * self.pixel_areas.quantum for label in sorted(quanta)}

    def _tally(self, labels: NDArray[np.uint8]) -> dict[int, int]:
        """Number of pixels by label. Labels that occurred before are counted one by one: most masks have a few."""
        counts: Counter[int] = Counter()
        step = max(1, _TALLIED // max(1, labels.shape[-1]))
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            pixels = {label: int(np.count_nonzero(part == label)) for label in self._known}
            if sum(pixels.values()) < part.size:
                tally = np.bincount(part.ravel(), minlength=256)
                pixels = {int(label): int(tally[label]) for label in np.flatnonzero(tally)}
                self._known = [*self._known, *(label for label in pixels if label not in self._known)][:_FEW]
            counts.update(pixels)
        return {label: count for label, count in counts.items() if count}


def areas_on_ground(grid: Grid) -> PixelAreas | None:
    """Areas of a grid's pixels; PROJ is imported only for a grid with a CRS."""
    if grid.crs is None:
        return None
    from tilesseg.formats.reading.ground_area import pixel_areas

    return pixel_areas(grid)
