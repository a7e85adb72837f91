"""How fast something goes, over a time of any length, in a bounded number of bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 600


class Rates:
    """Amounts over time. The bins begin at one second and double their width whenever the time outgrows them."""

    def __init__(self, start: float, bins: int = BINS) -> None:
        self.start, self.width, self.last = start, 1.0, start
        self._amounts = np.zeros(bins)

    def add(self, when: float, amount: float) -> None:
        """Note an amount; what lies before the start counts as if it were at it."""
        place = int(max(0.0, when - self.start) / self.width)
        while place >= len(self._amounts):
            self._widen()
            place //= 2
        self._amounts[place] += amount
        self.last = max(self.last, when)

    def series(self, until: float, *, over: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The rate as it went.

        Args:
            until: when to end, in the unit of the start.
            over: seconds before each moment that its rate is the mean of.

        Returns:
            Ends of the bins in seconds since the start, and the amounts per second there.
        """
        elapsed = max(self.width, until - self.start)
        used = min(len(self._amounts), int(np.ceil(elapsed / self.width)))
        ends = np.minimum(np.arange(1, used + 1) * self.width, elapsed)
        count = max(1, round(over / self.width))
        total = np.concatenate([np.zeros(count), np.cumsum(self._amounts[:used])])
        begins = np.concatenate([np.zeros(count), ends])[:used]
        return ends, (total[count:] - total[:-count]) / np.maximum(1e-9, ends - begins)

    def recent(self, until: float, *, over: float) -> float:
        """Amount per second in the `over` seconds before `until`, or since the start where that is later."""
        first = max(0.0, until - over - self.start)
        place = min(len(self._amounts) - 1, int(first / self.width))
        return float(self._amounts[place:].sum() / max(self.width, until - self.start - place * self.width))

    def _widen(self) -> None:
        half = self._amounts.reshape(-1, 2).sum(axis=1)
        self._amounts[:] = 0
        self._amounts[: len(half)] = half
        self.width *= 2
