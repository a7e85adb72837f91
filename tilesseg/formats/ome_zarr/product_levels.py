"""Levels of a product, each made from the stored level before it, in bounded memory and for any ratio of sizes."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.ome_zarr.product_arrays import ReadPlane
from tilesseg.raster.pyramid import Halve
from tilesseg.raster.window import Window

_SIDE = 4096
"""Side, in pixels, of the windows in which the level before is read."""
_MOST = 8
"""Largest number of halvings between two levels."""


def coarser(read: ReadPlane, below: tuple[int, int], shape: tuple[int, int], halve: Halve) -> ReadPlane:
    """Function that reads a level by computing it from the level before.

    If the sides of the level are those of the level before divided by a power of 2, rounded down or up, the level
    before is halved, and pixels beyond sides that were rounded down are cut off. Otherwise each pixel has the value
    under its centre.

    Args:
        read: function that reads the level before.
        below: shape of the level before.
        shape: shape of the level.
        halve: function that halves labels or scores.
    """
    times = _halvings(below, shape)
    if times is None:
        return _nearest(read, below, shape)

    def read_level(plane: int, window: Window) -> NDArray[np.uint8]:
        result = np.empty(window.shape, np.uint8)
        side = max(1, _SIDE >> times)
        for y, x in product(range(0, window.height, side), range(0, window.width, side)):
            part = Window(window.y + y, window.x + x, side, side).intersect(window)
            result[part.slices(window)] = _halved(read, plane, part, times, below, halve)
        return result

    return read_level


def _halved(
    read: ReadPlane, plane: int, part: Window, times: int, below: tuple[int, int], halve: Halve
) -> NDArray[np.uint8]:
    y, x, height, width = (number << times for number in (part.y, part.x, part.height, part.width))
    labels = read(plane, Window(y, x, height, width).intersect(Window(0, 0, *below)))
    for _ in range(times):
        labels = halve(labels)
    return labels


def _halvings(below: tuple[int, int], shape: tuple[int, int]) -> int | None:
    """Number of halvings from the level before to the level; None where halving does not give its sides."""
    for times in range(1, _MOST + 1):
        cell = 1 << times
        if all(old // cell <= new <= -(-old // cell) for old, new in zip(below, shape, strict=True)):
            return times
    return None


def _nearest(read: ReadPlane, below: tuple[int, int], shape: tuple[int, int]) -> ReadPlane:
    def read_level(plane: int, window: Window) -> NDArray[np.uint8]:
        rows = _under(window.y, window.y_stop, below[0], shape[0])
        columns = _under(window.x, window.x_stop, below[1], shape[1])
        wanted = Window.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        return read(plane, wanted)[(rows - wanted.y)[:, None], columns - wanted.x]

    return read_level


def _under(start: int, stop: int, below: int, size: int) -> NDArray[np.intp]:
    """Pixel of the level before under the centre of each pixel, along one axis, exact in whole numbers."""
    return np.asarray((2 * np.arange(start, stop) + 1) * below // (2 * size), np.intp)
