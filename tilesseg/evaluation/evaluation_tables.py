"""Tables of an evaluation: text for the terminal and for papers, and rows for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import isnan

from tilesseg.evaluation.counts import Counts
from tilesseg.evaluation.evaluation import METRICS, Evaluation
from tilesseg.raster.bootstrap import Interval
from tilesseg.raster.boundaries import boundary_scores
from tilesseg.raster.calibration import calibration_error, cross_entropy
from tilesseg.raster.metrics import accuracy, dice, kappa

COLUMNS = (
    "scene", "class", "true_px", "mask_px", *METRICS, "boundary_precision", "boundary_recall", "boundary_f1",
)  # fmt: skip
"""Columns of `evaluation.csv`; rows of the scene `pooled` are of all scenes together."""


def class_table(evaluation: Evaluation) -> str:
    """Table of the classes over all scenes, with 95 % intervals."""
    pooled = evaluation.pooled
    spans = {metric: evaluation.interval(metric) for metric in METRICS}
    boundary, boundary_spans = boundary_scores(pooled.boundary)[:, 2], evaluation.boundary_interval()
    head = ["class", "true px", "Dice", "IoU", "precision", "recall", f"boundary F1 ({evaluation.tolerance} px)"]
    rows = []
    for label, name in enumerate(evaluation.classes):
        values = [with_interval(float(METRICS[m](pooled.confusion)[label]), spans[m][label]) for m in METRICS]
        edge = with_interval(float(boundary[label]), boundary_spans[label])
        rows.append([name, f"{int(pooled.confusion[label].sum()):,}", *values, edge])
    return aligned([head, *rows])


def scene_table(evaluation: Evaluation) -> str:
    """Table of the scenes with the Dice of each class; below, their mean and the pooled figure."""
    head = ["scene", "known px", *evaluation.classes]
    rows = [
        [scene.name, f"{scene.total.known:,}", *map(number, dice(scene.total.confusion))] for scene in evaluation.scenes
    ]
    mean = ["mean of scenes", "", *map(number, evaluation.mean("dice"))]
    pooled = ["pooled", f"{evaluation.pooled.known:,}", *map(number, dice(evaluation.pooled.confusion))]
    return aligned([head, *rows, mean, pooled])


def summary_lines(evaluation: Evaluation) -> list[str]:
    """Sentences on all classes together, on pixels that are left out, and on the units of the intervals."""
    counts = evaluation.pooled
    lines = [f"accuracy {number(float(accuracy(counts.confusion)))}, kappa {number(float(kappa(counts.confusion)))}"]
    if counts.scores is not None:
        errors = ", ".join(
            f"{name} {number(float(error))}"
            for name, error in zip(evaluation.classes, calibration_error(counts.scores), strict=True)
        )
        lines.append(f"calibration error {errors}; cross-entropy {number(cross_entropy(counts.scores))}")
    if counts.unknown:
        left = f"{counts.unknown:,} px ({counts.unknown / counts.pixels:.1%}) are left out"
        lines.append(f"{left}: their class is not known{_with_nodata(evaluation)}")
    if counts.failed:
        lines.append(f"{counts.failed:,} px are 254 in the mask, failed or not processed, and count as wrong")
    if counts.nodata and not evaluation.only_valid:
        lines.append(
            f"{counts.nodata:,} px are 255 in the mask, nodata, and count as wrong (--only-valid leaves them out)"
        )
    lines.append(_units(evaluation))
    return lines


def _with_nodata(evaluation: Evaluation) -> str:
    counts = evaluation.pooled
    if not (evaluation.only_valid and counts.nodata):
        return ""
    return f", or the mask has no data there ({counts.nodata:,} px, {counts.nodata / counts.pixels:.1%})"


def _units(evaluation: Evaluation) -> str:
    units = f"{len(evaluation.units)} {evaluation.by}{'s' * (len(evaluation.units) != 1)}"
    if all(interval is None for interval in evaluation.interval("dice")):
        return f"no intervals: {units} are too few"
    return f"intervals: 95 %, by bootstrap over {units}"


def csv_text(evaluation: Evaluation) -> str:
    """Text of `evaluation.csv`: a row for each scene and class, then the pooled figures."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for scene, counts in [*((one.name, one.total) for one in evaluation.scenes), ("pooled", evaluation.pooled)]:
        table.writerows(_csv_rows(scene, counts, evaluation.classes))
    return out.getvalue()


def _csv_rows(scene: str, counts: Counts, classes: Sequence[str]) -> list[list[str]]:
    boundary = boundary_scores(counts.boundary)
    values = {metric: function(counts.confusion) for metric, function in METRICS.items()}
    return [
        [
            scene,
            name,
            str(int(counts.confusion[label].sum())),
            str(int(counts.confusion[:, label].sum())),
            *("" if isnan(each[label]) else f"{each[label]:.6f}" for each in values.values()),
            *("" if isnan(each) else f"{each:.6f}" for each in boundary[label].tolist()),
        ]
        for label, name in enumerate(classes)
    ]


def number(value: float) -> str:
    """Figure of three digits; a dash where it is undefined."""
    return "–" if isnan(value) else f"{value:.3f}"


def with_interval(value: float, interval: Interval | None) -> str:
    """Figure with its interval, as `0.912 [0.88, 0.93]`."""
    return number(value) if interval is None else f"{number(value)} [{interval.low:.2f}, {interval.high:.2f}]"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Table as text: the first column to the left, others to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
