"""Where to look for an image's statistics without reading all of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.window import Window

_PIXELS = 1 << 20
_SIDE = 128
_VALUES = 1 << 24  # in a sample, all channels together
_DECODED = 2 << 30  # bytes that may be decoded in all: files exist whose single strip is a gigabyte


class Level(NamedTuple):
    """An overview: which one, from 0, and its shape."""

    number: int
    shape: tuple[int, int]


def lattice(shape: tuple[int, int], count: int = _PIXELS // _SIDE**2) -> list[Window]:
    """At most `count` windows of at most 128², evenly spread; they cover an image that is small enough."""
    height, width = shape
    rows = min(_cells(height), max(1, round(count**0.5)))
    columns = min(_cells(width), max(1, count // rows))
    rows = min(_cells(height), max(1, count // columns))
    spans = itertools.product(_spans(height, rows), _spans(width, columns))
    return [Window.from_bounds(y, x, y_stop, x_stop) for (y, y_stop), (x, x_stop) in spans]


def windows(files: Sequence[RasterFile], shape: tuple[int, int], channels: int) -> list[Window]:
    """The windows to sample: fewer where there are very many channels, or where the files' strips are huge."""
    cells = max(file.facts.cell[0] * file.facts.cell[1] * np.dtype(file.facts.dtypes[0]).itemsize for file in files)
    count = min(_PIXELS // _SIDE**2, max(1, _VALUES // (channels * _SIDE**2)), max(1, _DECODED // (cells * channels)))
    return lattice(shape, int(count))


def overview_within(file: RasterFile, channels: int) -> Level | None:
    """The finest overview of at most a million pixels, or None where there is no useful one."""
    height, width = file.facts.grid.shape
    most = min(_PIXELS, _VALUES // channels)
    for number, factor in enumerate(file.facts.overviews):
        if most // 64 <= (height / factor) * (width / factor) <= most:
            return Level(number, file.level_shape(number))
    return None


def overview_above(file: RasterFile, shape: tuple[int, int]) -> Level | None:
    """The coarsest overview that is not smaller than `shape`."""
    found = None
    for number in range(len(file.facts.overviews)):
        level = Level(number, file.level_shape(number))
        if level.shape[0] >= shape[0] and level.shape[1] >= shape[1]:
            found = level
    return found


def _cells(length: int) -> int:
    return max(1, -(-length // _SIDE))


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """`count` stretches, each in the middle of its share of the length."""
    spans = []
    for k in range(count):
        start, stop = k * length // count, (k + 1) * length // count
        spare = max(0, stop - start - _SIDE)
        spans.append((start + spare // 2, stop - (spare - spare // 2)))
    return spans
