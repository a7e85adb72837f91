"""Blending: overlapping predictions become one score per pixel, in bounded memory.

Weights are strictly positive and the sum of weighted scores is divided by the sum of weights, with no epsilon: a
constant prediction stays constant up to the image's border. `crop` is the case of one prediction per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.labels import SCORE_STEPS
from tilesseg.window import Window

Blend = Literal["gaussian", "linear", "hann", "crop"]

Decide = Callable[[NDArray[np.float32]], NDArray[Any]]
"""From scores `(channel, y, x)` to what is stored, `(…, y, x)`."""
SUMS = np.dtype(np.float64)
"""Type of the sums: in float32 a constant score comes back with an error of up to 5 ulp, in float64 within 1."""
_BEYOND = 1e-3
"""What a score may lie outside 0–1 and still be stored."""
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
    """Sums the predictions over one core, in lattice order: rows from top to bottom, each from left to right.

    For each row of patches: `start`, `add` for those that were predicted, `finish`. Held as sums is only what further
    patches may still touch: one patch, and along the core the rows that the next row of patches shares. A pixel's
    contributions are added in the order of the calls, so its sum does not depend on the core it lies in.
    """

    def __init__(
        self, core: Window, weights: NDArray[np.float32], channels: int, decide: Decide, *, stride: int
    ) -> None:
        """Start at the top of `core`.

        Args:
            core: the pixels wanted.
            weights: `(s, s)` over a patch's support.
            channels: score channels.
            decide: what becomes of the blended scores; it may not keep them.
            stride: distance between the origins of patches.
        """
        self._core, self._weights, self._stride = core, weights, stride
        self._decide, self._like = decide, decide(np.zeros((channels, 1, 1), np.float32))
        side = len(weights)
        self._shared = np.zeros((channels + 1, side - stride, core.width), SUMS)
        """Scores and, last, weights that the patches above have summed up in the top rows of this row of patches."""
        self._here = np.zeros((channels + 1, side, side), SUMS)
        """The same for the columns that the next patch may touch, in all rows of this row of patches."""
        self._top = self._until = core.y
        self._y = self._x = 0
        """Where `_here` lies in the image."""

    def start(self, first: Window, until: int) -> None:
        """Begin a row of patches.

        Args:
            first: support of its first patch, whether it will be added or not.
            until: image row up to which this row of patches completes the core.
        """
        self._top, self._until = self._until, until
        self._y, self._x = first.y, first.x
        self._decided = _rows_like(self._like, self._until - self._top, self._core.width)
        self._load(0)

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """Add a patch's scores `(channel, s, s)`, which lie on the window `support`.

        Raises:
            ValueError: a score is NaN or infinite.
        """
        _refuse_infinite(scores)
        self._advance(support.x)
        for channel, sums in zip(scores, self._here, strict=False):
            sums += channel * self._weights
        self._here[-1] += self._weights

    def finish(self) -> NDArray[Any]:
        """What was decided of the core's rows `(…, rows, width)` that are complete now.

        The scores of pixels that no patch touched are 0.
        """
        self._advance(self._core.x_stop)
        return self._decided

    def _advance(self, x: int) -> None:
        """No patch will touch the columns left of `x` any more in this row of patches."""
        side = len(self._weights)
        while self._x < x:
            columns = min(x - self._x, side)
            self._settle(columns)
            self._here[..., : side - columns] = self._here[..., columns:]
            self._x += columns
            self._load(side - columns)

    def _settle(self, columns: int) -> None:
        """Decide the first columns of `_here`, and keep the rows that the next row of patches shares."""
        part = Window(self._y, self._x, len(self._weights), columns).intersect(self._core)
        here, seen = part.slices(Window(self._y, self._x, 0, 0))[1], part.slices(self._core)[1]
        self._shared[..., seen] = self._here[:, self._stride :, here]
        done = self._here[:, self._top - self._y : self._until - self._y, here]
        scores, total = done[:-1], done[-1]
        np.divide(scores, total, out=scores, where=total > 0)
        self._decided[..., seen] = self._decide(scores.astype(np.float32))

    def _load(self, column: int) -> None:
        """Begin the columns of `_here` from `column` on with what the patches above left."""
        new = self._here[..., column:]
        new[:] = 0
        whole = Window(0, self._x + column, 1, new.shape[-1])
        part = whole.intersect(Window(0, self._core.x, 1, self._core.width))
        if not part.empty:
            shared = self._shared[..., part.slices(self._core)[1]]
            new[:, : shared.shape[1], part.slices(whole)[1]] = shared


class Mosaic:
    """As `Blender` where every pixel has one prediction (crop): decided patch by patch, so that no scores are held."""

    def __init__(self, core: Window, channels: int, decide: Decide) -> None:
        """Start at the top of `core`."""
        self._core, self._decide, self._until = core, decide, core.y
        self._like = decide(np.zeros((channels, 1, 1), np.float32))

    def start(self, first: Window, until: int) -> None:
        """As `Blender.start`."""
        self._place = Window.from_bounds(self._until, self._core.x, until, self._core.x_stop)
        self._decided, self._until = _rows_like(self._like, *self._place.shape), until

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """As `Blender.add`."""
        _refuse_infinite(scores)
        part = support.intersect(self._place)
        self._decided[..., *part.slices(self._place)] = self._decide(scores[:, *part.slices(support)])

    def finish(self) -> NDArray[Any]:
        """As `Blender.finish`; pixels that no patch touched are 0."""
        return self._decided


def _rows_like(decided: NDArray[Any], rows: int, width: int) -> NDArray[Any]:
    return np.zeros((*decided.shape[:-2], rows, width), decided.dtype)


def _refuse_infinite(scores: NDArray[np.float32]) -> None:
    if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        raise ValueError("the model gave scores that are not finite")


def decide(scores: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.uint8]:
    """Labels `(y, x)` from scores `(channel, y, x)`.

    The class of the highest score, ties to the lower class; or, with a threshold, 1 where the only channel reaches it.
    """
    labels = np.empty(scores.shape[1:], np.uint8)
    for y in range(0, len(labels), _STRIP):
        rows = slice(y, y + _STRIP)
        labels[rows] = _highest(scores[:, rows]) if threshold is None else scores[0, rows] >= np.float32(threshold)
    return labels


def decide_and_keep(
    scores: NDArray[np.float32], threshold: float | None = None, *, kept: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Labels as `decide` gives them and, below, the kept channels as `quantise` does: `(1 + kept, y, x)`.

    Raises:
        ModelError: a kept score is not between 0 and 1.
    """
    result = np.empty((1 + len(kept), *scores.shape[1:]), np.uint8)
    result[0] = decide(scores, threshold)
    for plane, channel in zip(result[1:], kept, strict=True):
        plane[:] = quantise(scores[channel])
    return result


def quantise(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scores 0–1 as 0–250, rounded to the nearest; a whisker outside is taken for rounding.

    Raises:
        ModelError: a score is not between 0 and 1.
    """
    for score in (scores.min(initial=0), scores.max(initial=0)):
        if not -_BEYOND <= score <= 1 + _BEYOND:
            raise ModelError(
                f"the model gives a score of {score:.4g}, and scores are stored as 0 to 1; set activation in its "
                "model.yaml (softmax or sigmoid), or output.scores: false"
            )
    steps: NDArray[np.float32] = np.rint(np.clip(scores, 0, 1) * np.float32(SCORE_STEPS))
    return steps.astype(np.uint8)


def _highest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Index of the highest score, by whole-array minima and maxima: 20 times as fast as a masked assignment."""
    best, labels = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for label, channel in enumerate(scores[1:], start=1):
        higher = (channel > best).view(np.uint8)
        np.maximum(labels, higher * np.uint8(label), out=labels)
        np.maximum(best, channel, out=best)
    return labels
