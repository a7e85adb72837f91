"""Two masks of the same scenes against one truth: the difference of their figures, with paired intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tilesseg.errors import JobError
from tilesseg.evaluation.evaluation import METRICS, Evaluation, SceneResult
from tilesseg.evaluation.evaluation_tables import aligned, number, with_interval
from tilesseg.raster.bootstrap import Interval, paired_intervals
from tilesseg.raster.metrics import CLASS_METRICS, Counts, class_totals


@dataclass(frozen=True)
class PairedMasks:
    """Evaluations of two masks with the same truth."""

    first: Evaluation
    second: Evaluation

    @classmethod
    def of(cls, first: Evaluation, second: Evaluation) -> PairedMasks:
        """Two evaluations that can be compared.

        Raises:
            JobError: their classes, scenes or sizes differ, or the truth lies elsewhere on the one than on the other.
        """
        if first.classes != second.classes:
            both = f"{', '.join(first.classes)} and {', '.join(second.classes)}"
            raise JobError(f"two masks are compared that have the classes {both}; give masks of the same classes")
        names, others = ([scene.name for scene in each.scenes] for each in (first, second))
        if names != others and max(len(names), len(others)) > 1:
            both = f"{', '.join(names)} and {', '.join(others)}"
            raise JobError(f"two masks are compared that have the scenes {both}; give masks of the same scenes")
        for one, other in zip(first.scenes, second.scenes, strict=True):
            _refuse_other_pixels(one, other, only_valid=first.only_valid or second.only_valid)
        return cls(first, second)

    @cached_property
    def units(self) -> tuple[Counts, Counts]:
        """Totals of the classes in the units of both, `(unit, classes, 3)`: scenes, or blocks known in either."""
        scenes = list(zip(self.first.scenes, self.second.scenes, strict=True))
        pairs = [(one.total, other.total) for one, other in scenes]
        if self.first.by == "block":
            blocks = [pair for one, other in scenes for pair in zip(one.blocks, other.blocks, strict=True)]
            pairs = [(one, other) for one, other in blocks if one.known or other.known]
        first, second = (
            np.stack([class_totals(unit.confusion) for unit in units]) for units in zip(*pairs, strict=True)
        )
        return first, second

    def difference(self, metric: str) -> list[tuple[float, Interval | None]]:
        """Difference of a metric of each class, second − first, and its paired interval."""
        values = METRICS[metric](self.second.pooled.confusion) - METRICS[metric](self.first.pooled.confusion)
        return list(zip(values.tolist(), paired_intervals(*self.units, CLASS_METRICS[metric]), strict=True))

    def table(self) -> str:
        """Table of Dice and IoU of both masks, and their differences."""
        head = ["class", "Dice A", "Dice B", "B − A", "IoU A", "IoU B", "B − A"]
        columns = [list(self.first.classes)]
        for metric in ("dice", "iou"):
            columns += [
                [number(value) for value in METRICS[metric](one.pooled.confusion).tolist()]
                for one in (self.first, self.second)
            ]
            columns.append([with_interval(*each) for each in self.difference(metric)])
        return aligned([head, *map(list, zip(*columns, strict=True))])

    def to_json(self) -> dict[str, Any]:
        """Both evaluations and their differences, as plain data."""
        differences: dict[str, dict[str, Any]] = {name: {} for name in self.first.classes}
        for metric in METRICS:
            for name, (value, interval) in zip(self.first.classes, self.difference(metric), strict=True):
                differences[name][metric] = None if np.isnan(value) else round(value, 6)
                pair = None if interval is None else [round(interval.low, 6), round(interval.high, 6)]
                differences[name][f"{metric}_interval"] = pair
        return {"first": self.first.to_json(), "second": self.second.to_json(), "difference": differences}


def _refuse_other_pixels(one: SceneResult, other: SceneResult, *, only_valid: bool) -> None:
    """Refuse scenes that are not the same pixels with the same truth, block by block.

    Raises:
        JobError: with both values.
    """
    if one.total.pixels != other.total.pixels:
        both = f"{one.total.pixels:,} and {other.total.pixels:,} px"
        raise JobError(f"two masks are compared of {both}, {one.name} and {other.name}; give masks of the same pixels")
    for block, its in zip(one.blocks, other.blocks, strict=True):
        true, others = block.confusion.sum(axis=1), its.confusion.sum(axis=1)
        if not only_valid and (true != others).any():
            both = f"{' + '.join(map(str, true))} and {' + '.join(map(str, others))} px"
            raise JobError(
                f"{one.name} and {other.name} are compared, and a block has {both} of its classes in the truth; give "
                "masks that lie on the same grid"
            )
