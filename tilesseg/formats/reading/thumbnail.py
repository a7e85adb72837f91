"""Thumbnail: a small view of a large image, of its nearest pixels, read piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.resample import centres
from tilesseg.formats.source import Pixels
from tilesseg.raster.window import Window

_VALUES = 1 << 22  # in one piece, all channels together


def thumbnail_shape(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """The image's proportions with a long side of at most `size`, never larger than the image."""
    longest = max(shape)
    wanted = min(longest, max(1, size))
    return max(1, shape[0] * wanted // longest), max(1, shape[1] * wanted // longest)


def decimate(
    read: Callable[[Window], Pixels],
    shape: tuple[int, int],
    wanted: tuple[int, int],
    *,
    block: tuple[int, int],
    empty: Pixels,
) -> Pixels:
    """Pick the pixels under the centres of a coarser grid.

    Args:
        read: reads a window of an image of `shape`.
        shape: shape of that image.
        wanted: shape of the view.
        block: height and width of the block that is decoded at once.
        empty: the view, all invalid, to be filled; pieces that cannot be read stay invalid.
    """
    values = max(1, _VALUES // len(empty.values))
    height = max(1, min(block[0], values // min(block[1], shape[1])))
    width = max(1, values // height // block[1]) * block[1]
    for rows in _pieces(shape[0], wanted[0], height):
        for columns in _pieces(shape[1], wanted[1], width):
            try:
                pixels = read(Window.from_bounds(rows.start, columns.start, rows.stop, columns.stop))
            except SourceError:
                continue
            inside = (rows.chosen - rows.start)[:, None], columns.chosen - columns.start
            empty.values[:, rows.places, columns.places] = pixels.values[:, *inside]
            empty.valid[rows.places, columns.places] = pixels.valid[inside]
    return empty


class _Piece(NamedTuple):
    """A range of an axis that is read at once."""

    places: slice
    """Places of its pixels in the view."""
    chosen: NDArray[np.intp]
    """The pixels that are picked."""
    start: int
    stop: int


def _pieces(size: int, wanted: int, length: int) -> Iterator[_Piece]:
    """Ranges of at most `length` pixels that begin and end with a picked pixel."""
    picked = centres(size, wanted)
    for number in np.unique(picked // length):
        places = np.flatnonzero(picked // length == number)
        chosen = picked[places]
        yield _Piece(slice(places[0], places[-1] + 1), chosen, int(chosen[0]), int(chosen[-1]) + 1)
