"""A small view of a large image: nearest pixels, read one strip of rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats import Pixels
from tilesseg.window import Window

_VALUES = 1 << 25  # in one strip, all channels together


def thumbnail_shape(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """The image's proportions with a long side of at most `size`, never larger than the image."""
    longest = max(shape)
    wanted = min(longest, max(1, size))
    return max(1, shape[0] * wanted // longest), max(1, shape[1] * wanted // longest)


def decimate(
    read: Callable[[Window], Pixels], shape: tuple[int, int], wanted: tuple[int, int], *, strip: int, empty: Pixels
) -> Pixels:
    """Pick the pixels under the centres of a coarser grid.

    Args:
        read: reads a window of an image of `shape`.
        shape: the image to pick from.
        wanted: shape of the view.
        strip: rows that are decoded together.
        empty: what to fill, all invalid; strips that cannot be read stay so.
    """
    rows, columns = _centres(shape[0], wanted[0]), _centres(shape[1], wanted[1])
    height = max(1, min(strip, _VALUES // (shape[1] * len(empty.values))))
    for number in np.unique(rows // height):
        chosen = np.flatnonzero(rows // height == number)
        y, y_stop = int(rows[chosen[0]]), int(rows[chosen[-1]]) + 1
        try:
            values, valid = read(Window.from_bounds(y, 0, y_stop, shape[1]))
        except SourceError:
            continue
        inside = (rows[chosen] - y)[:, None]
        empty.values[:, chosen] = values[:, inside, columns]
        empty.valid[chosen] = valid[inside, columns]
    return empty


def _centres(size: int, wanted: int) -> NDArray[np.intp]:
    return np.asarray((np.arange(wanted) + 0.5) * size / wanted, np.intp)
