"""Section of the report on an evaluation: the table of `evaluation.json`, where `tilesseg evaluate` has left one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilesseg.errors import StoreError
from tilesseg.store.run_directory import RunDirectory

EVALUATION_FILE = "evaluation.json"
METRICS = {"dice": "Dice", "iou": "IoU", "precision": "precision", "recall": "recall", "boundary_f1": "boundary F1"}
"""Columns of the table of classes, by their keys in the file."""
LISTED = 200
"""Largest number of scenes in the table."""
_DASH = "–"


@dataclass(frozen=True, slots=True)
class EvaluationTable:
    """Figures of an evaluation, as text."""

    heads: Sequence[str]
    """Names of the metrics."""
    classes: Sequence[tuple[str, Sequence[str]]]
    """Name and pooled figures of each class."""
    names: Sequence[str]
    """Names of the classes."""
    scenes: Sequence[tuple[str, Sequence[str]]]
    """Name of each scene, and the Dice of each class in it; none where there is one scene."""
    more: int
    """Number of scenes that are not listed."""
    note: str
    """Sentence on accuracy, tolerance and intervals."""


def evaluation_table(run: RunDirectory) -> EvaluationTable | None:
    """Table of the run's evaluation; None where there is none that this version reads."""
    try:
        data = run.read_json(EVALUATION_FILE)
    except StoreError:
        return None
    if not isinstance(data, dict) or data.get("format") != 1:
        return None
    pooled, scenes = data["pooled"], data["scenes"]
    rows = list(scenes.items())[:LISTED] if len(scenes) > 1 else []
    return EvaluationTable(
        heads=tuple(METRICS.values()),
        classes=[(name, [_figure(pooled["classes"][name], metric) for metric in METRICS]) for name in data["classes"]],
        names=data["classes"],
        scenes=[(name, [_number(one["classes"][label]["dice"]) for label in data["classes"]]) for name, one in rows],
        more=len(scenes) - len(rows) if rows else 0,
        note=(
            f"Accuracy {_number(pooled['accuracy'])}, kappa {_number(pooled['kappa'])}; boundaries within "
            f"{data['tolerance_px']} px; intervals of 95 % over {data['units']} {data['by']}s, where there are enough."
        ),
    )


def _figure(figures: Mapping[str, Any], metric: str) -> str:
    interval = figures.get(f"{metric}_interval")
    span = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return _number(figures[metric]) + span


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f}"
