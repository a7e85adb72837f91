"""Counts of a comparison: whole numbers that add up over windows, in any order, on any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.boundaries import boundary_counts
from tilesseg.raster.calibration import VALUES, score_histogram
from tilesseg.raster.labels import FAILED, IGNORED, NODATA
from tilesseg.raster.metrics import confusion
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the pixels of a window, a block, a scene or a run."""

    confusion: NDArray[np.int64]
    """Pixels by true class and label, `(classes, classes + 1)`; the last column has no class."""
    boundary: NDArray[np.int64]
    """Boundary pixels of each class and those that are hit, `(classes, 4)`, see `raster.boundaries`."""
    scores: NDArray[np.int64] | None = None
    """Pixels by stored score of each class, `(classes, 251, 2)`, see `raster.calibration`; None without scores."""
    failed: int = 0
    """Number of pixels with a true class that are 254 in the mask."""
    nodata: int = 0
    """Number of pixels with a true class that are 255 in the mask, whether or not they count as wrong."""
    unknown: int = 0
    """Number of pixels whose true class is not known."""

    @classmethod
    def none(cls, classes: int, *, scores: bool = False) -> Counts:
        """Counts of no pixel."""
        histogram = np.zeros((classes, VALUES, 2), np.int64) if scores else None
        return cls(np.zeros((classes, classes + 1), np.int64), np.zeros((classes, 4), np.int64), histogram)

    def __add__(self, other: Counts) -> Counts:
        scores = None if self.scores is None or other.scores is None else self.scores + other.scores
        return Counts(
            self.confusion + other.confusion,
            self.boundary + other.boundary,
            scores,
            self.failed + other.failed,
            self.nodata + other.nodata,
            self.unknown + other.unknown,
        )

    def without_scores(self) -> Counts:
        """The counts of labels alone: a histogram of scores is far larger."""
        return Counts(self.confusion, self.boundary, None, self.failed, self.nodata, self.unknown)

    @property
    def known(self) -> int:
        """Number of pixels that are judged."""
        return int(self.confusion.sum())

    @property
    def pixels(self) -> int:
        """Number of all pixels."""
        return self.known + self.unknown

    def to_json(self) -> dict[str, Any]:
        """The counts of labels as plain data."""
        return {
            "known_px": self.known,
            "unknown_px": self.unknown,
            "failed_px": self.failed,
            "nodata_px": self.nodata,
            "confusion": self.confusion.tolist(),
            "boundary": self.boundary.tolist(),
        }


def count_window(
    truth: Labels,
    mask: Labels,
    classes: int,
    *,
    tolerance: int,
    inner: Window,
    scores: NDArray[np.uint8] | None = None,
    only_valid: bool = False,
) -> Counts:
    """Count a window that is given with its halo.

    Args:
        truth: true classes `(y, x)`, 255 where they are not known.
        mask: labels of the same pixels.
        classes: number of classes.
        tolerance: tolerance of boundaries in pixels.
        inner: window that is counted, in pixels of the arrays.
        scores: stored scores `(classes, y, x)` of the inner window.
        only_valid: whether pixels without data in the mask (255) are left out; else they are wrong.

    Raises:
        ValueError: the truth has a label that is no class.
    """
    place = inner.slices()
    known = truth[place] != IGNORED
    failed = int((known & (mask[place] == FAILED)).sum())
    nodata = int((known & (mask[place] == NODATA)).sum())
    if only_valid:
        truth = np.where(mask == NODATA, np.uint8(IGNORED), truth)
    own = truth[place]
    histogram = None
    if scores is not None:
        histogram = np.stack([score_histogram(own, scores[label], label) for label in range(classes)])
    return Counts(
        confusion(own, mask[place], classes),
        boundary_counts(truth, mask, classes, tolerance=tolerance, inner=inner),
        histogram,
        failed,
        nodata,
        int((own == IGNORED).sum()),
    )
