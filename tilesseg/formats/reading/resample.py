"""Resampling on one virtual grid: the same bytes for a pixel in every window.

Output pixel `i` of an axis covers the source from `offset + i·scale` to `offset + (i + 1)·scale`, in source pixels.
Taps and their weights are computed from that global index and summed one tap at a time, in a fixed order and
without BLAS: so `read(A ∪ B)` equals `read(A)` and `read(B)` joined, byte for byte.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

Pair = tuple[float, float]
"""One number for each axis, `(y, x)`."""

Taps = list[tuple[NDArray[np.intp], NDArray[np.float64]]]
"""Source index and weight of every output pixel of one axis, for each tap."""


def output_shape(shape: tuple[int, int], scale: Pair) -> tuple[int, int]:
    """Shape of the virtual grid over a source of `shape`: its last pixels may overhang the source."""
    height, width = (max(1, int(np.ceil(n / s - 1e-6))) for n, s in zip(shape, scale, strict=True))
    return height, width


def exact_ratio(ratio: float) -> float:
    """A ratio that is a whole number but for rounding, made exactly that."""
    return float(round(ratio)) if abs(round(ratio) - ratio) < 1e-6 * ratio else float(ratio)


def centres(size: int, parts: int) -> NDArray[np.intp]:
    """The pixels under the centres of equal parts of an axis of `size` pixels."""
    return np.asarray((np.arange(parts) + 0.5) * size / parts, np.intp)


def source_window(
    window: Window,
    scale: Pair,
    shape: tuple[int, int],
    *,
    offset: Pair = (0.0, 0.0),
    method: Literal["smooth", "nearest"] = "smooth",
) -> Window:
    """The source pixels that `resample` needs for an output window.

    Args:
        window: output pixels, on the virtual grid.
        scale: size of an output pixel in source pixels, `(y, x)`.
        shape: the whole source's shape.
        offset: where the virtual grid's corner lies, in source pixels `(y, x)`.
        method: as for `resample`.
    """
    bounds = []
    for start, stop, axis in ((window.y, window.y_stop, 0), (window.x, window.x_stop, 1)):
        # The indices of taps never fall along an axis, so the first and the last output pixel bound all.
        ends = np.array([start, max(start, stop - 1)])
        taps = _taps(ends, scale[axis], offset[axis], shape[axis], method)
        indices = np.stack([index for index, _ in taps] + [_centres(ends, scale[axis], offset[axis], shape[axis])])
        bounds.append((int(indices.min()), int(indices.max()) + 1))
    (y, y_stop), (x, x_stop) = bounds
    return Window.from_bounds(y, x, y_stop, x_stop)


def resample(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    window: Window,
    *,
    scale: Pair,
    source: Window,
    shape: tuple[int, int],
    offset: Pair = (0.0, 0.0),
    method: Literal["smooth", "nearest"] = "smooth",
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resample to an output window: the mean along an axis that shrinks, interpolation along one that grows.

    Or, by `method`, the nearest pixel along both.

    Invalid pixels do not contribute. An output pixel is valid iff the source pixel under its centre is (the
    nearest one, where the grid overhangs the source); invalid pixels are 0.

    Args:
        values: `(channel, y, x)` of the source window; any real dtype.
        valid: `(y, x)` of the source window; False where a pixel must not contribute.
        window: the requested output pixels.
        scale: size of an output pixel in source pixels, `(y, x)`: above 1 shrinks.
        source: the window that `values` holds: the result of `source_window`, or a larger one.
        shape: the whole source's shape; taps beyond it repeat its edge.
        offset: where the virtual grid's corner lies, in source pixels `(y, x)`.
        method: `nearest` takes the source pixel under the centre, along both axes: for values that are labels.

    Returns:
        Values `(channel, y, x)` float32 and their validity `(y, x)`.
    """
    rows, columns = np.arange(window.y, window.y_stop), np.arange(window.x, window.x_stop)
    taps_y = _shift(_taps(rows, scale[0], offset[0], shape[0], method), source.y)
    taps_x = _shift(_taps(columns, scale[1], offset[1], shape[1], method), source.x)
    centre_y = _centres(rows, scale[0], offset[0], shape[0]) - source.y
    centre_x = _centres(columns, scale[1], offset[1], shape[1]) - source.x
    out_valid = valid[centre_y[:, None], centre_x]
    weight = _weigh(valid.astype(np.float64), taps_y, taps_x)
    result = np.zeros((len(values), *window.shape), np.float32)
    for channel, out in zip(values, result, strict=True):  # one at a time: the sums are float64
        total = _weigh(np.where(valid, channel, 0).astype(np.float64), taps_y, taps_x)
        np.divide(total, weight, out=total, where=out_valid)
        with np.errstate(over="ignore"):  # beyond float32: infinite, hence invalid
            np.copyto(out, total, where=out_valid, casting="same_kind")
    return result, out_valid


def under_centres(
    plane: NDArray[np.bool_],
    window: Window,
    *,
    scale: Pair,
    source: Window,
    shape: tuple[int, int],
    offset: Pair = (0.0, 0.0),
) -> NDArray[np.bool_]:
    """A mask `(y, x)` of the source window under the centres of the output pixels; arguments as for `resample`."""
    if not any(plane.strides):
        return np.broadcast_to(plane.flat[0], window.shape)
    rows, columns = np.arange(window.y, window.y_stop), np.arange(window.x, window.x_stop)
    centre_y = _centres(rows, scale[0], offset[0], shape[0]) - source.y
    centre_x = _centres(columns, scale[1], offset[1], shape[1]) - source.x
    return plane[centre_y[:, None], centre_x]


def _taps(index: NDArray[np.intp], scale: float, offset: float, size: int, method: str) -> Taps:
    if method == "nearest":
        return [(_centres(index, scale, offset, size), np.ones(len(index)))]
    if scale > 1:
        return _mean_taps(index, scale, offset, size)
    position = (index + 0.5) * scale + offset - 0.5
    first = np.floor(position)
    second_weight = position - first
    low = first.astype(np.intp)
    return [
        (np.clip(low, 0, size - 1), 1.0 - second_weight),
        (np.clip(low + 1, 0, size - 1), second_weight),
    ]


def _mean_taps(index: NDArray[np.intp], scale: float, offset: float, size: int) -> Taps:
    """Taps of the mean: a source pixel weighs its part under the output pixel; nothing beyond the source counts."""
    start = np.clip(index * scale + offset, 0, size - 1)
    stop = np.clip((index + 1) * scale + offset, 1, size)
    first = np.floor(start).astype(np.intp)
    taps: Taps = []
    for k in range(int(np.ceil(scale)) + 1):
        covered = np.minimum(stop, first + k + 1) - np.maximum(start, first + k)
        taps.append((np.minimum(first + k, size - 1), np.maximum(covered, 0.0)))
    return taps


def _centres(index: NDArray[np.intp], scale: float, offset: float, size: int) -> NDArray[np.intp]:
    """The source pixel under the centre of each output pixel."""
    return np.asarray(np.clip(np.floor((index + 0.5) * scale + offset), 0, size - 1), np.intp)


def _shift(taps: Taps, origin: int) -> Taps:
    return [(index - origin, weight) for index, weight in taps]


def _weigh(plane: NDArray[np.float64], taps_y: Taps, taps_x: Taps) -> NDArray[np.float64]:
    """Weighted sums of a `(y, x)` plane over the taps of both axes."""
    across = np.zeros((plane.shape[0], len(taps_x[0][0])))
    for index, weight in taps_x:
        across += plane.take(index, axis=1) * weight
    total = np.zeros((len(taps_y[0][0]), across.shape[1]))
    for index, weight in taps_y:
        total += across.take(index, axis=0) * weight[:, None]
    return total
