"""Which chunks of a Zarr array are stored: where one is not, Zarr gives its fill value as if that had been seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

_ABSENT = np.uint64(2**64 - 1)
_METADATA = ("zarr.json",)


def any_stored(path: str) -> bool:
    """Whether an array has a chunk at all; looks no further than the first one."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _METADATA:
                continue
            if not entry.is_dir() or any_stored(entry.path):
                return True
    return False


def stored_chunks(
    path: str, array: zarr.Array[Any], places: Sequence[int], *, y: tuple[int, range], x: tuple[int, range]
) -> NDArray[np.bool_]:
    """For a rectangle of chunks, whether each is stored; of those in a shard, its index says so.

    A shard whose index is not written in the usual way counts as having all its chunks.

    Args:
        path: of the array.
        array: opened.
        places: number of the chunk along every axis; those along y and x are replaced.
        y: the axis, and the numbers along it.
        x: likewise.
    """
    file_shape = array.shards or array.chunks
    per_file = [length // chunk for length, chunk in zip(file_shape, array.chunks, strict=True)]
    chunks_in = lru_cache(maxsize=64)(partial(_inside, array, per_file))  # a shard's index is read once
    found = np.empty((len(y[1]), len(x[1])), np.bool_)
    at = list(places)
    for (row, at_y), (column, at_x) in product(enumerate(y[1]), enumerate(x[1])):
        at[y[0]], at[x[0]] = at_y, at_x
        number = tuple(place // count for place, count in zip(at, per_file, strict=True))
        stored = chunks_in(os.path.join(path, array.metadata.encode_chunk_key(number)))
        found[row, column] = stored[tuple(place % count for place, count in zip(at, per_file, strict=True))]
    return found


def _inside(array: zarr.Array[Any], per_file: Sequence[int], file: str) -> NDArray[np.bool_]:
    """Which chunks a file holds, along every axis: one chunk, or those of a shard."""
    if not os.path.exists(file):
        return np.broadcast_to(np.False_, per_file)
    index = None if array.shards is None else _shard_index(Path(file), array, int(np.prod(per_file)))
    if index is None:
        return np.broadcast_to(np.True_, per_file)
    return np.asarray((index != _ABSENT).reshape(*per_file, 2)[..., 0])


def _shard_index(file: Path, array: zarr.Array[Any], count: int) -> NDArray[np.uint64] | None:
    """Offset and length of each chunk in a shard (Zarr 3, sharding codec), or None where it cannot be looked up."""
    codecs: Any = getattr(array.metadata, "codecs", ())
    sharding = next((codec for codec in codecs if isinstance(codec, ShardingCodec)), None)
    if sharding is None or len(codecs) != 1:
        return None
    first, *others = sharding.index_codecs
    plain = isinstance(first, BytesCodec) and first.endian is not None and first.endian.value == "little"
    if not plain or not all(isinstance(codec, Crc32cCodec) for codec in others):
        return None
    length, at_end = 16 * count + 4 * len(others), sharding.index_location.value == "end"
    with file.open("rb") as shard:
        shard.seek(max(0, os.fstat(shard.fileno()).st_size - length) if at_end else 0)
        told = shard.read(16 * count)
    return np.frombuffer(told, "<u8").astype(np.uint64) if len(told) == 16 * count else None


_HEADER = 16
"""Bytes; the last four of them are the length of the whole, from the lowest byte on (Blosc 1 chunk format)."""


def by_blosc(array: zarr.Array[Any]) -> bool:
    """Whether each file of an array is what Blosc made of one chunk; a shard's index notices by itself."""
    last = array.compressors[-1] if array.compressors else None
    return array.shards is None and type(last).__name__ in ("Blosc", "BloscCodec")


def refuse_shortened(files: Iterable[str]) -> None:
    """Refuse a file that ends before its chunk does; one that is not there is none.

    Raises:
        OSError: it does, or cannot be read.
    """
    for name in files:
        try:
            with open(name, "rb") as file:
                told, length = file.read(_HEADER), file.seek(0, 2)
        except FileNotFoundError:
            continue
        needed = int.from_bytes(told[12:], "little") if len(told) == _HEADER else _HEADER
        if length < needed:
            raise OSError(f"{name} has {length} bytes of the {needed} of its chunk; copy it again")
