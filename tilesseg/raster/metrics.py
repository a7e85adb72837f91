"""Metrics: agreement of a mask with a reference, from confusion matrices that add up over windows.

All functions of a matrix take several at once, `(…, classes, classes + 1)`, and give NaN where a metric is undefined: a
class that neither reference nor mask has is no perfect score. Metrics as in Sokolova and Lapalme (2009); kappa as in
Cohen (1960).
"""

from __future__ import annotations

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
    hits, true, found = _totals(matrix)
    return _ratio(hits, true + found - hits)


def dice(matrix: Counts) -> Figures:
    """Dice coefficient of each class, `(…, classes)`: the F1 of its pixels."""
    hits, true, found = _totals(matrix)
    return _ratio(2 * hits, true + found)


def precision(matrix: Counts) -> Figures:
    """Share of the pixels of each class in the mask that are of this class, `(…, classes)`."""
    hits, _, found = _totals(matrix)
    return _ratio(hits, found)


def recall(matrix: Counts) -> Figures:
    """Share of the pixels of each class in the reference that the mask finds, `(…, classes)`."""
    hits, true, _ = _totals(matrix)
    return _ratio(hits, true)


def accuracy(matrix: Counts) -> Figures:
    """Share of all known pixels whose label is right, `(…)`."""
    hits, true, _ = _totals(matrix)
    return _ratio(hits.sum(axis=-1), true.sum(axis=-1))


def kappa(matrix: Counts) -> Figures:
    """Cohen's kappa, `(…)`: agreement beyond that of two labellings which are independent; 1 at most."""
    hits, true, found = (each.astype(np.float64) for each in _totals(matrix))
    whole = true.sum(axis=-1)
    chance = _ratio((true * found).sum(axis=-1), whole**2)
    return _ratio(_ratio(hits.sum(axis=-1), whole) - chance, 1 - chance)


def _totals(matrix: Counts) -> tuple[Counts, Counts, Counts]:
    """Pixels of each class that are right, in the reference, and in the mask, each `(…, classes)`."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return hits, matrix.sum(axis=-1), matrix[..., :-1].sum(axis=-2)


def _ratio(part: NDArray[np.float64] | Counts, whole: NDArray[np.float64] | Counts) -> Figures:
    """Quotient, NaN where the divisor is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    result: Figures = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)
    return result
