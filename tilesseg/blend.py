"""Blending: overlapping predictions become one score per pixel, in bounded memory.

Weights are strictly positive and the sum of weighted scores is divided by the sum of weights, with no epsilon: a
constant prediction stays constant up to the image's border. `crop` is the case of one prediction per pixel.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.window import Window

Blend = Literal["gaussian", "linear", "hann", "crop"]
FAILED, NODATA = 254, 255
"""Labels that are not classes: failed or not yet processed; no data in the image."""


def profile(kind: Blend, size: int) -> NDArray[np.float32]:
    """Weights along one axis of `size` pixels, symmetric and strictly positive.

    `gaussian` has a standard deviation of an eighth of the size, as nnU-Net (Isensee et al. 2021) uses it; `hann` is
    sampled at pixel centres, so that it does not reach zero at the edge.
    """
    centres = (np.arange(size) + 0.5) / size
    match kind:
        case "gaussian":
            values = np.exp(-0.5 * ((centres - 0.5) / 0.125) ** 2)
        case "linear":
            values = 1 - np.abs(2 * centres - 1)
        case "hann":
            values = np.sin(np.pi * centres) ** 2
        case "crop":
            values = np.ones(size)
    return values.astype(np.float32)


def patch_weights(kind: Blend, size: int) -> NDArray[np.float32]:
    """Weights `(size, size)` of a patch's support."""
    one = profile(kind, size)
    return np.outer(one, one)


class Blender:
    """Sums the predictions over one core, from top to bottom.

    Holds only the rows that further patches may still touch. Contributions are added in the order of the calls:
    call in lattice order, and a pixel's sum does not depend on the core it lies in.
    """

    def __init__(self, core: Window, weights: NDArray[np.float32], channels: int, *, exclusive: bool = False) -> None:
        """Start at the top of `core`.

        Args:
            core: the pixels wanted.
            weights: `(s, s)` over a patch's support.
            channels: score channels.
            exclusive: every pixel gets one prediction of weight 1 (crop): nothing is divided.
        """
        self._core, self._weights, self._top = core, weights, core.y
        rows = weights.shape[0]
        self._sums = np.zeros((channels, rows, core.width), np.float32)
        self._total = None if exclusive else np.zeros((rows, core.width), np.float32)

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """Add a patch's scores `(channel, s, s)`, which lie on the window `support`.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            raise ValueError("the model gave scores that are not finite")
        held = Window(self._top, self._core.x, self._sums.shape[1], self._core.width)
        part = support.intersect(self._core).intersect(held)
        source, target = part.slices(support), part.slices(held)
        if self._total is None:
            self._sums[:, *target] = scores[:, *source]
            return
        weights = self._weights[source]
        self._sums[:, *target] += scores[:, *source] * weights
        self._total[target] += weights

    def finish(self, until: int) -> NDArray[np.float32]:
        """Scores `(channel, rows, width)` of the core's rows from where the last call ended up to `until`.

        Pixels that no patch touched are 0.
        """
        rows = until - self._top
        scores = self._sums[:, :rows].copy()
        if self._total is not None:
            total = self._total[:rows]
            np.divide(scores, total, out=scores, where=total > 0)
            _shift(self._total, rows)
        _shift(self._sums, rows)
        self._top = until
        return scores


def _shift(rows: NDArray[np.float32], count: int) -> None:
    """Move the rows `(…, y, x)` up by `count` and clear those that enter at the bottom."""
    kept = rows.shape[-2] - count
    rows[..., :kept, :] = rows[..., count:, :]
    rows[..., kept:, :] = 0


def decide(scores: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.uint8]:
    """Labels `(y, x)` from scores `(channel, y, x)`.

    The class of the highest score, ties to the lower class; or, with a threshold, 1 where the only channel reaches it.
    """
    if threshold is not None:
        reached: NDArray[np.bool_] = scores[0] >= np.float32(threshold)
        return reached.astype(np.uint8)
    best, labels = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, channel in enumerate(scores[1:], start=1):
        labels[channel > best] = label
        np.maximum(best, channel, out=best)
    return labels
