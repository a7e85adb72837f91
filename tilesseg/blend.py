"""Blending: overlapping predictions become one score per pixel, in bounded memory.

Weights are strictly positive and the sum of weighted scores is divided by the sum of weights, with no epsilon: a
constant prediction stays constant up to the image's border. `crop` is the case of one prediction per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.window import Window

Blend = Literal["gaussian", "linear", "hann", "crop"]
FAILED, NODATA = 254, 255
"""Labels that are not classes: failed or not yet processed; no data in the image."""

Decide = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From scores `(channel, y, x)` to what is stored, `(…, y, x)`."""
_STRIP = 64
"""Rows worked on at a time, so that what is in between stays in the processor's cache."""


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

    def __init__(self, core: Window, weights: NDArray[np.float32], channels: int, decide: Decide) -> None:
        """Start at the top of `core`.

        Args:
            core: the pixels wanted.
            weights: `(s, s)` over a patch's support.
            channels: score channels.
            decide: what becomes of the blended scores; it may not keep them.
        """
        self._core, self._weights, self._decide, self._top = core, weights, decide, core.y
        rows = weights.shape[0]
        self._sums = np.zeros((channels, rows, core.width), np.float32)
        self._total = np.zeros((rows, core.width), np.float32)

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """Add a patch's scores `(channel, s, s)`, which lie on the window `support`.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        _refuse_infinite(scores)
        held = Window(self._top, self._core.x, self._sums.shape[1], self._core.width)
        part = support.intersect(self._core).intersect(held)
        source, target = part.slices(support), part.slices(held)
        weights = self._weights[source]
        for channel, sums in zip(scores, self._sums, strict=True):
            sums[target] += channel[source] * weights
        self._total[target] += weights

    def finish(self, until: int) -> NDArray[Any]:
        """What was decided of the core's rows `(…, rows, width)` from where the last call ended up to `until`.

        The scores of pixels that no patch touched are 0.
        """
        rows = until - self._top
        decided = [self._decided(slice(y, min(y + _STRIP, rows))) for y in range(0, max(rows, 1), _STRIP)]
        _shift(self._total, rows)
        _shift(self._sums, rows)
        self._top = until
        return np.concatenate(decided, axis=-2)

    def _decided(self, rows: slice) -> NDArray[Any]:
        scores, total = self._sums[:, rows], self._total[rows]
        np.divide(scores, total, out=scores, where=total > 0)
        return self._decide(scores)


class Mosaic:
    """As `Blender` where every pixel has one prediction (crop): decided patch by patch, so that no scores are held."""

    def __init__(self, core: Window, rows: int, channels: int, decide: Decide) -> None:
        """Start at the top of `core`; supports have `rows` rows."""
        self._core, self._decide, self._top = core, decide, core.y
        like = decide(np.zeros((channels, 1, 1), np.float32))
        self._shape, self._dtype = (*like.shape[:-2], rows, core.width), like.dtype
        self._decided = np.zeros(self._shape, self._dtype)

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """Take a patch's scores `(channel, s, s)`, which lie on the window `support`.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        _refuse_infinite(scores)
        held = Window(self._top, self._core.x, *self._shape[-2:])
        part = support.intersect(self._core).intersect(held)
        self._decided[..., *part.slices(held)] = self._decide(scores[:, *part.slices(support)])

    def finish(self, until: int) -> NDArray[Any]:
        """What was decided of the core's rows `(…, rows, width)`; call it after every row of patches.

        Pixels that no patch touched are 0.
        """
        rows = until - self._top
        decided, self._decided, self._top = self._decided, np.zeros(self._shape, self._dtype), until
        return decided[..., :rows, :]


def _refuse_infinite(scores: NDArray[np.float32]) -> None:
    if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        raise ValueError("the model gave scores that are not finite")


def _shift(rows: NDArray[np.float32], count: int) -> None:
    """Move the rows `(…, y, x)` up by `count` and clear those that enter at the bottom."""
    kept = rows.shape[-2] - count
    rows[..., :kept, :] = rows[..., count:, :]
    rows[..., kept:, :] = 0


def decide(scores: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.uint8]:
    """Labels `(y, x)` from scores `(channel, y, x)`.

    The class of the highest score, ties to the lower class; or, with a threshold, 1 where the only channel reaches it.
    """
    labels = np.empty(scores.shape[1:], np.uint8)
    for y in range(0, len(labels), _STRIP):
        rows = slice(y, y + _STRIP)
        labels[rows] = _highest(scores[:, rows]) if threshold is None else scores[0, rows] >= np.float32(threshold)
    return labels


def _highest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Index of the highest score, by whole-array minima and maxima: 20 times as fast as a masked assignment."""
    best, labels = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, channel in enumerate(scores[1:], start=1):
        higher = (channel > best).view(np.uint8)
        np.maximum(labels, higher * np.uint8(label), out=labels)
        np.maximum(best, channel, out=best)
    return labels
