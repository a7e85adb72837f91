"""Two masks of the same scenes against one truth: the difference of their figures, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tilesseg.errors import JobError
from tilesseg.evaluation.evaluation import METRICS, Evaluation
from tilesseg.evaluation.evaluation_tables import aligned, number, with_interval
from tilesseg.raster.bootstrap import Interval, paired_intervals


@dataclass(frozen=True)
class PairedMasks:
    """Evaluations of two masks with the same truth."""

    first: Evaluation
    second: Evaluation

    @classmethod
    def of(cls, first: Evaluation, second: Evaluation) -> PairedMasks:
        """Two evaluations that can be compared.

        Raises:
            JobError: their classes or their units differ.
        """
        if first.classes != second.classes:
            both = f"{', '.join(first.classes)} and {', '.join(second.classes)}"
            raise JobError(f"two masks are compared that have the classes {both}; give masks of the same classes")
        if len(first.units) != len(second.units):
            both = f"{len(first.units)} and {len(second.units)} {first.by}s"
            raise JobError(f"two masks are compared of which {both} are known; give masks of the same scenes")
        return cls(first, second)

    def difference(self, metric: str) -> list[tuple[float, Interval | None]]:
        """Difference of a metric of each class, second − first, and its paired interval."""
        function = METRICS[metric]
        values = function(self.second.pooled.confusion) - function(self.first.pooled.confusion)
        first, second = (np.stack([unit.confusion for unit in one.units]) for one in (self.first, self.second))
        return list(zip(values.tolist(), paired_intervals(first, second, function), strict=True))

    def table(self) -> str:
        """Table of Dice and IoU of both masks, and their differences."""
        rows = [["class", "Dice A", "Dice B", "B − A", "IoU A", "IoU B", "B − A"]]
        for label, name in enumerate(self.first.classes):
            cells = [name]
            for metric in ("dice", "iou"):
                values = [float(METRICS[metric](one.pooled.confusion)[label]) for one in (self.first, self.second)]
                cells += [*map(number, values), with_interval(*self.difference(metric)[label])]
            rows.append(cells)
        return aligned(rows)

    def to_json(self) -> dict[str, Any]:
        """Both evaluations and their differences, as plain data."""
        differences: dict[str, dict[str, Any]] = {name: {} for name in self.first.classes}
        for metric in METRICS:
            for name, (value, interval) in zip(self.first.classes, self.difference(metric), strict=True):
                differences[name][metric] = None if np.isnan(value) else round(value, 6)
                pair = None if interval is None else [round(interval.low, 6), round(interval.high, 6)]
                differences[name][f"{metric}_interval"] = pair
        return {"first": self.first.to_json(), "second": self.second.to_json(), "difference": differences}
