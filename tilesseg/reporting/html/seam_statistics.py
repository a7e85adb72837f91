"""Seams: do steps show where patches begin and end, or where cores meet?

A *line* lies between two neighbouring rows or columns of pixels. What changes across the lines where patches begin
or end, or where cores meet, is compared with what changes across the other lines close by, in the same stretch of
256 pixels: so what the scene itself does there cancels out. About 1 means that no seam can be seen. For labels the
change is the share of pairs of neighbours that differ, for scores the mean of their absolute differences.

The score is a ratio of two sums over stretches of lines; its standard error is that of a ratio estimator, from the
spread of these stretches (Cochran 1977, Sampling Techniques, section 6.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import FAILED
from tilesseg.raster.tiling import Lattice, Tiling
from tilesseg.raster.window import Window

Values = NDArray[np.uint8]
Sums = NDArray[np.float64]

THREADS = 2
"""Windows looked at at a time."""
SIDE = 2048
"""Side of the windows that are read."""
STRETCH = 256
"""Pairs in a stretch of a line."""
NEAR = 16
"""How far from a border, in pixels, lines are compared with it."""
ENOUGH = 30
"""Differing pairs that must be expected across borders before anything is concluded."""
VISIBLE = 1.25


@dataclass(frozen=True, slots=True)
class SeamScore:
    """Change across borders ÷ change elsewhere."""

    ratio: float | None
    """None where there is no border, or nothing to compare it with."""
    error: float
    """Standard error of the ratio."""
    pairs: int
    """Pairs of valid neighbours across borders."""
    expected: float
    """Change that these pairs would have, were they as the pairs close by."""

    @property
    def verdict(self) -> str:
        """What the numbers allow one to say."""
        if self.ratio is None:
            return "no borders to look at"
        if self.expected < ENOUGH and self.ratio - 2 * self.error < VISIBLE:
            return "too little changes near the borders to tell"
        if self.ratio - 2 * self.error > 1:
            return "steps along the borders" if self.ratio >= VISIBLE else "measurable, too faint to be seen"
        return "no seam" if self.ratio + 2 * self.error < VISIBLE else "no seam found, the error is large"


@dataclass(frozen=True, slots=True)
class Seams:
    """The seam scores of a scene."""

    patches: SeamScore
    """Where patches of the lattice begin or end."""
    cores: SeamScore
    """Where the cores of tiles meet."""
    sampled: float
    """Share of the scene's pixels that were read."""


def seams(tiling: Tiling, read: Callable[[Window], Values], *, scores: bool = False, budget: int = 64_000_000) -> Seams:
    """Measure a stored mask, or stored scores.

    Args:
        tiling: how the scene was cut.
        read: labels `(y, x)` of a window, or scores `(class, y, x)`; 254 and 255 are left out.
        scores: the values are quantities, of which differences are taken; labels only differ or not.
        budget: pixels to read, at most, but at least one window of 2048².
    """
    patches, cores = _Tally(), _Tally()
    everything = list(_windows(tiling.shape))
    chosen = _sample(len(everything), max(1, budget // SIDE**2))
    lines = _lines(tiling)

    def measured(number: int) -> list[tuple[int, tuple[Sums, Sums]]]:
        """For rows and for columns, the first line in the window and what changes across it and the others."""
        window = everything[number]
        y, x = max(0, window.y - 1), max(0, window.x - 1)  # pairs across the window's own edge, too
        values = read(Window.from_bounds(y, x, window.y_stop, window.x_stop))
        values = values if values.ndim == 3 else values[None]
        turned = np.ascontiguousarray(values.swapaxes(1, 2))
        return [(y + 1, _stretches(turned, scores)), (x + 1, _stretches(values, scores))]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(measured, chosen):
            for (first, sums), flags in zip(found, lines, strict=True):
                _compare(sums, first, flags, (patches, cores))
    read_pixels = sum(everything[number].area for number in chosen)
    return Seams(patches.score, cores.score, read_pixels / (tiling.shape[0] * tiling.shape[1]))


def patch_lines(lattice: Lattice, size: int) -> NDArray[np.intp]:
    """The lines of an axis, as the pixel after them, at which the supports of patches begin or end."""
    starts = np.arange(lattice.cells(size)) * lattice.stride - lattice.lead + lattice.before
    lines = np.unique(np.concatenate([starts, starts + lattice.support]))
    return lines[(lines > 0) & (lines < size)]


class _Lines(NamedTuple):
    """Flags for the lines 0 … size of an axis."""

    patches: NDArray[np.bool_]
    cores: NDArray[np.bool_]


def _lines(tiling: Tiling) -> tuple[_Lines, _Lines]:
    """Of rows, and of columns."""
    found = []
    for size, core in zip(tiling.shape, tiling.core, strict=True):
        flags = _Lines(np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_))
        flags.patches[patch_lines(tiling.lattice, size)] = True
        flags.cores[core:size:core] = True
        found.append(flags)
    return found[0], found[1]


class _Tally:
    """Sums over stretches of lines."""

    def __init__(self) -> None:
        self._change: list[Sums] = []
        self._expected: list[Sums] = []
        self._pairs = 0.0
        self._elsewhere = 0.0

    def add(self, change: Sums, expected: Sums, pairs: Sums, elsewhere: Sums) -> None:
        self._change.append(change)
        self._expected.append(expected)
        self._pairs += float(pairs.sum())
        self._elsewhere += float(elsewhere.sum())

    @property
    def score(self) -> SeamScore:
        """Where nothing at all changes elsewhere, one pair is taken to: so the ratio is too low, never endless."""
        change, expected = (np.concatenate([*parts, np.zeros(0)]) for parts in (self._change, self._expected))
        pairs = int(self._pairs)
        if not pairs or not self._elsewhere or len(change) < 2:
            return SeamScore(None, 0.0, pairs, 0.0)
        total, least = float(expected.sum()), self._pairs / self._elsewhere
        base = max(total, least)
        ratio = float(change.sum()) / base
        spread = sqrt(float(((change - ratio * expected) ** 2).sum()) * len(change) / (len(change) - 1)) / base
        # Counts scatter even where those seen do not: never surer than so many independent events allow.
        counted = sqrt(max(1.0, float(change.sum()))) / base if total <= least else 0.0
        return SeamScore(round(ratio, 4), round(hypot(spread, counted), 4), pairs, round(total, 1))


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    whole = Window(0, 0, *shape)
    for y in range(0, shape[0], SIDE):
        for x in range(0, shape[1], SIDE):
            yield Window(y, x, SIDE, SIDE).intersect(whole)


def _sample(count: int, most: int) -> list[int]:
    """Which windows to read: all, or some at random that are the same every time."""
    if count <= most:
        return list(range(count))
    return sorted(int(n) for n in np.random.default_rng(0).choice(count, most, replace=False))


def _stretches(values: Values, scores: bool) -> tuple[Sums, Sums]:
    """Valid pairs and their change for each stretch and line `(stretch, line)`; line 0 lies after the first column."""
    lines = -(-values.shape[1] // STRETCH), values.shape[2] - 1
    pairs, change = np.zeros(lines), np.zeros(lines)
    for plane in values:
        left, right = plane[:, :-1], plane[:, 1:]
        valid = (left < FAILED) & (right < FAILED)
        pairs += _counted(valid)
        if scores:
            step = (np.maximum(left, right) - np.minimum(left, right)) * valid
            change += np.add.reduceat(step, np.arange(0, len(step), STRETCH), axis=0, dtype=np.int64)
        else:
            change += _counted((left != right) & valid)
    return pairs, change


def _counted(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many are set in each stretch of a line: half a stretch is counted in bytes, which is many times as fast."""
    bits, half = flags.view(np.uint8), STRETCH // 2
    halves = [bits[start : start + half].sum(axis=0, dtype=np.uint8) for start in range(0, len(bits), half)]
    return np.stack([np.sum(halves[k : k + 2], axis=0, dtype=np.int64) for k in range(0, len(halves), 2)])


def _compare(sums: tuple[Sums, Sums], first: int, lines: _Lines, tallies: tuple[_Tally, _Tally]) -> None:
    """Set the borders of a window beside what is close by; `first` is the number of the first line in it."""
    pairs, change = sums
    if not pairs.shape[1]:
        return
    here = slice(first, first + pairs.shape[1])
    other = ~(lines.patches[here] | lines.cores[here])
    near_pairs, near_change = _around(pairs * other), _around(change * other)
    for flags, tally in zip((lines.patches[here], lines.cores[here]), tallies, strict=True):
        places = np.nonzero((pairs > 0) & (near_pairs > 0) & flags)
        rate = near_change[places] / near_pairs[places]
        tally.add(change[places], pairs[places] * rate, pairs[places], near_pairs[places])


def _around(sums: Sums) -> Sums:
    """Sums over the lines within reach of each line."""
    count = sums.shape[1]
    total = np.concatenate([np.zeros((len(sums), 1)), sums.cumsum(axis=1)], axis=1)
    places = np.arange(count)
    found: Sums = total[:, np.minimum(places + NEAR + 1, count)] - total[:, np.maximum(places - NEAR, 0)]
    return found
