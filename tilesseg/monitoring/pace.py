"""Pace of a run: its rate and the time left, defined once for the bar, the page, the metrics and `status`.

The rate is that of the tiles that ended in a window up to now; the window is several tiles long, so that the rate is
steady where tiles take minutes, and fresh where they take seconds. It follows from the last tiles alone, so that the
end of `events.jsonl` is enough to know it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHORTEST = 30.0
"""Length of the window in seconds, at least."""
TILES = 3.0
"""Length of the window in mean times of a tile, at least."""
KEPT = 1000
"""Number of tiles that a rate is taken from, at most; the window is shorter where more of them end."""
BINS = 600


class EndedTile(NamedTuple):
    """A stored tile, as far as a pace needs it."""

    when: float
    """Time at which the driver heard of its end, in seconds since 1970."""
    pixels: int
    wall: float
    """Seconds that the tile took."""
    scene: str = ""
    worker: str = ""


class Pace(NamedTuple):
    """Rate of a run, and the time that the rest takes at this rate."""

    rate: float
    """Mpx/s of the tiles that ended in the window."""
    left: float
    """Pixels that are still to be segmented; those of scenes that are not planned yet are an estimate."""
    eta: float | None
    """Seconds left at this rate; None where there is no rate, or no scene is planned yet."""
    window: float
    """Seconds that the rate is taken over."""
    tiles: list[EndedTile]
    """Tiles that ended in the window."""


class RecentTiles:
    """Tiles of one execution of a run that ended last."""

    def __init__(self, began: float = 0.0, tiles: Iterable[EndedTile] = ()) -> None:
        self.began = began
        self._tiles: deque[EndedTile] = deque(tiles, maxlen=KEPT)

    def add(self, tile: EndedTile) -> None:
        """Add the tile that ended last; the oldest of very many is forgotten."""
        self._tiles.append(tile)

    @property
    def longest(self) -> float:
        """Seconds that the longest of the tiles took; 0 without tiles."""
        return max((tile.wall for tile in self._tiles), default=0.0)

    def _in_window(self, now: float) -> tuple[list[EndedTile], float]:
        """Tiles that ended in the window up to `now`, and the length of the window in seconds."""
        if not self._tiles:
            return [], max(1e-3, min(SHORTEST, now - self.began))
        mean = sum(tile.wall for tile in self._tiles) / len(self._tiles)
        first = now - max(SHORTEST, TILES * mean)
        if len(self._tiles) == KEPT:
            first = max(first, self._tiles[0].when)
        return [tile for tile in self._tiles if tile.when > first], max(1e-3, now - max(first, self.began))

    def pace(self, now: float, *, left: float | None) -> Pace:
        """Pace at the time `now`; with nothing left, that at the end of the last tile.

        Args:
            now: in seconds since 1970.
            left: pixels still to be segmented; None where no scene is planned yet.
        """
        if left == 0 and self._tiles:
            now = self._tiles[-1].when
        tiles, window = self._in_window(now)
        rate = sum(tile.pixels for tile in tiles) / 1e6 / window
        seconds = left / 1e6 / rate if left is not None and rate > 0 else None
        return Pace(rate, left or 0.0, 0.0 if left == 0 else seconds, window, tiles)


class RateHistory:
    """Amounts over time, for a chart of any length in a bounded number of bins.

    The bins begin at one second and double their width whenever the time outgrows them.
    """

    def __init__(self, start: float, bins: int = BINS) -> None:
        self.start, self.width, self.last = start, 1.0, start
        self._amounts = np.zeros(bins)

    def add(self, when: float, amount: float) -> None:
        """Add an amount; an amount before the start counts as one at the start."""
        place = int(max(0.0, when - self.start) / self.width)
        while place >= len(self._amounts):
            self._widen()
            place //= 2
        self._amounts[place] += amount
        self.last = max(self.last, when)

    def series(self, until: float, *, over: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rate from the start on.

        Args:
            until: end of the series, in the unit of the start.
            over: number of seconds before each moment that its rate is the mean of.

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

    def _widen(self) -> None:
        half = self._amounts.reshape(-1, 2).sum(axis=1)
        self._amounts[:] = 0
        self._amounts[: len(half)] = half
        self.width *= 2
