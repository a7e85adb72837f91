"""Layers of bytes as compressed TIFF tiles, level after level, in bounded memory and in several threads.

A raster is read in windows by a few threads, and results come back in order. A TIFF is written one level after the
other, and a mask is read once: so the tiles of coarser levels are compressed while the finest level is written, and are
kept in a file until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import IO, NamedTuple, TypeVar

import numpy as np
from imagecodecs import deflate_encode
from numpy.typing import NDArray

from tilesseg.formats.writer import MaskLevel
from tilesseg.raster.labels import NODATA
from tilesseg.raster.pyramid import Halve, cascade
from tilesseg.raster.window import Window

T = TypeVar("T")
R = TypeVar("R")
Labels = NDArray[np.uint8]

SIDE = 512
"""Side of a TIFF's own tiles, and height of a window, in pixels."""
WIDE = 8 * SIDE
"""Width, in pixels, of a window that is no strip."""
AHEAD = 8
"""Number of windows worked on at the same time."""
EFFORT = 5
"""Level of libdeflate: on masks it takes a fifth less room than 3 and is a fifth slower; 6 takes 5 % less still."""


class TiledLayer(NamedTuple):
    """A plane of a file in tiles."""

    shape: tuple[int, int]
    read: Callable[[Window], Labels]
    """Values `(y, x)` of a window inside the plane; read in strips of rows, top to bottom."""
    halve: Halve
    """Function that makes a level from the level below."""


class Spool:
    """Compressed tiles of one level, one layer after the other, in a file that several levels share."""

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
        """Store the rows that are left at the end of a layer."""
        if self._rows:
            for data in self._pool.map(encode, cut(np.concatenate(self._waiting))):
                self._places.append((self._file.tell(), len(data)))
                self._file.write(data)
        self._waiting, self._rows = [], 0

    def __iter__(self) -> Iterator[bytes]:
        """All tiles in the order in which they were added; no more may be added."""
        for offset, size in self._places:
            self._file.seek(offset)
            yield self._file.read(size)


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Tiles of every level of some layers of one shape."""

    layers: Sequence[TiledLayer]
    spools: Sequence[Spool]
    """Stores of the tiles of level 1, 2 and so on."""
    pool: Executor

    def finest(self) -> Iterator[bytes]:
        """Tiles of the finest level; those of the coarser levels are spooled on the way."""
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
    """Tiles of a level that is stored already."""
    for tiles in in_order(pool, lambda window: _encoded(level.read(window)), windows(level.shape)):
        yield from tiles


def encode(tile: Labels) -> bytes:
    """Zlib data of a tile of `SIDE` × `SIDE`; a smaller tile at the right or bottom edge is filled up with 255."""
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
    """Tiles of up to `SIDE` rows, from left to right."""
    return (rows[:, x : x + SIDE] for x in range(0, rows.shape[1], SIDE))


def _encoded(rows: Labels) -> list[bytes]:
    """Zlib data of the tiles of up to `SIDE` rows."""
    return [encode(tile) for tile in cut(rows)]


def windows(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of whole TIFF tiles, row by row: memory depends on no side of the raster."""
    height, width = shape
    for y, x in product(range(0, height, SIDE), range(0, width, WIDE)):
        yield Window(y, x, SIDE, WIDE).intersect(Window(0, 0, height, width))


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of `SIDE` whole rows, top to bottom, as a cascade of levels needs them."""
    height, width = shape
    return (Window(y, 0, min(SIDE, height - y), width) for y in range(0, height, SIDE))


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], *, ahead: int = AHEAD) -> Iterator[R]:
    """Results of `work` on each item, in the order of the items, at most `ahead` of them begun and not yet taken."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
