"""Shard writer: the rows of a core, collected until they fill a row of shards, and their coarser levels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.zarr.shard_sum import ShardSum, text_of
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.pyramid import halve_mode
from tilesseg.raster.window import Window


class ShardRows:
    """Finished rows of a core, kept until they fill a row of shards, so that every shard is written once, whole."""

    def __init__(
        self,
        array: Sharded,
        core: Window,
        *,
        name: str = "mask",
        plane: tuple[int, ...] = (),
        coarser: ShardRows | None = None,
    ) -> None:
        """Begin at the core's first row.

        Args:
            array: destination of the rows.
            core: window of whole shards in the array.
            name: name of the array, or of its plane, in the record of the tile.
            plane: indices of the plane in the array.
            coarser: writer of the next level, which gets the same rows halved by mode. A row of shards has an even
                height, except at the end of the image.
        """
        self._array, self._plane, self._core, self._coarser = array, plane, core, coarser
        self._name, self._sums = name, list[ShardSum]()
        self._waiting = np.empty((0, core.width), np.uint8)
        self._filled = 0
        self.y_next = core.y
        """Row of the array at which the next rows begin."""

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows `(rows, width)`, and write all rows of shards that are full."""
        while len(labels):
            height = min(self._array.shard[0], self._core.y_stop - (self.y_next - self._filled))
            rows, labels = labels[: height - self._filled], labels[height - self._filled :]
            self.y_next += len(rows)
            if len(rows) == height:
                self._write(rows)
            else:
                self._keep(rows, height)

    def _keep(self, rows: NDArray[np.uint8], height: int) -> None:
        if len(self._waiting) < height:
            self._waiting = np.empty((height, self._core.width), np.uint8)
        self._waiting[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)
        if self._filled == height:
            self._filled = 0
            self._write(self._waiting[:height])

    def _write(self, rows: NDArray[np.uint8]) -> None:
        """Store full rows of shards, of which the last row lies above `y_next`."""
        core = self._core
        place = Window.from_bounds(self.y_next - len(rows), core.x, self.y_next, core.x_stop)
        self._sums += self._array.write(place, rows, plane=self._plane)
        if self._coarser is not None:
            self._coarser.write(halve_mode(rows))

    def stored(self) -> dict[str, str]:
        """Sums of the shards that have been written, by name, for the record of the tile; of coarser levels too."""
        own = {self._name: text_of(self._sums)}
        return own if self._coarser is None else {**own, **self._coarser.stored()}


def stored_sums(writers: Iterable[ShardRows]) -> dict[str, str]:
    """Sums of all shards that the writers of a core have stored, for the record of its tile."""
    return {name: text for writer in writers for name, text in writer.stored().items()}
