"""Boundaries: how well the outlines of a mask follow those of a reference, within a tolerance.

The boundary of a class are its pixels beside a pixel of another class, by their four neighbours. Edges against the
image's border and against pixels without a class are no boundary. A boundary pixel is hit where the other labelling has
a boundary pixel of the same class within the tolerance, by Euclidean distance of centres. F1 of precision and recall of
boundary pixels: Csurka, Larlus and Perronnin (2013).
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

TRUE, TRUE_HIT, FOUND, FOUND_HIT = range(4)
"""Columns of the counts: boundary pixels of the reference, those that are hit, and the same of the mask."""


def halo(tolerance: int) -> int:
    """Number of pixels round a window that its boundary pixels depend on."""
    return tolerance + 1


def boundary_counts(reference: Labels, predicted: Labels, classes: int, *, tolerance: int, inner: Window) -> Counts:
    """Boundary pixels of each class in the inner window, and how many of them are hit, `(classes, 4)`.

    Counts of windows that partition an image add up to those of the image, if each window comes with its halo, as far
    as the image goes. What the mask says where the reference is unknown counts nowhere.

    Args:
        reference: labels `(y, x)`, 255 where unknown.
        predicted: labels of the same pixels; 254 and 255 are no class.
        classes: number of classes.
        tolerance: distance in pixels.
        inner: the window that is counted, in pixels of the arrays.
    """
    predicted = np.where(reference == NODATA, np.uint8(NODATA), predicted)
    counts = np.zeros((classes, 4), np.int64)
    for label in range(classes):
        extent = _extent((reference == label) | (predicted == label))
        if extent is None:
            continue
        true, found = (_boundary(labels[extent.slices()], label, classes) for labels in (reference, predicted))
        place = inner.intersect(extent).slices(extent)
        counts[label, TRUE], counts[label, FOUND] = true[place].sum(), found[place].sum()
        if counts[label, TRUE]:
            counts[label, TRUE_HIT] = (true & _within(found, tolerance))[place].sum()
        if counts[label, FOUND]:
            counts[label, FOUND_HIT] = (found & _within(true, tolerance))[place].sum()
    return counts


def boundary_scores(counts: Counts) -> NDArray[np.float64]:
    """Precision, recall and F1 of the boundary of each class, `(…, classes, 3)`; NaN where undefined."""
    numbers = counts.astype(np.float64)
    precision, recall = (
        np.divide(hit, every, out=np.full(every.shape, np.nan), where=every > 0)
        for hit, every in (
            (numbers[..., FOUND_HIT], numbers[..., FOUND]),
            (numbers[..., TRUE_HIT], numbers[..., TRUE]),
        )
    )
    # a boundary on one side only is a miss: its F1 is 0, and only where neither side has one it is undefined
    some = (numbers[..., TRUE] > 0) | (numbers[..., FOUND] > 0)
    both = np.nan_to_num(precision) + np.nan_to_num(recall)
    product = 2 * np.nan_to_num(precision) * np.nan_to_num(recall)
    f1 = np.divide(product, both, out=np.zeros_like(both), where=both > 0)
    return np.stack([precision, recall, np.where(some, f1, np.nan)], axis=-1)


def _extent(mask: Mask) -> Window | None:
    """Window of the pixels of a mask and their neighbours; None where there is none."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    tight = Window.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return tight.inset(-1, -1).intersect(Window(0, 0, *mask.shape))


def _boundary(labels: Labels, label: int, classes: int) -> Mask:
    """Pixels of a class beside a pixel of another class."""
    own: Mask = labels == label
    other = (labels < classes) & ~own
    beside: Mask = np.zeros(labels.shape, np.bool_)
    beside[1:] |= other[:-1]
    beside[:-1] |= other[1:]
    beside[:, 1:] |= other[:, :-1]
    beside[:, :-1] |= other[:, 1:]
    beside &= own
    return beside


def _within(mask: Mask, tolerance: int) -> Mask:
    """Pixels within a distance of a mask: for each row of the disc, a run of its width."""
    near: Mask = np.zeros(mask.shape, np.bool_)
    height = len(mask)
    for dy in range(-min(tolerance, height - 1), min(tolerance, height - 1) + 1):
        wide = _widened(mask, isqrt(tolerance**2 - dy**2))
        near[max(0, dy) : height + min(0, dy)] |= wide[max(0, -dy) : height - max(0, dy)]
    return near


def _widened(mask: Mask, reach: int) -> Mask:
    """Pixels with a pixel of a mask at most so many columns away."""
    width = mask.shape[1]
    sums = np.zeros((len(mask), width + 1), np.int32)
    np.cumsum(mask, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    first, stop = np.maximum(columns - reach, 0), np.minimum(columns + reach + 1, width)
    return np.greater(sums[:, stop], sums[:, first])
