"""Layers of bytes as compressed TIFF tiles, level after level, in bounded memory.

A TIFF is written one level after the other, and a mask is read once: so the tiles of coarser levels are compressed
while the finest one is written, and wait in a file until it is their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np
from imagecodecs import deflate_encode
from numpy.typing import NDArray

from tilesseg.formats.writer import MaskLevel
from tilesseg.formats.writing.parallel_windows import SIDE, WIDE, in_order, strips, windows
from tilesseg.raster.labels import NODATA
from tilesseg.raster.pyramid import Halve, cascade
from tilesseg.raster.window import Window

EFFORT = 5
"""Of libdeflate: on masks it takes a fifth less room than 3 and is a fifth slower; 6 is slower still, 5 % smaller."""

Labels = NDArray[np.uint8]


class TiledLayer(NamedTuple):
    """One plane of the file."""

    shape: tuple[int, int]
    read: Callable[[Window], Labels]
    """Values `(y, x)` of a window inside the plane; asked for bands of rows, top to bottom."""
    halve: Halve
    """How a level follows from the one below."""


class Spool:
    """Compressed tiles of one level, of one layer after the other, in a file that levels share."""

    def __init__(self, file: IO[bytes], pool: Executor) -> None:
        self._file, self._pool = file, pool
        self._places: list[tuple[int, int]] = []
        self._waiting: list[Labels] = []
        self._rows = 0

    def add(self, rows: Labels) -> None:
        """Take the next rows of a layer."""
        while len(rows):
            taken, rows = np.split(rows, [SIDE - self._rows])
            self._waiting.append(taken)
            self._rows += len(taken)
            if self._rows == SIDE:
                self.flush()

    def flush(self) -> None:
        """Store the rows that wait: there are no more of this layer."""
        if self._rows:
            for data in self._pool.map(encode, cut(np.concatenate(self._waiting))):
                self._places.append((self._file.tell(), len(data)))
                self._file.write(data)
        self._waiting, self._rows = [], 0

    def __iter__(self) -> Iterator[bytes]:
        """All tiles in the order in which they came; nothing may be added any more."""
        for offset, size in self._places:
            self._file.seek(offset)
            yield self._file.read(size)


@dataclass(frozen=True, slots=True)
class Pyramid:
    """What makes the tiles of every level of some layers of one shape."""

    layers: Sequence[TiledLayer]
    spools: Sequence[Spool]
    """Of level 1 and so on."""
    pool: Executor

    def finest(self) -> Iterator[bytes]:
        """The tiles of the layers as they are; the coarser levels are spooled on the way."""
        parts = (rows[:, x : x + WIDE] for rows in self._strips() for x in range(0, rows.shape[1], WIDE))
        for tiles in in_order(self.pool, _encoded, parts):
            yield from tiles

    def _strips(self) -> Iterator[Labels]:
        for layer in self.layers:
            read = in_order(self.pool, layer.read, strips(layer.shape), ahead=2)
            for level, _, rows in cascade(read, levels=1 + len(self.spools), halve=layer.halve):
                if level:
                    self.spools[level - 1].add(rows)
                else:
                    yield rows
            for spool in self.spools:
                spool.flush()


def copied(level: MaskLevel, pool: Executor) -> Iterator[bytes]:
    """The tiles of a level that is stored already."""
    for tiles in in_order(pool, lambda window: _encoded(level.read(window)), windows(level.shape)):
        yield from tiles


def encode(tile: Labels) -> bytes:
    """A tile of `SIDE` × `SIDE`, or less at the right and bottom edge, as zlib data of a whole one, filled with 255."""
    if tile.shape != (SIDE, SIDE):
        whole = np.full((SIDE, SIDE), NODATA, np.uint8)
        whole[: tile.shape[0], : tile.shape[1]] = tile
        tile = whole
    data = tile.tobytes()
    label = data[0]
    return _uniform(label) if data == _plain(label) else bytes(deflate_encode(data, EFFORT))


@lru_cache(16)
def _plain(label: int) -> bytes:
    return bytes([label]) * SIDE**2


@lru_cache(256)
def _uniform(label: int) -> bytes:
    return bytes(deflate_encode(_plain(label), EFFORT))


def cut(rows: Labels) -> Iterator[Labels]:
    """The tiles of up to `SIDE` rows."""
    return (rows[:, x : x + SIDE] for x in range(0, rows.shape[1], SIDE))


def _encoded(rows: Labels) -> list[bytes]:
    """The tiles of up to `SIDE` rows."""
    return [encode(tile) for tile in cut(rows)]
