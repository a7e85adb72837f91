"""Metrics: agreement of a mask with a reference, from confusion matrices that add up over windows.

All functions of a matrix take several at once, `(…, classes, classes + 1)`, and give NaN where a metric is undefined: a
class that neither reference nor mask has is no perfect score. Metrics as in Sokolova and Lapalme (2009); kappa as in
Cohen (1960).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import NODATA

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]


def confusion(reference: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> Counts:
    """Pixels by reference class and predicted label, `(classes, classes + 1)`.

    The last column counts pixels without a class in the mask, 254 and 255. Pixels whose reference is 255 are left
    out. Matrices of several windows add up.

    Args:
        reference: labels `(y, x)`, 0 … classes − 1 or 255.
        predicted: labels of the same pixels.
        classes: number of classes.

    Raises:
        ValueError: the reference has another label.
    """
    known = reference != NODATA
    rows, columns = reference[known].astype(np.int64), np.minimum(predicted[known], classes).astype(np.int64)
    if rows.size and rows.max() >= classes:
        raise ValueError(f"the reference has the label {rows.max()}, and the classes are 0 … {classes - 1}")
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def iou(matrix: Counts) -> Figures:
    """Intersection over union of each class, `(…, classes)`."""
    return CLASS_METRICS["iou"](class_totals(matrix))


def dice(matrix: Counts) -> Figures:
    """Dice coefficient of each class, `(…, classes)`: the F1 of its pixels."""
    return CLASS_METRICS["dice"](class_totals(matrix))


def precision(matrix: Counts) -> Figures:
    """Share of the pixels of each class in the mask that are of this class, `(…, classes)`."""
    return CLASS_METRICS["precision"](class_totals(matrix))


def recall(matrix: Counts) -> Figures:
    """Share of the pixels of each class in the reference that the mask finds, `(…, classes)`."""
    return CLASS_METRICS["recall"](class_totals(matrix))


def accuracy(matrix: Counts) -> Figures:
    """Share of all known pixels whose label is right, `(…)`."""
    hits, true, _ = np.moveaxis(class_totals(matrix), -1, 0)
    return _ratio(hits.sum(axis=-1), true.sum(axis=-1))


def kappa(matrix: Counts) -> Figures:
    """Cohen's kappa, `(…)`: agreement beyond that of two labellings which are independent; 1 at most."""
    hits, true, found = np.moveaxis(class_totals(matrix).astype(np.float64), -1, 0)
    whole = true.sum(axis=-1)
    chance = _ratio((true * found).sum(axis=-1), whole**2)
    return _ratio(_ratio(hits.sum(axis=-1), whole) - chance, 1 - chance)


def class_totals(matrix: Counts) -> Counts:
    """Pixels of each class that are right, in the reference, and in the mask, `(…, classes, 3)`.

    They add up like matrices, and are far smaller where classes are many.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([hits, matrix.sum(axis=-1), matrix[..., :-1].sum(axis=-2)], axis=-1)


def _ratio(part: NDArray[np.float64] | Counts, whole: NDArray[np.float64] | Counts) -> Figures:
    """Quotient, NaN where the divisor is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    result: Figures = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)
    return result


HITS, TRUE, FOUND = range(3)
"""Places in the totals of a class."""
CLASS_METRICS: Mapping[str, Callable[[Counts], Figures]] = {
    "dice": lambda totals: _ratio(2 * totals[..., HITS], totals[..., TRUE] + totals[..., FOUND]),
    "iou": lambda totals: _ratio(totals[..., HITS], totals[..., TRUE] + totals[..., FOUND] - totals[..., HITS]),
    "precision": lambda totals: _ratio(totals[..., HITS], totals[..., FOUND]),
    "recall": lambda totals: _ratio(totals[..., HITS], totals[..., TRUE]),
}
"""Metrics of each class, `(…, classes)`, from the totals of `class_totals`."""
