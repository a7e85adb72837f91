"""Arrays of a product: each shard is written once, whole, from a window of its own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.process import QUIET
from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window

ReadPlane = Callable[[int, Window], NDArray[np.uint8]]
"""Function that reads the values `(y, x)` of a window in the plane of a number."""

CHUNK, SHARD = 512, 2048
"""Sides, in pixels, of a chunk, which a viewer reads, and of a shard, which is a file (Zarr 3)."""
CHUNK_V2 = 1024
"""Side, in pixels, of a chunk in Zarr 2, which has no shards: every chunk is a file."""


def create_array(
    path: Path,
    *,
    version: str,
    planes: Sequence[int],
    shape: tuple[int, int],
    names: Sequence[str],
    attributes: Mapping[str, Any],
) -> zarr.Array[Any]:
    """Create an array of bytes: in Zarr 2 for OME-Zarr 0.4, in sharded Zarr 3 for 0.5.

    Args:
        path: folder of the array, inside a group.
        version: version of OME-Zarr.
        planes: lengths of the axes before y and x.
        shape: height and width.
        names: names of all axes.
        attributes: attributes of the array.
    """
    ones, sides = [1] * len(planes), [*planes, *shape]
    common: dict[str, Any] = {"shape": sides, "dtype": "uint8", "fill_value": NODATA}
    common["config"] = {"write_empty_chunks": True}  # a missing chunk is taken for a lost one
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == "0.4":
            return zarr.create_array(
                str(path),
                zarr_format=2,
                chunks=(*ones, *(min(CHUNK_V2, side) for side in shape)),
                compressors=numcodecs.Blosc(cname="zstd", clevel=3, shuffle=0),  # readers in Java know it, too
                chunk_key_encoding={"name": "v2", "separator": "/"},
                attributes={"_ARRAY_DIMENSIONS": list(names), **attributes},
                **common,
            )
        chunks = [min(CHUNK, side) for side in shape]
        shards = [chunk * -(-min(SHARD, side) // chunk) for chunk, side in zip(chunks, shape, strict=True)]
        return zarr.create_array(
            str(path),
            zarr_format=3,
            chunks=(*ones, *chunks),
            shards=(*ones, *shards),
            compressors=[ZstdCodec(level=3)],
            dimension_names=list(names),
            attributes=dict(attributes),
            **common,
        )


def fill(array: zarr.Array[Any], read: ReadPlane, *, threads: int) -> None:
    """Write every shard of an array, row by row, `threads` of them at the same time."""
    store = _writer(array)

    def write(part: tuple[int, tuple[int, ...], Window]) -> None:
        number, plane, window = part
        store(plane, window, read(number, window))

    if threads < 2:
        for part in _parts(array):
            write(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(write, _parts(array)):
            pass


def read_from(array: zarr.Array[Any]) -> ReadPlane:
    """Function that reads the planes of a written array."""
    planes = list(np.ndindex(*array.shape[:-2]))
    if array.shards is not None:
        sharded = _sharded(array)
        return lambda number, window: sharded.read(window, plane=planes[number])

    def read(number: int, window: Window) -> NDArray[np.uint8]:
        return np.asarray(array[(*planes[number], *window.slices())], np.uint8)

    return read


def make_group(path: Path, *, version: str, attributes: Mapping[str, Any]) -> None:
    """Create a group with attributes; its path must not exist."""
    os.makedirs(path.parent, exist_ok=True)
    zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3, attributes=dict(attributes))


def _writer(array: zarr.Array[Any]) -> Callable[[tuple[int, ...], Window, NDArray[np.uint8]], object]:
    """Function that stores a whole shard of a plane, or in Zarr 2 a chunk."""
    if array.shards is not None:
        sharded = _sharded(array)
        return lambda plane, window, values: sharded.write(window, values, plane=plane)

    def write(plane: tuple[int, ...], window: Window, values: NDArray[np.uint8]) -> None:
        place: tuple[int | slice, ...] = (*plane, *window.slices())
        array[place] = values

    return write


def _sharded(array: zarr.Array[Any]) -> Sharded:
    store: Any = array.store
    return Sharded.of(array, Path(store.root) / array.path, sparse=False)


def _parts(array: zarr.Array[Any]) -> Iterator[tuple[int, tuple[int, ...], Window]]:
    """Number and indices of the plane, and window, of every shard."""
    height, width = array.shape[-2:]
    tall, wide = (array.shards or array.chunks)[-2:]
    for number, plane in enumerate(np.ndindex(*array.shape[:-2])):
        for y, x in product(range(0, height, tall), range(0, width, wide)):
            yield number, plane, Window(y, x, tall, wide).intersect(Window(0, 0, height, width))
