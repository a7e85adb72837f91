"""An evaluation: counts of scenes, and the figures, means and intervals that are made of them. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.evaluation.counts import Counts
from tilesseg.raster.bootstrap import Interval, intervals
from tilesseg.raster.boundaries import boundary_scores
from tilesseg.raster.calibration import calibration_error, cross_entropy
from tilesseg.raster.metrics import CLASS_METRICS, accuracy, class_totals, dice, iou, kappa, precision, recall

FORMAT = 1
By = Literal["scene", "block"]
Figures = NDArray[np.float64]
METRICS: Mapping[str, Callable[[NDArray[np.int64]], Figures]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
}
"""Metrics of each class, by the name that they have in files."""


@dataclass(frozen=True)
class SceneResult:
    """Counts of a scene."""

    name: str
    blocks: tuple[Counts, ...]
    """Counts of labels in its blocks, in order of rows."""
    total: Counts
    """Sum of all blocks, with scores where there are any."""


@dataclass(frozen=True)
class Evaluation:
    """Comparison of masks with the truth."""

    classes: tuple[str, ...]
    scenes: tuple[SceneResult, ...]
    by: By = "scene"
    """Units of the intervals."""
    tolerance: int = 2
    """Tolerance of boundaries in pixels."""
    refused: Mapping[str, str] | None = None
    """Scenes that cannot be compared, and why."""
    only_valid: bool = False

    @cached_property
    def pooled(self) -> Counts:
        """Sum over all scenes."""
        return reduce(add, [scene.total for scene in self.scenes])

    @cached_property
    def units(self) -> tuple[Counts, ...]:
        """Units that are drawn for intervals: scenes, or blocks in which anything is known."""
        if self.by == "scene":
            return tuple(scene.total for scene in self.scenes)
        return tuple(block for scene in self.scenes for block in scene.blocks if block.known)

    def interval(self, metric: str) -> list[Interval | None]:
        """95 % interval of a metric of each class, pooled."""
        return self._intervals[metric]

    @cached_property
    def _intervals(self) -> dict[str, list[Interval | None]]:
        """Intervals of all metrics."""
        totals = np.stack([class_totals(unit.confusion) for unit in self.units])
        return {metric: intervals(totals, function) for metric, function in CLASS_METRICS.items()}

    def boundary_interval(self) -> list[Interval | None]:
        """95 % interval of the boundary F1 of each class, pooled."""
        counts = np.stack([unit.boundary for unit in self.units])
        return intervals(counts, lambda sums: boundary_scores(sums)[..., 2])

    def mean(self, metric: str) -> list[float]:
        """Mean over scenes of a metric of each class; scenes where it is undefined are left out."""
        values = np.stack([METRICS[metric](scene.total.confusion) for scene in self.scenes])
        return [
            float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else float("nan")
            for column in values.T
        ]

    def value(self, name: str, metric: str) -> float:
        """A pooled figure of a class, as `--fail-under nucleus.dice=0.9` names it."""
        if metric == "boundary_f1":
            return float(boundary_scores(self.pooled.boundary)[self.classes.index(name), 2])
        return float(METRICS[metric](self.pooled.confusion)[self.classes.index(name)])

    def to_json(self) -> dict[str, Any]:
        """The evaluation as `evaluation.json` holds it."""
        pooled = figures(self.pooled, self.classes)
        for metric in METRICS:
            for name, interval in zip(self.classes, self.interval(metric), strict=True):
                pooled["classes"][name][f"{metric}_interval"] = _pair(interval)
        for name, interval in zip(self.classes, self.boundary_interval(), strict=True):
            pooled["classes"][name]["boundary_f1_interval"] = _pair(interval)
        by_metric = {metric: self.mean(metric) for metric in METRICS}
        means = {
            name: {metric: _number(values[label]) for metric, values in by_metric.items()}
            for label, name in enumerate(self.classes)
        }
        return {
            "format": FORMAT,
            "classes": list(self.classes),
            "by": self.by,
            "units": len(self.units),
            "tolerance_px": self.tolerance,
            "only_valid": self.only_valid,
            "pooled": pooled,
            "mean": means,
            "scenes": {scene.name: figures(scene.total, self.classes) for scene in self.scenes},
            "refused": dict(self.refused or {}),
        }


def figures(counts: Counts, classes: Sequence[str]) -> dict[str, Any]:
    """Figures of counts, with the counts themselves, as plain data; null where a figure is undefined."""
    boundary = boundary_scores(counts.boundary)
    scores = {metric: function(counts.confusion) for metric, function in METRICS.items()}
    errors = None if counts.scores is None else calibration_error(counts.scores)
    by_class: dict[str, dict[str, Any]] = {}
    for label, name in enumerate(classes):
        by_class[name] = {
            "true_px": int(counts.confusion[label].sum()),
            "mask_px": int(counts.confusion[:, label].sum()),
            **{metric: _number(values[label]) for metric, values in scores.items()},
            **{f"boundary_{what}": _number(boundary[label, n]) for n, what in enumerate(("precision", "recall", "f1"))},
            **({} if errors is None else {"calibration_error": _number(errors[label])}),
        }
    entropy = None if counts.scores is None else _number(cross_entropy(counts.scores))
    return {
        "accuracy": _number(float(accuracy(counts.confusion))),
        "kappa": _number(float(kappa(counts.confusion))),
        **({} if counts.scores is None else {"cross_entropy": entropy}),
        "classes": by_class,
        **counts.to_json(),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(interval.low, 6), round(interval.high, 6)]
