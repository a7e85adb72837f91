"""Sample for the statistics of an image (percentiles, mean, standard deviation): windows on a regular grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.source import Pixels
from tilesseg.raster.window import Window

PIXELS = 1 << 20
"""Number of pixels in a sample, of one channel."""
VALUES = 1 << 24
"""Number of values in a sample, all channels together."""
SIDE = 128
_DECODED = 2 << 30  # bytes that may be decoded in all: files exist whose single strip is a gigabyte


def sample_grid(shape: tuple[int, int], count: int = PIXELS // SIDE**2) -> list[Window]:
    """At most `count` windows of at most 128², evenly spread; they cover an image that is small enough."""
    height, width = shape
    rows = min(_sample_count(height), max(1, round(count**0.5)))
    columns = min(_sample_count(width), max(1, count // rows))
    rows = min(_sample_count(height), max(1, count // columns))
    spans = itertools.product(_spans(height, rows), _spans(width, columns))
    return [Window.from_bounds(y, x, y_stop, x_stop) for (y, y_stop), (x, x_stop) in spans]


def sampled_windows(shape: tuple[int, int], channels: int, *, block_bytes: int) -> list[Window]:
    """The windows to sample: fewer where there are very many channels, or where storage blocks are huge.

    Args:
        shape: shape of the image.
        channels: number of channels that are read.
        block_bytes: bytes that are decoded of one channel for a single pixel.
    """
    count = min(PIXELS // SIDE**2, max(1, VALUES // (channels * SIDE**2)), max(1, _DECODED // (block_bytes * channels)))
    return sample_grid(shape, int(count))


def sample_windows(windows: Sequence[Window], read: Callable[[Window], Pixels]) -> NDArray[np.float64]:
    """Valid values `(channel, n)` of these windows; those that cannot be read are left out.

    Raises:
        SourceError: none can be read.
    """
    parts, failure = [], None
    for window in windows:
        try:
            values, valid = read(window)
        except SourceError as error:
            failure = error
            continue
        parts.append(values[:, valid].astype(np.float64))
    return _gathered(parts, failure)


def sample_rows(windows: Sequence[Window], strips: Iterable[Pixels]) -> NDArray[np.float64]:
    """Sample as `sample_windows` gives it, from one pass over the image; windows below a damaged row are left out.

    Args:
        windows: the windows to sample.
        strips: all rows of the image, from top to bottom.
    """
    parts, failure, y = [], None, 0
    try:
        for values, valid in strips:
            strip, y = Window(y, 0, *valid.shape), y + len(valid)
            for place in (window.intersect(strip) for window in windows):
                if not place.empty:
                    rows, columns = place.slices(strip)
                    parts.append(values[:, rows, columns][:, valid[rows, columns]].astype(np.float64))
    except SourceError as error:
        failure = error
    return _gathered(parts, failure)


def _gathered(parts: list[NDArray[np.float64]], failure: SourceError | None) -> NDArray[np.float64]:
    if not parts:
        raise SourceError(
            f"no window of the image can be read; repair or replace the file (the last attempt: {failure})"
        ) from failure
    return np.concatenate(parts, axis=1)


def _sample_count(length: int) -> int:
    return max(1, -(-length // SIDE))


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    """`count` stretches, each in the middle of its share of the length."""
    spans = []
    for k in range(count):
        start, stop = k * length // count, (k + 1) * length // count
        spare = max(0, stop - start - SIDE)
        spans.append((start + spare // 2, stop - (spare - spare // 2)))
    return spans
