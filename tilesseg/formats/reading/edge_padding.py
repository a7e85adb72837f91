"""Edge padding: reflection of an image at its borders, as arithmetic on the indices of the whole image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.source import Pixels
from tilesseg.raster.window import Window


def reflect(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Indices `start … stop − 1` reflected into `0 … size − 1` without repeating the edge.

    As `numpy.pad(mode="reflect")`, as often as it takes where the image is smaller than the pad.
    """
    if size == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (size - 1)
    folded = np.arange(start, stop) % period
    return np.where(folded < size, folded, period - folded).astype(np.intp)


def spread(
    pixels: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp], inner: tuple[slice, slice]
) -> NDArray[Any]:
    """Equal to `pixels[…, rows[:, None], columns]`; the `inner` part is copied as one, ten times as fast."""
    if not any(pixels.strides):  # one value for all
        return np.broadcast_to(pixels[..., :1, :1], (*pixels.shape[:-2], len(rows), len(columns)))
    out = np.empty((*pixels.shape[:-2], len(rows), len(columns)), pixels.dtype)
    whole, _ = inner
    _spread_columns(out[..., whole, :], pixels[..., rows[whole.start] : rows[whole.stop - 1] + 1, :], columns, inner[1])
    for row in (*range(whole.start), *range(whole.stop, len(rows))):
        _spread_columns(out[..., row, :], pixels[..., rows[row], :], columns, inner[1])
    return out


def _spread_columns(out: NDArray[Any], pixels: NDArray[Any], columns: NDArray[np.intp], inner: slice) -> None:
    out[..., inner] = pixels[..., columns[inner.start] : columns[inner.stop - 1] + 1]
    for edge in (slice(0, inner.start), slice(inner.stop, len(columns))):
        out[..., edge] = pixels[..., columns[edge]]


def read_reflected(window: Window, inside: Window, read: Callable[[Window], Pixels]) -> Pixels:
    """Read a window that may leave the image `inside`, reflecting the whole image at its borders.

    Reflection is index arithmetic on the image, never padding of a window: so a pixel beyond the border has the
    same value in every window.

    Args:
        window: the requested window.
        inside: the image's own window, at `(0, 0)`.
        read: reads a window that lies in the image.
    """
    if inside.contains(window):
        return read(window)
    rows = reflect(window.y, window.y_stop, inside.height)
    columns = reflect(window.x, window.x_stop, inside.width)
    y, x = int(rows.min()), int(columns.min())
    values, valid = read(Window.from_bounds(y, x, int(rows.max()) + 1, int(columns.max()) + 1))
    rows, columns = rows - y, columns - x
    part = window.intersect(inside)
    if part.empty:
        return Pixels(values[:, rows[:, None], columns], valid[rows[:, None], columns])
    inner = part.slices(window)
    values = spread(values, rows, columns, inner)  # in turn, so that the array that was read is freed
    valid = spread(valid, rows, columns, inner)
    return Pixels(values, valid)
