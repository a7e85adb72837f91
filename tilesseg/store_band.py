"""The rows of one core on their way into a stored array."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tilesseg.window import Window


class Band:
    """Finished rows of a core, waiting until a whole row of shards can be written: every shard once, whole.

    zarr does not protect a shard that is written in parts (zarr-python #3682). Shards are written one by one: zarr
    encodes several at a time in threads of its own, and holds some copies of each.
    """

    def __init__(self, array: zarr.Array[Any], core: Window, *, plane: tuple[int, ...] = ()) -> None:
        assert array.shards is not None  # `Store.create` makes no other arrays
        self._array, self._plane, self._core = array, plane, core
        self._shard = int(array.shards[-1])
        self._waiting = np.empty((0, core.width), np.uint8)
        self._filled = 0
        self.y_next = core.y
        """Image row that the next values belong to."""

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows `(rows, width)`; write what makes whole shards."""
        while len(labels):
            height = min(self._shard, self._core.y_stop - (self.y_next - self._filled))
            now, labels = labels[: height - self._filled], labels[height - self._filled :]
            self.y_next += len(now)
            if len(now) == height:
                self._write(now)
            else:
                self._wait(now, height)

    def _wait(self, rows: NDArray[np.uint8], height: int) -> None:
        if not self._filled:
            self._waiting = np.empty((height, self._core.width), np.uint8)
        self._waiting[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)
        if self._filled == height:
            self._filled = 0
            self._write(self._waiting)

    def _write(self, rows: NDArray[np.uint8]) -> None:
        """Store the rows that end at `y_next`."""
        core, side = self._core, self._shard
        for x in range(core.x, core.x_stop, side):
            place = Window.from_bounds(self.y_next - len(rows), x, self.y_next, min(x + side, core.x_stop))
            where: Any = (*self._plane, *place.slices())
            self._array[where] = rows[:, x - core.x : x - core.x + side]
