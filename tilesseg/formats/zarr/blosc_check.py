"""Chunks by Blosc that are shorter than they say: its decoder reads on in memory and now and then gives pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import zarr

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
