"""Metrics: agreement of a mask with a reference, from confusion matrices that add up over windows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import NODATA


def confusion(reference: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels by reference class and predicted label, `(classes, classes + 1)`.

    The last column counts pixels without a class in the mask, 254 and 255. Pixels whose reference is 255 are left
    out. Matrices of several windows add up.

    Args:
        reference: labels `(y, x)`, 0 … classes − 1 or 255.
        predicted: labels of the same pixels.
        classes: number of classes.
    """
    known = reference != NODATA
    rows, columns = reference[known].astype(np.int64), np.minimum(predicted[known], classes).astype(np.int64)
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class; NaN for a class that neither reference nor mask has."""
    hits = np.diagonal(matrix).astype(np.float64)
    union = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - hits
    result: NDArray[np.float64] = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    return result
