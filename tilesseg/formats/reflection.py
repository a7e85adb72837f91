"""Reflection of an image at its borders, as arithmetic on the indices of the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    seen: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp], inner: tuple[slice, slice]
) -> NDArray[Any]:
    """As `seen[…, rows[:, None], columns]`, the `inner` part of which is copied as one: ten times as fast."""
    if not any(seen.strides):  # one value for all
        return np.broadcast_to(seen[..., :1, :1], (*seen.shape[:-2], len(rows), len(columns)))
    out = np.empty((*seen.shape[:-2], len(rows), len(columns)), seen.dtype)
    whole, _ = inner
    _spread_columns(out[..., whole, :], seen[..., rows[whole.start] : rows[whole.stop - 1] + 1, :], columns, inner[1])
    for row in (*range(whole.start), *range(whole.stop, len(rows))):
        _spread_columns(out[..., row, :], seen[..., rows[row], :], columns, inner[1])
    return out


def _spread_columns(out: NDArray[Any], seen: NDArray[Any], columns: NDArray[np.intp], inner: slice) -> None:
    out[..., inner] = seen[..., columns[inner.start] : columns[inner.stop - 1] + 1]
    for edge in (slice(0, inner.start), slice(inner.stop, len(columns))):
        out[..., edge] = seen[..., columns[edge]]
