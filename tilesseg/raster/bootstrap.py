"""Bootstrap: intervals of figures that are computed of sums over units, which are scenes or blocks.

Units are drawn with replacement, their counts added up, and the figure computed of the sum; the interval is from the
2.5th to the 97.5th percentile (Efron, 1979). Two masks of the same units are compared with the same draws (paired).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]
Statistic = Callable[[Counts], Figures]
"""Figures `(…, n)` of counts `(…, *shape)`."""

DRAWS = 2000
AT_ONCE = 1 << 22
"""Number of drawn units that are in memory at once: 64 MB."""
FEWEST = 5
"""Least number of units of which an interval is given."""


class Interval(NamedTuple):
    """A 95 % interval of a figure."""

    low: float
    high: float


def intervals(units: Counts, statistic: Statistic, *, seed: int = 0) -> list[Interval | None]:
    """Interval of each figure; None where there are too few units, or the figure is undefined in too many draws.

    Args:
        units: counts of each unit, `(unit, *shape)`.
        statistic: figures of a sum of counts.
        seed: seed of the draws.
    """
    return _intervals(statistic(_sums(units, seed)), len(units))


def paired_intervals(first: Counts, second: Counts, statistic: Statistic, *, seed: int = 0) -> list[Interval | None]:
    """Interval of the difference of each figure, second − first, with the same draws of units for both."""
    return _intervals(statistic(_sums(second, seed)) - statistic(_sums(first, seed)), len(first))


def _sums(units: Counts, seed: int) -> Counts:
    """Sums of counts over each draw, `(draw, *shape)`."""
    draw = np.random.default_rng(seed)
    count = len(units)
    if not count:
        return np.zeros((DRAWS, *units.shape[1:]), np.int64)
    flat, share = units.reshape(count, -1).astype(np.float64), np.full(count, 1 / count)
    step = max(1, AT_ONCE // count)
    # products of floats are far faster, and exact: the sums are whole numbers below 2^53
    sums = [
        draw.multinomial(count, share, size=min(step, DRAWS - first)).astype(np.float64) @ flat
        for first in range(0, DRAWS, step)
    ]
    return np.concatenate(sums).astype(np.int64).reshape(DRAWS, *units.shape[1:])


def _intervals(figures: Figures, units: int) -> list[Interval | None]:
    """Percentiles of figures `(draw, n)`."""
    found: list[Interval | None] = []
    for values in figures.reshape(DRAWS, -1).T:
        defined = values[~np.isnan(values)]
        few = units < FEWEST or len(defined) < DRAWS / 2
        found.append(None if few else Interval(*map(float, np.percentile(defined, [2.5, 97.5]))))
    return found
