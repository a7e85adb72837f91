"""Stored arrays of bytes: Zarr 3 with shards, of which whole ones go straight to their files and windows come back.

A shard is the file that Zarr's `sharding_indexed` codec describes: the compressed chunks, then for each chunk where it
begins and how long it is (two little-endian uint64, all ones where it is left out), then the CRC-32C of these. Any
reader of Zarr 3 reads it. zarr-python makes and describes the arrays; by way of it, writing or reading a mask takes
about three times as long (`benchmarks/parts/pyramid.py`).
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

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError
from tilesseg.raster.window import Window

MISSING = 2**64 - 1
CRC_BYTES = 4

Bytes = NDArray[np.uint8]
Sides = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sharded:
    """An array `(…, y, x)` of bytes. Picklable; different shards may be written by several processes."""

    folder: Path
    shape: Sides
    """Of a plane."""
    shard: Sides
    """The unit of writing, one file."""
    chunk: Sides
    """The unit of reading."""
    fill: int
    """What is not stored reads as this."""
    effort: int
    """Of zstd."""
    sparse: bool = True
    """Whether chunks full of `fill` are left out."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The array's attributes."""

    @classmethod
    def create(
        cls, folder: Path, shape: Sides, *, shard: int, chunk: int, fill: int, planes: Sequence[int] = (), **facts: Any
    ) -> Sharded:
        """An empty array in place of one that lies there; with planes, their axis is named `class`."""
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
        """The array in a folder; raises what zarr raises."""
        return cls.of(zarr.open_array(str(folder), mode="r"), folder)

    @classmethod
    def of(cls, array: zarr.Array[Any], folder: Path, *, sparse: bool = True) -> Sharded:
        """An array of bytes with shards of chunks by zstd, which lies in a folder."""
        height, width = array.shape[-2:]
        tall, wide = (array.shards or array.chunks)[-2:]
        high, broad = array.chunks[-2:]
        codec: Any = array.compressors[0]
        fill: Any = array.fill_value
        facts = dict(array.attrs)
        return cls(folder, (height, width), (tall, wide), (high, broad), int(fill), int(codec.level), sparse, facts)

    def write(self, window: Window, values: Bytes, *, plane: tuple[int, ...] = ()) -> None:
        """Store values `(y, x)` of whole shards, each file whole or not at all."""
        for place in self._shards(window):
            path, data = self._file(place, plane), self._encoded(values[place.slices(window)])
            if data:
                path.parent.mkdir(parents=True, exist_ok=True)
                with published(path) as temporary:
                    temporary.write_bytes(data)
            else:
                path.unlink(missing_ok=True)

    def clear(self, window: Window, *, plane: tuple[int, ...] = ()) -> None:
        """Put whole shards back to the fill value."""
        for place in self._shards(window):
            self._file(place, plane).unlink(missing_ok=True)

    def read(self, window: Window, *, plane: tuple[int, ...] = ()) -> Bytes:
        """Values `(y, x)` of a window inside the array; of chunks, only those that it touches are read.

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
                raise StoreError(f"{path} is damaged ({error}); restore it, or do its tile again") from None
            finally:
                os.close(file)
        return values

    def _shards(self, window: Window) -> Iterator[Window]:
        """Those that a window touches, as far as the array goes."""
        yield from _cells(window, self.shard, Window(0, 0, *self.shape))

    def _file(self, place: Window, plane: tuple[int, ...]) -> Path:
        numbers = (*plane, place.y // self.shard[0], place.x // self.shard[1])
        return self.folder.joinpath("c", *map(str, numbers))

    def _encoded(self, values: Bytes) -> bytes:
        """A shard; nothing where nothing needs to be stored."""
        index, parts, start = self._empty_index(), [], 0
        for place in _cells(Window(0, 0, *values.shape), self.chunk, Window(0, 0, *values.shape)):
            chunk = values[place.slices()]
            if self.sparse and chunk[0, 0] == self.fill and (chunk == self.fill).all():
                continue
            data = zstd.compress(self._padded(chunk), self.effort)
            index[place.y // self.chunk[0], place.x // self.chunk[1]] = start, len(data)
            parts.append(data)
            start += len(data)
        told = index.tobytes()
        return b"".join([*parts, told, google_crc32c.value(told).to_bytes(CRC_BYTES, "little")]) if parts else b""

    def _padded(self, chunk: Bytes) -> Bytes:
        if chunk.shape == self.chunk:
            return np.ascontiguousarray(chunk)
        whole = np.full(self.chunk, self.fill, np.uint8)
        whole[: chunk.shape[0], : chunk.shape[1]] = chunk
        return whole

    def _decode(self, file: int, shard: Window, part: Window, out: Bytes) -> None:
        index = self._index(file)
        for place in _cells(part, self.chunk, Window(0, 0, *self.shape)):
            seen = place.intersect(part)
            start, size = map(int, index[(place.y - shard.y) // self.chunk[0], (place.x - shard.x) // self.chunk[1]])
            if start == MISSING:
                out[seen.slices(part)] = self.fill
                continue
            chunk = np.frombuffer(zstd.decompress(os.pread(file, size, start)), np.uint8).reshape(self.chunk)
            out[seen.slices(part)] = chunk[seen.slices(place)]

    def _index(self, file: int) -> NDArray[np.uint64]:
        index = self._empty_index()
        told = os.pread(file, index.nbytes + CRC_BYTES, max(0, os.fstat(file).st_size - index.nbytes - CRC_BYTES))
        facts, crc = told[: index.nbytes], int.from_bytes(told[index.nbytes :], "little")
        if len(told) != index.nbytes + CRC_BYTES or google_crc32c.value(facts) != crc:
            raise ValueError("its index has another checksum")
        return np.frombuffer(facts, "<u8").reshape(index.shape)

    def _empty_index(self) -> NDArray[np.uint64]:
        rows, columns = (side // chunk for side, chunk in zip(self.shard, self.chunk, strict=True))
        return np.full((rows, columns, 2), MISSING, "<u8")


def _cells(window: Window, sides: Sides, whole: Window) -> Iterator[Window]:
    """The cells of a grid, cut to the whole, that a window touches."""
    tall, wide = sides
    rows = range(window.y // tall * tall, window.y_stop, tall)
    columns = range(window.x // wide * wide, window.x_stop, wide)
    for y, x in product(rows, columns):
        yield Window(y, x, tall, wide).intersect(whole)
