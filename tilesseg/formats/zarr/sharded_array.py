"""Arrays of bytes in Zarr 3 with shards: whole shards are written, and any window is read.

A shard is a file as the codec `sharding_indexed` of Zarr describes it: the compressed chunks, then an index with the
offset and size of each chunk (two little-endian uint64, all ones for a chunk that is not stored), then the CRC-32C of
the index. Any reader of Zarr 3 reads it. zarr-python creates the arrays and their metadata; to write or read a mask by
it takes about three times as long (`benchmarks/parts/pyramid.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilesseg.atomic_write import check_fences, published
from tilesseg.errors import StoreError, cannot
from tilesseg.raster.window import Window

MISSING = 2**64 - 1
CRC_BYTES = 4
DAMAGED = "restore the file, or delete the record of its tile and run again"
"""Remedy for a damaged shard."""

Bytes = NDArray[np.uint8]
Sides = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sharded:
    """An array `(…, y, x)` of bytes. Picklable; several processes may write different shards."""

    folder: Path
    shape: Sides
    """Height and width of a plane."""
    shard: Sides
    """Height and width of a shard, the unit of writing: one file."""
    chunk: Sides
    """Height and width of a chunk, the unit of reading."""
    fill: int
    """Value of pixels that are not stored."""
    effort: int
    """Compression level of zstd."""
    sparse: bool = True
    """Whether chunks full of `fill` are not stored."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the array."""
    blank: tuple[Window, ...] = ()
    """Windows that read as `fill`, whatever is stored there."""

    @classmethod
    def create(
        cls, folder: Path, shape: Sides, *, shard: int, chunk: int, fill: int, planes: Sequence[int] = (), **facts: Any
    ) -> Sharded:
        """Create an array full of `fill`, in place of an existing one; the axis of `planes` is named `class`."""
        ones = [1 for _ in planes]
        array = zarr.create_array(
            store=str(folder),
            shape=(*planes, *shape),
            chunks=(*ones, chunk, chunk),
            shards=(*ones, shard, shard),
            dtype="uint8",
            fill_value=fill,
            compressors=[ZstdCodec(level=1)],
            attributes=facts,
            dimension_names=["class", "y", "x"] if planes else None,
            overwrite=True,
        )
        return cls.of(array, folder)

    @classmethod
    def open(cls, folder: Path) -> Sharded:
        """Open the array in a folder; errors are those of zarr."""
        return cls.of(zarr.open_array(str(folder), mode="r"), folder)

    @classmethod
    def of(cls, array: zarr.Array[Any], folder: Path, *, sparse: bool = True) -> Sharded:
        """View of an array of bytes in a folder, with shards of chunks compressed by zstd."""
        height, width = array.shape[-2:]
        tall, wide = (array.shards or array.chunks)[-2:]
        high, broad = array.chunks[-2:]
        codec: Any = array.compressors[0]
        fill: Any = array.fill_value
        facts = dict(array.attrs)
        return cls(folder, (height, width), (tall, wide), (high, broad), int(fill), int(codec.level), sparse, facts)

    def write(self, window: Window, values: Bytes, *, plane: tuple[int, ...] = ()) -> None:
        """Store values `(y, x)` of a window of whole shards, each file whole or not at all."""
        for place in self._shards(window):
            path, data = self._file(place, plane), self._encoded(values[place.slices(window)])
            if data:
                path.parent.mkdir(parents=True, exist_ok=True)
                with published(path) as temporary:
                    temporary.write_bytes(data)
            elif path.exists():
                check_fences()
                path.unlink(missing_ok=True)

    def read(self, window: Window, *, plane: tuple[int, ...] = ()) -> Bytes:
        """Values `(y, x)` of a window inside the array; only chunks that the window touches are read.

        Raises:
            StoreError: a shard is damaged.
        """
        values = np.empty(window.shape, np.uint8)
        for place in self._shards(window):
            path, part = self._file(place, plane), place.intersect(window)
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                values[part.slices(window)] = self.fill
                continue
            try:
                self._decode(file, place, part, values[part.slices(window)])
            except (RuntimeError, ValueError) as error:
                raise StoreError(cannot(f"read {path}", f"the shard is damaged ({error})", DAMAGED)) from None
            finally:
                os.close(file)
        for hidden in self.blank:
            values[hidden.intersect(window).slices(window)] = self.fill
        return values

    def _shards(self, window: Window) -> Iterator[Window]:
        """Windows of the shards that a window touches, cut at the array's edges."""
        yield from _cells(window, self.shard, Window(0, 0, *self.shape))

    def _file(self, place: Window, plane: tuple[int, ...]) -> Path:
        numbers = (*plane, place.y // self.shard[0], place.x // self.shard[1])
        return self.folder.joinpath("c", *map(str, numbers))

    def _encoded(self, values: Bytes) -> bytes:
        """Content of a shard's file; empty where no chunk needs to be stored."""
        index, parts, start = self._empty_index(), [], 0
        for place in _cells(Window(0, 0, *values.shape), self.chunk, Window(0, 0, *values.shape)):
            chunk = values[place.slices()]
            if self.sparse and chunk[0, 0] == self.fill and (chunk == self.fill).all():
                continue
            data = zstd.compress(self._padded(chunk), self.effort)
            index[place.y // self.chunk[0], place.x // self.chunk[1]] = start, len(data)
            parts.append(data)
            start += len(data)
        tail = index.tobytes()
        return b"".join([*parts, tail, google_crc32c.value(tail).to_bytes(CRC_BYTES, "little")]) if parts else b""

    def _padded(self, chunk: Bytes) -> Bytes:
        if chunk.shape == self.chunk:
            return np.ascontiguousarray(chunk)
        whole = np.full(self.chunk, self.fill, np.uint8)
        whole[: chunk.shape[0], : chunk.shape[1]] = chunk
        return whole

    def _decode(self, file: int, shard: Window, part: Window, out: Bytes) -> None:
        index = self._index(file)
        for place in _cells(part, self.chunk, Window(0, 0, *self.shape)):
            wanted = place.intersect(part)
            start, size = map(int, index[(place.y - shard.y) // self.chunk[0], (place.x - shard.x) // self.chunk[1]])
            if start == MISSING:
                out[wanted.slices(part)] = self.fill
                continue
            chunk = np.frombuffer(zstd.decompress(os.pread(file, size, start)), np.uint8).reshape(self.chunk)
            out[wanted.slices(part)] = chunk[wanted.slices(place)]

    def _index(self, file: int) -> NDArray[np.uint64]:
        index = self._empty_index()
        tail = os.pread(file, index.nbytes + CRC_BYTES, max(0, os.fstat(file).st_size - index.nbytes - CRC_BYTES))
        facts, crc = tail[: index.nbytes], int.from_bytes(tail[index.nbytes :], "little")
        if len(tail) != index.nbytes + CRC_BYTES or google_crc32c.value(facts) != crc:
            raise ValueError("its index has another checksum")
        return np.frombuffer(facts, "<u8").reshape(index.shape)

    def _empty_index(self) -> NDArray[np.uint64]:
        rows, columns = (side // chunk for side, chunk in zip(self.shard, self.chunk, strict=True))
        return np.full((rows, columns, 2), MISSING, "<u8")


def _cells(window: Window, sides: Sides, whole: Window) -> Iterator[Window]:
    """Cells of a grid that a window touches, cut to `whole`."""
    tall, wide = sides
    rows = range(window.y // tall * tall, window.y_stop, tall)
    columns = range(window.x // wide * wide, window.x_stop, wide)
    for y, x in product(rows, columns):
        yield Window(y, x, tall, wide).intersect(whole)
