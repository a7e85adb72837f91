"""One Zarr array: its pixels by window, from any thread and process. Hides the calls and the errors of zarr."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.source import unreadable
from tilesseg.formats.zarr.stored_chunks import by_blosc, refuse_shortened, stored_chunks
from tilesseg.formats.zarr.zipped import exists, zarr_place
from tilesseg.raster.window import Window

# As in the store: total threads are tiles in flight × this.
zarr.config.set({"async.concurrency": 4, "threading.max_workers": 4})


class Axes(NamedTuple):
    """Numbers of the axes y, x and channel; any other axis has a length of 1, or a fixed index."""

    y: int
    x: int
    channel: int | None = None
    fixed: tuple[tuple[int, int], ...] = ()
    """Numbers of axes with a fixed index, a time or a plane, and that index."""


class ZarrArray:
    """An array in the local file system, opened when it is first used. Picklable, safe for several threads."""

    def __init__(self, path: str, axes: Axes) -> None:
        self.path = path
        self.axes = axes

    def __reduce__(self) -> tuple[type[ZarrArray], tuple[str, Axes]]:
        return ZarrArray, (self.path, self.axes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrArray) and (self.path, self.axes) == (other.path, other.axes)

    def __hash__(self) -> int:
        return hash((self.path, self.axes))

    @cached_property
    def array(self) -> zarr.Array[Any]:
        return zarr.open_array(**zarr_place(self.path), mode="r")

    @cached_property
    def _by_blosc(self) -> bool:
        return by_blosc(self.array)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._plane(self.array.shape)

    @property
    def channels(self) -> int:
        return 1 if self.axes.channel is None else int(self.array.shape[self.axes.channel])

    @property
    def chunk(self) -> tuple[int, int]:
        """Height and width of a chunk, which is decoded at once."""
        return self._plane(self.array.chunks)

    def read(self, channels: Sequence[int], window: Window) -> NDArray[Any]:
        """Values `(channel, y, x)` of a window inside the array, in native byte order.

        Raises:
            SourceError: a chunk cannot be read or decoded; names array and window.
        """
        try:
            if self._by_blosc:
                refuse_shortened({file for channel in channels for file in self._files(channel, window)})
            values = self._read(channels, window)
        except Exception as error:  # every codec has exceptions of its own
            raise SourceError(unreadable(self.where(window), error)) from error
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def where(self, window: Window) -> str:
        """First part of a message about a window."""
        rows, columns = f"{window.y}–{window.y_stop - 1}", f"{window.x}–{window.x_stop - 1}"
        return f"{self.path}: cannot read rows {rows}, columns {columns}"

    def stored(self, channel: int, window: Window) -> Iterable[bool]:
        """Whether there is a file, for each shard or chunk that a window touches."""
        return (exists(file) for file in self._files(channel, window))

    def present(self, channel: int, window: Window) -> NDArray[np.bool_]:
        """Whether each pixel `(y, x)` of a window lies in a stored chunk; a single value, repeated, where all do."""
        chunks, axes = self.array.chunks, self.axes
        places = [0] * len(chunks)
        for axis, at in (*axes.fixed, *(() if axes.channel is None else ((axes.channel, channel),))):
            places[axis] = at // chunks[axis]
        rows = range(window.y // chunks[axes.y], -(-window.y_stop // chunks[axes.y]))
        columns = range(window.x // chunks[axes.x], -(-window.x_stop // chunks[axes.x]))
        present = stored_chunks(self.path, self.array, places, y=(axes.y, rows), x=(axes.x, columns))
        if present.all():
            return np.broadcast_to(np.True_, window.shape)
        y = np.arange(window.y, window.y_stop) // chunks[axes.y] - rows.start
        x = np.arange(window.x, window.x_stop) // chunks[axes.x] - columns.start
        return np.asarray(present[y[:, None], x])

    def _files(self, channel: int, window: Window) -> Iterable[str]:
        stored = self.array.shards or self.array.chunks
        spans = [range(1)] * len(stored)
        for axis, start, stop in ((self.axes.y, window.y, window.y_stop), (self.axes.x, window.x, window.x_stop)):
            spans[axis] = range(start // stored[axis], -(-stop // stored[axis]))
        if self.axes.channel is not None:
            at = channel // stored[self.axes.channel]
            spans[self.axes.channel] = range(at, at + 1)
        for axis, place in self.axes.fixed:
            spans[axis] = range(place // stored[axis], place // stored[axis] + 1)
        for number in itertools.product(*spans):
            yield os.path.join(self.path, self.array.metadata.encode_chunk_key(number))

    def _read(self, channels: Sequence[int], window: Window) -> NDArray[Any]:
        if self.axes.channel is None:
            plane = self._cut(slice(None), window)[None]
            return plane if len(channels) == 1 else np.repeat(plane, len(channels), axis=0)
        first, last = min(channels), max(channels)
        if list(channels) == list(range(first, last + 1)):
            return self._cut(slice(first, last + 1), window)
        if self.array.chunks[self.axes.channel] == 1:
            out = np.empty((len(channels), *window.shape), self.array.dtype)
            for plane, channel in zip(out, channels, strict=True):
                plane[:] = self._cut(slice(channel, channel + 1), window)[0]
            return out
        return self._cut(slice(first, last + 1), window)[[channel - first for channel in channels]]

    def _cut(self, channels: slice, window: Window) -> NDArray[Any]:
        """`(channel, y, x)`, or `(y, x)` of an array without channels."""
        index: list[slice | int] = [0] * self.array.ndim
        for axis, place in self.axes.fixed:
            index[axis] = place
        index[self.axes.y], index[self.axes.x] = window.slices()
        kept = [self.axes.y, self.axes.x]
        if self.axes.channel is not None:
            index[self.axes.channel] = channels
            kept.insert(0, self.axes.channel)
        values = np.asarray(self.array[tuple(index)])
        stored = sorted(kept)
        return np.ascontiguousarray(values.transpose([stored.index(axis) for axis in kept]))

    def _plane(self, sizes: Sequence[int]) -> tuple[int, int]:
        return int(sizes[self.axes.y]), int(sizes[self.axes.x])


def metadata_files(folder: str) -> list[str]:
    """The existing metadata files of an array or a group."""
    names = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
    return [path for name in names if exists(path := os.path.join(folder, name))]
