"""Stored chunks of a Zarr array: where a chunk is missing or shortened, Zarr gives values that nobody measured."""

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

from tilesseg.formats.zarr.zipped import exists, list_folder, open_file, split_zip

_ABSENT = np.uint64(2**64 - 1)
_METADATA = ("zarr.json",)


def any_stored(path: str) -> bool:
    """Whether an array has any chunk; the search ends with the first."""
    if split_zip(path) is not None:
        return any(name not in _METADATA and not name.startswith(".") for name in list_folder(path))
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
    """Whether each chunk of a rectangle is stored, in a shard by the shard's index.

    A shard whose index is not written in the usual way counts as having all its chunks.

    Args:
        path: path of the array.
        array: the opened array.
        places: number of the chunk along every axis; the numbers along y and x are replaced.
        y: number of the axis y, and the chunks' numbers along it.
        x: the same for x.
    """
    file_shape = array.shards or array.chunks
    per_file = [length // chunk for length, chunk in zip(file_shape, array.chunks, strict=True)]
    chunks_in = lru_cache(maxsize=64)(partial(_inside, array, per_file))  # a shard's index is read once
    present = np.empty((len(y[1]), len(x[1])), np.bool_)
    at = list(places)
    for (row, at_y), (column, at_x) in product(enumerate(y[1]), enumerate(x[1])):
        at[y[0]], at[x[0]] = at_y, at_x
        number = tuple(place // count for place, count in zip(at, per_file, strict=True))
        stored = chunks_in(os.path.join(path, array.metadata.encode_chunk_key(number)))
        present[row, column] = stored[tuple(place % count for place, count in zip(at, per_file, strict=True))]
    return present


def _inside(array: zarr.Array[Any], per_file: Sequence[int], file: str) -> NDArray[np.bool_]:
    """Whether a file holds each of its chunks, along every axis: a single chunk, or those of a shard."""
    if not exists(file):
        return np.broadcast_to(np.False_, per_file)
    index = None if array.shards is None else _shard_index(Path(file), array, int(np.prod(per_file)))
    if index is None:
        return np.broadcast_to(np.True_, per_file)
    return np.asarray((index != _ABSENT).reshape(*per_file, 2)[..., 0])


def _shard_index(file: Path, array: zarr.Array[Any], count: int) -> NDArray[np.uint64] | None:
    """Offset and length of each chunk in a shard (Zarr 3, sharding codec), or None where the index cannot be read."""
    codecs: Any = getattr(array.metadata, "codecs", ())
    sharding = next((codec for codec in codecs if isinstance(codec, ShardingCodec)), None)
    if sharding is None or len(codecs) != 1:
        return None
    first, *others = sharding.index_codecs
    plain = isinstance(first, BytesCodec) and first.endian is not None and first.endian.value == "little"
    if not plain or not all(isinstance(codec, Crc32cCodec) for codec in others):
        return None
    length, at_end = 16 * count + 4 * len(others), sharding.index_location.value == "end"
    with open_file(str(file)) as shard:
        shard.seek(max(0, shard.seek(0, os.SEEK_END) - length) if at_end else 0)
        index = shard.read(16 * count)
    return np.frombuffer(index, "<u8").astype(np.uint64) if len(index) == 16 * count else None


_HEADER = 16
"""Number of bytes; the last four are the length of the whole chunk, lowest byte first (Blosc 1 chunk format)."""


def by_blosc(array: zarr.Array[Any]) -> bool:
    """Whether each file of an array is a single chunk by Blosc, which reads on in memory where a file is shortened."""
    last = array.compressors[-1] if array.compressors else None
    return array.shards is None and type(last).__name__ in ("Blosc", "BloscCodec")


def refuse_shortened(files: Iterable[str]) -> None:
    """Refuse a file of Blosc that ends before its chunk; a missing file is accepted.

    Raises:
        OSError: a file is shortened, or cannot be read.
    """
    for name in files:
        try:
            with open_file(name) as file:
                header, length = file.read(_HEADER), file.seek(0, 2)
        except FileNotFoundError:
            continue
        needed = int.from_bytes(header[12:], "little") if len(header) == _HEADER else _HEADER
        if length < needed:
            raise OSError(f"{name} has {length} bytes of the {needed} of its chunk; copy it again")
