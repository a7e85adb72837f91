"""Calibration: whether scores are frequencies, from a histogram of stored scores that adds up over windows.

Expected calibration error of each class as in Nixon et al. (2019), in 25 bins of equal width; cross-entropy of the true
class, where a stored score of 0, which stands for anything below 1/500, counts as 1/500.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import NODATA, SCORE_STEPS

Counts = NDArray[np.int64]

BINS = 25
LEAST = 1 / 500
"""Score that a stored 0 counts as."""
VALUES = SCORE_STEPS + 1


def score_histogram(reference: NDArray[np.uint8], scores: NDArray[np.uint8], label: int) -> Counts:
    """Pixels by stored score of a class, and by whether they are of this class, `(251, 2)`.

    Args:
        reference: labels `(y, x)`, 255 where unknown.
        scores: stored scores of the class, 0 … 250; other values are left out.
        label: the class.
    """
    known = (reference != NODATA) & (scores <= SCORE_STEPS)
    cells = scores[known].astype(np.int64) * 2 + (reference[known] == label)
    return np.bincount(cells, minlength=2 * VALUES).reshape(VALUES, 2)


def calibration_error(histogram: Counts) -> NDArray[np.float64]:
    """Expected calibration error of each class `(…)`, from histograms `(…, 251, 2)`; NaN without pixels."""
    pixels, right, confidence = reliability(histogram)
    total = pixels.sum(axis=-1)
    away = np.abs(np.nan_to_num(right - confidence)) * pixels
    result: NDArray[np.float64] = np.divide(away.sum(axis=-1), total, out=np.full(total.shape, np.nan), where=total > 0)
    return result


def reliability(histogram: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels, share that is of the class, and mean score in each bin, `(…, 25)` each; NaN in empty bins."""
    values = np.arange(VALUES)
    bins = np.minimum(values * BINS // SCORE_STEPS, BINS - 1)
    member = (bins == np.arange(BINS)[:, None]).astype(np.float64)  # (bin, value)
    numbers = histogram.astype(np.float64)
    pixels = numbers.sum(axis=-1) @ member.T
    right, score = numbers[..., 1] @ member.T, (numbers.sum(axis=-1) * values / SCORE_STEPS) @ member.T
    empty = np.full(pixels.shape, np.nan)
    return (
        pixels,
        np.divide(right, pixels, out=empty.copy(), where=pixels > 0),
        np.divide(score, pixels, out=empty, where=pixels > 0),
    )


def cross_entropy(histogram: Counts) -> float:
    """Mean negative logarithm of the score of the true class, from histograms of all classes `(classes, 251, 2)`.

    NaN without pixels.
    """
    true = histogram[..., 1].sum(axis=tuple(range(histogram.ndim - 2)))
    costs = -np.log(np.maximum(np.arange(VALUES) / SCORE_STEPS, LEAST))
    return float(true @ costs / true.sum()) if true.sum() else float("nan")
