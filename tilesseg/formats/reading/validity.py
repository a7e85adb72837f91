"""Validity of pixels, scale and offset: from raw values and masks to the pixels of an image, for every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.source import Pixels

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
"""Data types that can be segmented: real numbers that float32 holds well enough."""

Scaling = tuple[float, float]
"""Scale and offset."""

UNSCALED: Scaling = (1.0, 0.0)


def physical(channel: NDArray[Any], scaling: Scaling) -> NDArray[Any]:
    """A channel's raw values times scale plus offset, as float32; the channel itself where that changes nothing.

    Computed in float64, so that the type in which the raw values were stored makes no difference.
    """
    if scaling == UNSCALED:
        return channel
    exact = channel.astype(np.float64)
    with np.errstate(all="ignore"):  # values that are no longer finite are invalid
        exact *= scaling[0]
        exact += scaling[1]
        return exact.astype(np.float32)


def finish(
    values: NDArray[Any], planes: Sequence[NDArray[np.bool_]], *, scalings: Sequence[Scaling], dtype: np.dtype[Any]
) -> Pixels:
    """Pixels of an image, from raw values and masks.

    Args:
        values: `(channel, y, x)`. Not copied where nothing changes them.
        planes: masks `(y, x)`, at least one; a pixel is valid where all masks are True and all channels finite.
        scalings: scale and offset of every channel.
        dtype: data type of the result.
    """
    if values.dtype != dtype or any(scaling != UNSCALED for scaling in scalings):
        raw, values = values, np.empty(values.shape, dtype)
        with np.errstate(over="ignore"):  # beyond float32: infinite, hence invalid
            for out, channel, scaling in zip(values, raw, scalings, strict=True):
                out[:] = physical(channel, scaling)
    valid = planes[0]
    for plane in planes[1:]:
        valid = valid & plane
    if dtype.kind == "f":
        for channel in values:
            valid = valid & np.isfinite(channel)
    return Pixels(values, valid)


def stacked(planes: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Masks `(y, x)` as one array `(mask, y, x)`, which takes no memory where all is valid."""
    if len(planes) == 1:
        return planes[0][None]
    if all(not any(plane.strides) and plane.all() for plane in planes):
        return np.broadcast_to(np.True_, (len(planes), *planes[0].shape))
    return np.stack(planes)
