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
from zarr.errors import BaseZarrError

from tilesseg.atomic_write import check_fences, published
from tilesseg.errors import StoreError, cannot
from tilesseg.formats.zarr.shard_sum import ShardSum, Sums
from tilesseg.raster.window import Window

UNREADABLE = (OSError, BaseZarrError, ValueError, KeyError, TypeError)
"""Errors of `Sharded.open`: the array is missing, or its metadata are damaged."""
MISSING = 2**64 - 1
CRC_BYTES = 4
DAMAGED = "have its tile done again by tilesseg verify"
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
    sums: Sums = field(default_factory=dict)
    """Sums of shards, by their indices; such a shard is compared with its sum before it is read."""

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
        """Open the array in a folder.

        Raises:
            UNREADABLE: the array is missing, or its metadata are damaged.
        """
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

    def write(self, window: Window, values: Bytes, *, plane: tuple[int, ...] = ()) -> list[ShardSum]:
        """Store values `(y, x)` of a window of whole shards, each file whole or not at all.

        Returns:
            Sums of the stored shards, row by row.
        """
        sums = []
        for place in self._shards(window):
            path, data = self.file(self._numbers(place, plane)), self._encoded(values[place.slices(window)])
            sums.append(ShardSum.of(data))
            if data:
                self._make_folder_of(path)
                with published(path) as temporary:
                    temporary.write_bytes(data)
            elif path.exists():
                check_fences()
                path.unlink(missing_ok=True)
        return sums

    def _make_folder_of(self, path: Path) -> None:
        """Make the folders of a shard inside the array, and never the array's own, which somebody may have removed."""
        if not path.parent.is_dir():
            inside = path.parent.relative_to(self.folder).parts
            for depth in range(1, len(inside) + 1):
                self.folder.joinpath(*inside[:depth]).mkdir(exist_ok=True)

    def read(self, window: Window, *, plane: tuple[int, ...] = ()) -> Bytes:
        """Values `(y, x)` of a window inside the array; only chunks that the window touches are read.

        Raises:
            StoreError: a shard is damaged, or is not the one that its tile's record describes.
        """
        values = np.empty(window.shape, np.uint8)
        for place in self._shards(window):
            part = place.intersect(window)
            out = values[part.slices(window)]
            if any(hidden.contains(part) for hidden in self.blank):
                out[...] = self.fill
            else:
                self._read_shard(place, part, plane, out)
        for hidden in self.blank:
            values[hidden.intersect(window).slices(window)] = self.fill
        return values

    def _read_shard(self, place: Window, part: Window, plane: tuple[int, ...], out: Bytes) -> None:
        numbers = self._numbers(place, plane)
        path, expected = self.file(numbers), self.sums.get(numbers)
        try:
            if expected is not None:
                expected.compare(path)
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            out[...] = self.fill
            return
        except ValueError as error:
            raise StoreError(cannot(f"read {path}", error, DAMAGED)) from None
        try:
            self._decode(file, place, part, out)
        except (RuntimeError, ValueError) as error:
            raise StoreError(cannot(f"read {path}", f"the shard is damaged ({error})", DAMAGED)) from None
        finally:
            os.close(file)

    def _shards(self, window: Window) -> Iterator[Window]:
        """Windows of the shards that a window touches, cut at the array's edges."""
        yield from _cells(window, self.shard, Window(0, 0, *self.shape))

    def numbers(self, window: Window, plane: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
        """Indices of the shards that a window touches, row by row."""
        return [self._numbers(place, plane) for place in self._shards(window)]

    def file(self, numbers: tuple[int, ...]) -> Path:
        """File of a shard."""
        return self.folder.joinpath("c", *map(str, numbers))

    def _numbers(self, place: Window, plane: tuple[int, ...]) -> tuple[int, ...]:
        return (*plane, place.y // self.shard[0], place.x // self.shard[1])

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
