"""Blending: overlapping predictions become one score per pixel, in bounded memory.

Weights are strictly positive and divided by their sum over all patches that see a pixel, with no epsilon: a constant
prediction stays constant up to the image's border. `crop` is the case of one prediction per pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.planning.memory import SUMS
from tilesseg.planning.recipe import Blend
from tilesseg.raster.window import Window

Decide = Callable[[NDArray[np.float32]], NDArray[Any]]
"""Function from scores `(channel, y, x)` to the stored values, `(…, y, x)`."""


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


class Share(NamedTuple):
    """A patch's share in the pixels of its support, along one axis."""

    weights: NDArray[np.float64]
    """Weights of the patch; those of all patches in a pixel sum to 1, exactly where there is one patch."""
    before: int
    """Number of first pixels in which earlier patches have a share."""
    complete: int
    """Number of first pixels in which no later patch has a share."""


class Shares:
    """The shares of all patches along one axis of the image: a partition of unity, made from their weights."""

    def __init__(self, weights: NDArray[np.float32], *, stride: int, first: int, count: int) -> None:
        """Prepare for the patches of the whole image, so that a share does not depend on tiles.

        Args:
            weights: `(s,)` over a patch's support.
            stride: distance between the origins of patches.
            first: start of the first patch's support.
            count: number of patches.
        """
        self.side, self.stride = len(weights), stride
        self._weights, self._first, self._count = weights.astype(SUMS), first, count
        self._known: dict[tuple[int, int], Share] = {}

    def of(self, start: int) -> Share:
        """Share of the patch whose support begins at `start`."""
        number, near = (start - self._first) // self.stride, (self.side - 1) // self.stride
        earlier, later = min(number, near), min(self._count - 1 - number, near)
        if (earlier, later) not in self._known:
            self._known[earlier, later] = self._share(earlier, later)
        return self._known[earlier, later]

    def _share(self, earlier: int, later: int) -> Share:
        total = np.zeros(self.side, SUMS)
        for shift in range(-earlier * self.stride, later * self.stride + 1, self.stride):  # always in this order
            start, stop = max(0, shift), min(self.side, self.side + shift)
            total[start:stop] += self._weights[start - shift : stop - shift]
        before = self.side - self.stride if earlier else 0
        return Share(self._weights / total, before, self.stride if later else self.side)


class Blender:
    """Sums the predictions over one core, in lattice order: rows from top to bottom, each from left to right.

    For each row of patches: `start`, `add` for those that were predicted, `finish`. A pixel's score is the sum of its
    patches' scores by their shares, first along the row of patches, then down the column; where it has one patch, the
    score itself. Sums are held only for pixels that further patches may still touch. A patch may be left out if none
    of its pixels is needed. A pixel's contributions come in the order of the calls, so its score does not depend on
    the core.
    """

    def __init__(self, core: Window, axes: tuple[Shares, Shares], channels: int, decide: Decide) -> None:
        """Start at the top of `core`.

        Args:
            core: the pixels of the result.
            axes: shares along y and x.
            channels: number of score channels.
            decide: function that is applied to the blended scores; it may not keep them.
        """
        self._core, self._decide, (self._rows, self._columns) = core, decide, axes
        self._like = decide(np.zeros((channels, 1, 1), np.float32))
        side, stride = self._rows.side, self._rows.stride
        self._above = np.zeros((channels, side - stride, core.width), SUMS)
        """Sums of the rows of patches above, in the top rows of this one."""
        self._left = np.zeros((channels, side, side - stride), SUMS)
        """Sums of the patches to the left, in the first columns of the next one."""
        self._top = self._until = core.y
        self._y = self._x = 0
        """Top of this row of patches, and the column up to which pixels are settled."""

    def start(self, first: Window, until: int) -> None:
        """Begin a row of patches.

        Args:
            first: support of its first patch, which need not be added.
            until: image row up to which this row of patches completes the core.
        """
        self._top, self._until = self._until, until
        self._y, self._x = first.y, first.x
        self._row = self._rows.of(first.y)
        self._decided = _rows_like(self._like, self._until - self._top, self._core.width)
        self._left[:] = 0

    def add(self, support: Window, scores: NDArray[np.float32]) -> None:
        """Add a patch's scores `(channel, s, s)`, all finite, which lie on the window `support`."""
        self._pass(support.x)
        rows = slice(self._top - self._y, self._core.y_stop - self._y)  # those of the core that are not complete yet
        (weights, before, complete), left, scores = self._columns.of(support.x), self._left[:, rows], scores[:, rows]
        left[..., :before] += scores[..., :before] * weights[:before]
        self._settle(support.x, left[..., : min(before, complete)].astype(np.float32))
        self._settle(support.x + before, scores[..., before:complete])
        new = max(before, complete)
        left[..., : new - complete] = left[..., complete:new]
        left[..., new - complete : len(weights) - complete] = scores[..., new:] * weights[new:]
        self._x = support.x + complete

    def finish(self) -> NDArray[Any]:
        """Decided values of the core's rows that are complete now, `(…, rows, width)`.

        Values are meaningless where a patch was left out.
        """
        self._pass(self._core.x_stop)
        return self._decided

    def _pass(self, x: int) -> None:
        """Settle pixels left of `x`: patches that would touch them were left out."""
        if self._x < x:
            self._above[..., max(0, self._x - self._core.x) : max(0, x - self._core.x)] = 0
            self._left[:] = 0
            self._x = x

    def _settle(self, x: int, scores: NDArray[np.float32]) -> None:
        """Settle columns from `x` on, summed along the row: `scores (channel, rows from the top, columns)`."""
        part = Window(0, x, 1, scores.shape[2]).intersect(Window(0, self._core.x, 1, self._core.width))
        if part.empty:
            return
        scores, seen = scores[..., part.x - x : part.x_stop - x], part.shift(0, -self._core.x).slices()[1]
        (weights, before, complete), above = self._row, self._above[..., seen]
        top, until = self._top - self._y, self._until - self._y
        stop, weights = top + scores.shape[1], weights[:, None]

        def summed(start: int, stop: int) -> NDArray[np.float64]:
            sums: NDArray[np.float64] = scores[:, start - top : stop - top] * weights[start:stop]
            sums[:, : max(0, before - start)] += above[:, start : min(before, stop)]
            return sums

        for start, end in ((top, min(before, until)), (max(top, before), until)):
            if start < end:
                mixed = summed(start, end).astype(np.float32) if start < before else scores[:, start - top : end - top]
                self._decided[..., start - top : end - top, seen] = self._decide(mixed)
        start = max(top, complete)
        if start < stop:
            above[:, start - complete : stop - complete] = summed(start, stop)


class Mosaic:
    """Blender for `crop`, where every pixel has one prediction: decided patch by patch, so that no scores are held."""

    def __init__(self, core: Window, decide: Decide | None = None, *, channels: int = 1) -> None:
        """Start at the top of `core`; without `decide` labels are added, not scores."""
        self._core, self._decide, self._until = core, decide, core.y
        self._like = decide(np.zeros((channels, 1, 1), np.float32)) if decide else np.zeros((1, 1), np.uint8)

    def start(self, first: Window, until: int) -> None:
        """Begin a row of patches, see `Blender.start`."""
        self._place = Window.from_bounds(self._until, self._core.x, until, self._core.x_stop)
        self._decided, self._until = _rows_like(self._like, *self._place.shape), until

    def add(self, support: Window, predicted: NDArray[Any]) -> None:
        """Add a patch's scores `(channel, s, s)` or labels `(s, s)`, see `Blender.add`."""
        part = support.intersect(self._place)
        seen = predicted[..., *part.slices(support)]
        self._decided[..., *part.slices(self._place)] = self._decide(seen) if self._decide else seen

    def finish(self) -> NDArray[Any]:
        """Decided values of the complete rows, see `Blender.finish`; pixels that no patch touched are 0."""
        return self._decided


def _rows_like(decided: NDArray[Any], rows: int, width: int) -> NDArray[Any]:
    return np.zeros((*decided.shape[:-2], rows, width), decided.dtype)
