"""Chunks that a Zarr does not store: what their pixels are, and how many there are.

Writers leave out chunks that hold nothing but the fill value (zarr-python, bioformats2raw, ngff-zarr and GDAL do by
default), and Zarr defines what such a chunk holds: the array's fill value. So absent is a value like any other, nodata
only where the metadata or the user say so, and it is never judged by its neighbours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Missing
from tilesseg.formats.zarr.stored_chunks import any_stored, stored_chunks
from tilesseg.formats.zarr.zarr_array import ZarrArray

_COUNTED = 1 << 16
"""Number of chunks that are looked for; of more, a regular sample."""


def refuse_empty(array: ZarrArray, missing: Missing | None) -> None:
    """Refuse an array of which no chunk is stored, unless the user says what that means.

    Raises:
        SourceError: it has no chunk: an interrupted copy looks like this, and an image of nothing but the fill value.
    """
    if missing is None and not any_stored(array.path):
        raise SourceError(
            f"{array.path}: 0 of its {array.array.nchunks} chunks are stored; fetch or copy them again, or give "
            f"input.missing: fill (--missing fill) if all of it is its fill value, {array.array.fill_value}"
        )


def missing_notes(
    array: ZarrArray, channels: Sequence[int], missing: Missing | None, nodata: float | None
) -> list[str]:
    """Note on the chunks of these channels that are not stored, with their share; none where all are.

    Args:
        array: the array.
        channels: its channels that are counted.
        missing: what the user says that they are.
        nodata: nodata value of the array by its metadata.
    """
    absent, counted = _count(array, channels)
    if absent == 0:
        return []
    share, fill = f"{100 * absent / counted:.3g} % of the chunks are not stored", array.array.fill_value
    if missing == "nodata":
        return [f"{share}: their pixels are nodata, as input.missing says"]
    if fill is not None and (np.isnan(float(fill)) or float(fill) == nodata):
        return [f"{share}: their pixels have the fill value {fill}, which is nodata"]
    if fill is None:
        text = f"{share}, and the metadata give no fill value: their pixels are 0"
    else:
        text = f"{share}: their pixels have the fill value {fill}"
    if missing == "fill":
        return [f"{text}, as input.missing says"]
    return [doubt("absent-chunks", f"{text}; input.missing: nodata (--missing nodata) makes them nodata")]


def _count(array: ZarrArray, channels: Sequence[int]) -> tuple[int, int]:
    """Number of absent chunks, and of the chunks that were looked for."""
    chunks, axes = array.array.chunks, array.axes
    rows, columns = (-(-length // side) for length, side in zip(array.shape, array.chunk, strict=True))
    together = 1 if axes.channel is None else chunks[axes.channel]
    groups = sorted({channel // together for channel in channels})
    step = max(1, -(-rows * columns * len(groups) // _COUNTED))
    absent = counted = 0
    for group, row in itertools.islice(itertools.product(groups, range(rows)), 0, None, step):
        places = [0] * len(chunks)
        for axis, at in axes.fixed:
            places[axis] = at // chunks[axis]
        if axes.channel is not None:
            places[axes.channel] = group
        stored = stored_chunks(
            array.path, array.array, places, y=(axes.y, range(row, row + 1)), x=(axes.x, range(columns))
        )
        absent, counted = absent + int((~stored).sum()), counted + stored.size
    return absent, counted
