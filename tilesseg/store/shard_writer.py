"""The rows of one core on their way into a stored array, and into its coarser levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.pyramid import halve_mode
from tilesseg.raster.window import Window


class ShardRows:
    """Finished rows of a core, waiting until a whole row of shards can be written: every shard once, whole."""

    def __init__(
        self, array: Sharded, core: Window, *, plane: tuple[int, ...] = (), coarser: ShardRows | None = None
    ) -> None:
        """Begin at the core's first row.

        Args:
            array: where the rows go.
            core: whole shards of it.
            plane: of the array.
            coarser: gets the same rows, halved by mode. A row of shards is of even height, save at the image's end.
        """
        self._array, self._plane, self._core, self._coarser = array, plane, core, coarser
        self._waiting = np.empty((0, core.width), np.uint8)
        self._filled = 0
        self.y_next = core.y
        """Image row that the next values belong to."""

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows `(rows, width)`; write what makes whole shards."""
        while len(labels):
            height = min(self._array.shard[0], self._core.y_stop - (self.y_next - self._filled))
            now, labels = labels[: height - self._filled], labels[height - self._filled :]
            self.y_next += len(now)
            if len(now) == height:
                self._write(now)
            else:
                self._wait(now, height)

    def _wait(self, rows: NDArray[np.uint8], height: int) -> None:
        if len(self._waiting) < height:
            self._waiting = np.empty((height, self._core.width), np.uint8)
        self._waiting[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)
        if self._filled == height:
            self._filled = 0
            self._write(self._waiting[:height])

    def _write(self, rows: NDArray[np.uint8]) -> None:
        """Store the rows that end at `y_next`."""
        core = self._core
        place = Window.from_bounds(self.y_next - len(rows), core.x, self.y_next, core.x_stop)
        self._array.write(place, rows, plane=self._plane)
        if self._coarser is not None:
            self._coarser.write(halve_mode(rows))
