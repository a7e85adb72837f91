"""The label pyramid: coarser levels of a mask that hold labels, never averages of labels.

A cell is 2 × 2 pixels; at an odd right or bottom edge it is 1 or 2 pixels, so a level's size is the ceiling of
half the size below. `mode` takes the most frequent label, which keeps areas and drops specks; `nearest` takes the
top-left pixel, which keeps noise. The pyramid streams: a `Cascade` turns bands of rows into rows of every level
and holds at most one odd row per level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import FAILED, NODATA

Labels = NDArray[np.uint8]
Halve = Callable[[Labels], Labels]

_STRIP = 1 << 16
"""Number of cells halved at a time, so that intermediate results stay in the processor's cache."""
_QUAD = 4
"""Number of cells compared together, as the four 16-bit numbers of a 64-bit one."""
_LEFT = np.uint64(0x00FF00FF00FF00FF)
"""Bytes of the left pixels in a quad of cells."""


class Rows(NamedTuple):
    """Consecutive rows of one level."""

    level: int
    y: int
    """First row, in the level's own pixels."""
    labels: Labels
    """`(rows, level width)`."""


def halve_mode(labels: Labels) -> Labels:
    """Halve labels `(y, x)` by the most frequent one of each cell.

    255 (nodata) is not counted: a cell is nodata only where all its pixels are. Ties go to the lower label.
    """
    top, bottom = _pairs(labels)
    result = np.empty(top.shape, np.uint8)
    step = max(1, _STRIP // top.shape[1])
    for y in range(0, len(top), step):
        result[y : y + step] = _mode(top[y : y + step], bottom[y : y + step])
    return result[:, : -(-labels.shape[1] // 2)]


def halve_nearest(labels: Labels) -> Labels:
    """Halve labels `(y, x)` by the top-left pixel of each cell, 255 like any other."""
    return labels[::2, ::2].copy()


def halve_mean(scores: Labels) -> Labels:
    """Halve stored scores `(y, x)` by the mean of each cell, rounded half up.

    254 and 255 are not counted; a cell without scores is 255 where all its pixels are, else 254.
    """
    top, bottom = _pairs(scores)
    result = np.empty(top.shape, np.uint8)
    step = max(1, _STRIP // top.shape[1])
    for y in range(0, len(top), step):
        result[y : y + step] = _mean(top[y : y + step], bottom[y : y + step])
    return result[:, : -(-scores.shape[1] // 2)]


HALVES: dict[str, Halve] = {"mode": halve_mode, "nearest": halve_nearest}


def level_shapes(shape: tuple[int, int], *, smallest: int = 256) -> tuple[tuple[int, int], ...]:
    """Shapes `(y, x)` of all levels, the full one first, down to the first that fits in `smallest` × `smallest`."""
    shapes = [shape]
    while max(shapes[-1]) > smallest:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return tuple(shapes)


@dataclass(slots=True)
class _Level:
    y: int = 0
    """Number of rows of this level given so far."""
    odd: Labels | None = None
    """The row that waits for its partner."""


class Cascade:
    """Rows of every level of a pyramid, made from bands of the full level as they come.

    The rows equal the halved whole image, for any heights of the bands. Memory: one band and one
    row per level.
    """

    def __init__(self, *, levels: int, halve: Halve = halve_mode) -> None:
        if levels < 1:
            raise ValueError(f"a pyramid has at least one level, not {levels}")
        self._levels = [_Level() for _ in range(levels)]
        self._halve = halve

    def add(self, rows: Labels) -> Iterator[Rows]:
        """Take the next rows `(y, x)` of the full level, and give the rows of all levels that they complete."""
        yield from self._descend(0, rows, last=False)

    def close(self) -> Iterator[Rows]:
        """End the image: give the rows that are made of the odd rows that still wait."""
        yield from self._descend(0, None, last=True)

    def _descend(self, level: int, rows: Labels | None, *, last: bool) -> Iterator[Rows]:
        here = self._levels[level]
        if rows is not None and len(rows):
            yield Rows(level, here.y, rows)
            here.y += len(rows)
        if level + 1 == len(self._levels):
            return
        pairs = _joined(here, rows, last=last)
        if pairs is not None or last:
            yield from self._descend(level + 1, None if pairs is None else self._halve(pairs), last=last)


def cascade(bands: Iterable[Labels], *, levels: int, halve: Halve = halve_mode) -> Iterator[Rows]:
    """All rows of all levels, from bands of rows top to bottom; see `Cascade`."""
    pyramid = Cascade(levels=levels, halve=halve)
    for band in bands:
        yield from pyramid.add(band)
        del band  # before the next one is read
    yield from pyramid.close()


def _joined(level: _Level, rows: Labels | None, *, last: bool) -> Labels | None:
    """The waiting row and the new ones, as whole pairs (all of them when these are the last), or None."""
    parts = [part for part in (level.odd, rows) if part is not None and len(part)]
    if not parts:
        return None
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    keep = len(joined) if last else len(joined) // 2 * 2
    level.odd = joined[keep:].copy() if keep < len(joined) else None
    return joined[:keep] if keep else None


def _pairs(labels: Labels) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Each cell's upper and lower two pixels as one 16-bit number, left pixel in the low byte.

    Edges are padded by 255, to whole quads of cells.
    """
    height, width = labels.shape
    if height % 2 or width % (2 * _QUAD):
        labels = np.pad(labels, ((0, height % 2), (0, -width % (2 * _QUAD))), constant_values=NODATA)
    cells = np.ascontiguousarray(labels, np.uint8).view("<u2")
    return cells[::2], cells[1::2]


def _mode(top: NDArray[np.uint16], bottom: NDArray[np.uint16]) -> Labels:
    """The mode of each cell; most cells of a real mask are uniform, and comparing them by quads is faster."""
    upper, lower = top.view("<u8"), bottom.view("<u8")
    differ = upper >> np.uint64(8)
    differ ^= upper
    differ &= _LEFT
    differ |= upper ^ lower
    mixed = np.flatnonzero(differ)
    if len(mixed) * 4 > differ.size:
        return _cell_mode(top, bottom)
    result = top.astype(np.uint8)  # the low byte: the top-left pixel
    where = np.divmod(mixed, differ.shape[1])
    result.view("<u4")[where] = _cell_mode(upper[where].view("<u2"), lower[where].view("<u2")).view("<u4")
    return result


def _mean(top: NDArray[np.uint16], bottom: NDArray[np.uint16]) -> Labels:
    total, count = np.zeros(top.shape, np.uint16), np.zeros(top.shape, np.uint16)
    least = np.full(top.shape, NODATA, np.uint8)
    for pixel in (top & 255, top >> 8, bottom & 255, bottom >> 8):
        counts = pixel < FAILED
        total += pixel * counts
        count += counts
        np.minimum(least, pixel.astype(np.uint8), out=least)
    rounded = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count > 0, rounded, least).astype(np.uint8)


def _cell_mode(top: NDArray[np.uint16], bottom: NDArray[np.uint16]) -> Labels:
    """Mode of each cell: sort the four by a network of minima and maxima, then look at equal neighbours.

    In `a ≤ b ≤ c ≤ d` the lower of the most frequent labels is the start of the first equal pair, or a. 255 sorts
    last, so it can only take part in a pair that does not count.
    """
    p, q = top.astype(np.uint8), (top >> 8).astype(np.uint8)
    r, s = bottom.astype(np.uint8), (bottom >> 8).astype(np.uint8)
    low, middle = np.minimum(p, q), np.maximum(p, q)
    other, high = np.minimum(r, s), np.maximum(r, s)
    a, other = np.minimum(low, other), np.maximum(low, other)
    middle, d = np.minimum(middle, high), np.maximum(middle, high)
    b, c = np.minimum(middle, other), np.maximum(middle, other)
    mode = np.where((c == d) & (c != NODATA), c, a)
    mode = np.where((b == c) & (b != NODATA), b, mode)
    return np.where(a == b, a, mode)
