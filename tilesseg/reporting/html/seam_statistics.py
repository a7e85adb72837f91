"""Seams: steps in a mask where patches begin and end, or where cores meet, as a number.

A *line* lies between two neighbouring rows or columns of pixels. The change across the lines where patches begin
or end, or where cores meet, is divided by the change across the other lines close by, in the same stretch of 256
pixels: so the structure of the scene itself cancels out. About 1 means that no seam is visible. For labels the
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
"""Number of windows measured at the same time."""
SIDE = 2048
"""Side of the windows that are read."""
STRETCH = 256
"""Pairs in a stretch of a line."""
NEAR = 16
"""Largest distance in pixels between a border and the lines that it is compared with."""
ENOUGH = 30
"""Least number of differing pairs to expect across borders for a verdict."""
VISIBLE = 1.25
"""Least ratio that an eye sees."""


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
    """Change of these pairs if they were like the pairs close by."""

    @property
    def verdict(self) -> str:
        """Conclusion that the numbers allow."""
        if self.ratio is None:
            return "no borders to compare"
        if self.expected < ENOUGH and self.ratio - 2 * self.error < VISIBLE:
            return "too little changes near the borders to tell"
        if self.ratio - 2 * self.error > 1:
            return "steps along the borders" if self.ratio >= VISIBLE else "measurable, too faint to be seen"
        return "no seam" if self.ratio + 2 * self.error < VISIBLE else "no seam measured, the error is large"


@dataclass(frozen=True, slots=True)
class Seams:
    """The seam scores of a scene."""

    patches: SeamScore
    """Score of the lines where patches of the lattice begin or end."""
    cores: SeamScore
    """Score of the lines where the cores of tiles meet."""
    sampled: float
    """Share of the scene's pixels that were read."""


def measure_seams(
    tiling: Tiling, read: Callable[[Window], Values], *, scores: bool = False, budget: int = 64_000_000
) -> Seams:
    """Measure a stored mask, or stored scores.

    Args:
        tiling: tiles and lattice of the scene.
        read: function from a window to its labels `(y, x)`, or scores `(class, y, x)`; 254 and 255 are left out.
        scores: whether the values are quantities, compared by their difference; labels are equal or not.
        budget: largest number of pixels to read, but at least one window of 2048².
    """
    patches, cores = _Tally(), _Tally()
    everything = list(_windows(tiling.shape))
    chosen = _sample(len(everything), max(1, budget // SIDE**2))
    lines = _lines(tiling)

    def measured(number: int) -> list[tuple[int, tuple[Sums, Sums]]]:
        """First line in the window, with pairs and changes across all its lines; for rows, and for columns."""
        window = everything[number]
        y, x = max(0, window.y - 1), max(0, window.x - 1)  # pairs across the window's own edge, too
        values = read(Window.from_bounds(y, x, window.y_stop, window.x_stop))
        values = values if values.ndim == 3 else values[None]
        turned = np.ascontiguousarray(values.swapaxes(1, 2))
        return [(y + 1, _stretches(turned, scores)), (x + 1, _stretches(values, scores))]

    with ThreadPoolExecutor(THREADS) as pool:
        for both in pool.map(measured, chosen):
            for (first, sums), flags in zip(both, lines, strict=True):
                _compare(sums, first, flags, (patches, cores))
    read_pixels = sum(everything[number].area for number in chosen)
    return Seams(patches.score, cores.score, read_pixels / (tiling.shape[0] * tiling.shape[1]))


def patch_lines(lattice: Lattice, size: int) -> NDArray[np.intp]:
    """Lines of an axis at which the supports of patches begin or end, each as the pixel after it."""
    starts = np.arange(lattice.cells(size)) * lattice.stride - lattice.lead + lattice.before
    lines = np.unique(np.concatenate([starts, starts + lattice.support]))
    return lines[(lines > 0) & (lines < size)]


class _Lines(NamedTuple):
    """Flags for the lines 0 … size of an axis."""

    patches: NDArray[np.bool_]
    cores: NDArray[np.bool_]


def _lines(tiling: Tiling) -> tuple[_Lines, _Lines]:
    """Lines between rows, and lines between columns."""
    axes = []
    for size, core in zip(tiling.shape, tiling.core, strict=True):
        flags = _Lines(np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_))
        flags.patches[patch_lines(tiling.lattice, size)] = True
        flags.cores[core:size:core] = True
        axes.append(flags)
    return axes[0], axes[1]


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
        """Change across borders ÷ change elsewhere; elsewhere at least one pair counts as changed, so it is finite."""
        change, expected = (np.concatenate([*parts, np.zeros(0)]) for parts in (self._change, self._expected))
        pairs = int(self._pairs)
        if not pairs or not self._elsewhere or len(change) < 2:
            return SeamScore(None, 0.0, pairs, 0.0)
        total, least = float(expected.sum()), self._pairs / self._elsewhere
        base = max(total, least)
        ratio = float(change.sum()) / base
        spread = sqrt(float(((change - ratio * expected) ** 2).sum()) * len(change) / (len(change) - 1)) / base
        # Counts scatter even if the stretches agree: the error is at least that of so many independent events.
        counted = sqrt(max(1.0, float(change.sum()))) / base if total <= least else 0.0
        return SeamScore(round(ratio, 4), round(hypot(spread, counted), 4), pairs, round(total, 1))


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    whole = Window(0, 0, *shape)
    for y in range(0, shape[0], SIDE):
        for x in range(0, shape[1], SIDE):
            yield Window(y, x, SIDE, SIDE).intersect(whole)


def _sample(count: int, most: int) -> list[int]:
    """Numbers of the windows to read: all, or a random sample that is the same every time."""
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
    """Number of flags set in each stretch of a line; half a stretch is summed in bytes, which is many times as fast."""
    bits, half = flags.view(np.uint8), STRETCH // 2
    halves = [bits[start : start + half].sum(axis=0, dtype=np.uint8) for start in range(0, len(bits), half)]
    return np.stack([np.sum(halves[k : k + 2], axis=0, dtype=np.int64) for k in range(0, len(halves), 2)])


def _compare(sums: tuple[Sums, Sums], first: int, lines: _Lines, tallies: tuple[_Tally, _Tally]) -> None:
    """Compare the borders of a window with the lines close by; `first` is the number of its first line."""
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
    near: Sums = total[:, np.minimum(places + NEAR + 1, count)] - total[:, np.maximum(places - NEAR, 0)]
    return near
