"""Coarser levels of a scene's mask, stored beside it while products are written: `levels/1`, `levels/2` and so on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilesseg.labels import FAILED
from tilesseg.window import Window


class StoredLevels:
    """The folder of the levels. Picklable; parts that are whole shards may be written from several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, shapes: Sequence[tuple[int, int]], *, shard: int, chunk: int) -> None:
        """Empty levels, `(y, x)` uint8 full of 254, in place of any that lie there.

        Args:
            shapes: of level 1, 2 and so on.
            shard: side of a shard, the unit of writing.
            chunk: side of a chunk, the unit of reading.
        """
        self.remove()
        for number, shape in enumerate(shapes, start=1):
            zarr.create_array(
                store=str(self._path(number)),
                shape=shape,
                chunks=(chunk, chunk),
                shards=(shard, shard),
                dtype="uint8",
                fill_value=FAILED,
                compressors=[ZstdCodec(level=1)],
            )

    def shape(self, number: int) -> tuple[int, int]:
        height, width = self._array(number).shape
        return int(height), int(width)

    def read(self, number: int, window: Window) -> NDArray[np.uint8]:
        """Labels `(y, x)` of a window inside a level."""
        return np.asarray(self._array(number)[window.slices()], np.uint8)

    def write(self, number: int, window: Window, labels: NDArray[np.uint8]) -> None:
        """Store labels `(y, x)` of whole shards."""
        self._array(number, mode="r+")[window.slices()] = labels

    def remove(self) -> None:
        """Remove all levels, where there are any."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _array(self, number: int, mode: Any = "r") -> zarr.Array[Any]:
        return zarr.open_array(str(self._path(number)), mode=mode)

    def _path(self, number: int) -> Path:
        return self.folder / str(number)
