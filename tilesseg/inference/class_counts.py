"""Class counts of a mask: pixels and square metres by label, counted while the labels are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

_TALLIED = 1 << 17
"""Number of labels counted at a time: NumPy makes each of them eight bytes first."""
_FEW = 8
"""Largest number of labels that are counted one by one; counting all at once takes as long as a dozen."""


@dataclass(slots=True)
class ClassCounts:
    """Number of pixels and square metres by label, counted row by row."""

    pixel_areas: Any
    _counts: Counter[int] = field(default_factory=Counter)
    _areas: Counter[int] = field(default_factory=Counter)
    _known: list[int] = field(default_factory=list)

    def add(self, labels: NDArray[np.uint8], y: int) -> None:
        """Count the rows `labels (rows, width)` that begin at image row `y`."""
        if not len(labels):
            return
        areas, counts = self.pixel_areas(y, y + len(labels)), self._tally(labels)
        self._counts.update(counts)
        if areas is None:
            return
        if np.all(areas == areas[0]):
            self._areas.update({label: count * float(areas[0]) for label, count in counts.items()})
            return
        for row, area in zip(labels, areas, strict=True):
            self._areas.update({label: count * float(area) for label, count in self._tally(row).items()})

    def add_uniform(self, label: int, window: Window) -> None:
        """Count a window that holds a single label."""
        areas = self.pixel_areas(window.y, window.y_stop)
        self._counts[label] += window.area
        if areas is not None:
            self._areas.update({label: window.width * float(areas.sum())})

    @property
    def counts(self) -> Mapping[str, int]:
        return {str(label): self._counts[label] for label in sorted(self._counts)}

    @property
    def areas(self) -> Mapping[str, float]:
        return {str(label): self._areas[label] for label in sorted(self._areas)}

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
