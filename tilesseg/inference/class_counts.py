"""A census of a mask: pixels and square metres by label, counted while the labels pass by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

_TALLIED = 1 << 17
"""Labels counted at a time: NumPy makes each of them eight bytes first."""
_FEW = 8
"""Labels that are looked for one by one at most; counting all at once takes as long as looking for a dozen."""


@dataclass(slots=True)
class Census:
    """Counts pixels and square metres per label while the labels pass by."""

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
        """Count a window that holds one label."""
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
        """Pixels per label. Labels that came before are looked for one by one: most masks have a few."""
        counts: Counter[int] = Counter()
        step = max(1, _TALLIED // max(1, labels.shape[-1]))
        for start in range(0, len(labels), step):
            part = labels[start : start + step]
            found = {label: int(np.count_nonzero(part == label)) for label in self._known}
            if sum(found.values()) < part.size:
                tally = np.bincount(part.ravel(), minlength=256)
                found = {int(label): int(tally[label]) for label in np.flatnonzero(tally)}
                self._known = [*self._known, *(label for label in found if label not in self._known)][:_FEW]
            counts.update(found)
        return {label: count for label, count in counts.items() if count}
