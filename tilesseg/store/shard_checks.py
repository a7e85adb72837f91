"""Checks of stored shards against the records of their tiles: by size, which is cheap, or by their bytes.

A record written before records had sums describes no shard, and nothing of its tile can be checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tilesseg.errors import StoreError, cannot
from tilesseg.formats.zarr.shard_sum import ShardSum, Sums, parse_sums
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.window import Window
from tilesseg.store.mask_levels import in_level

if TYPE_CHECKING:
    from tilesseg.events import TileDone
    from tilesseg.raster.tiling import Tiling


class StoredPlane(NamedTuple):
    """Plane of an array of a scene, as records name it: `mask`, `levels/0`, `scores/2`."""

    array: Sharded
    level: int = 0
    """Number of the level, 0 for the mask and the scores."""
    plane: tuple[int, ...] = ()

    def numbers(self, core: Window) -> list[tuple[int, ...]]:
        """Indices of the shards of a core, row by row."""
        return self.array.numbers(in_level(core, self.level), self.plane)


class Described(NamedTuple):
    """A shard that the record of a tile describes."""

    plane: str
    numbers: tuple[int, ...]
    expected: ShardSum


class Altered(NamedTuple):
    """A shard that is not what the record of its tile describes."""

    tile: str
    path: Path
    problem: str


def described(record: TileDone, core: Window, planes: Mapping[str, StoredPlane]) -> Iterator[Described]:
    """Shards of a tile by its record, as far as their arrays are there.

    Raises:
        StoreError: the record does not fit the arrays.
    """
    for name, text in record.stored.items():
        if name not in planes:
            continue
        try:
            pairs = list(zip(planes[name].numbers(core), parse_sums(text), strict=True))
        except ValueError as error:
            what = f"use the record of tile {record.tile} of {record.scene}"
            raise StoreError(cannot(what, error, "have the tile done again by tilesseg verify")) from None
        yield from (Described(name, numbers, expected) for numbers, expected in pairs)


def sums_of(records: Mapping[str, TileDone], tiling: Tiling, planes: Mapping[str, StoredPlane]) -> dict[str, Sums]:
    """Sums of all described shards, by the array that holds them: `mask`, `levels/0`, `scores`."""
    sums: dict[str, dict[tuple[int, ...], ShardSum]] = {}
    for name, record in records.items():
        for shard in described(record, tiling.named(name).core, planes):
            array = "scores" if planes[shard.plane].plane else shard.plane
            sums.setdefault(array, {})[shard.numbers] = shard.expected
    return dict(sums)


class Extent(NamedTuple):
    """Number of the shards of a scene that are stored, and of their bytes."""

    files: int
    bytes: int


def extent(folder: Path) -> Extent:
    """Extent of all arrays in a scene's folder; files that are still being written do not count."""
    levels = folder / "levels"
    arrays = [folder / "mask.zarr", folder / "scores.zarr", *(levels.iterdir() if levels.exists() else ())]
    sizes = [size for array in arrays for size in _sizes(array / "c")]
    return Extent(len(sizes), sum(sizes))


def _sizes(folder: str | Path) -> Iterator[int]:
    """Sizes of the files below a folder, which may not exist."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _sizes(entry.path)
                elif not entry.name.startswith("."):
                    yield entry.stat().st_size
    except FileNotFoundError:
        return


def altered_shards(
    folder: Path,
    planes: Mapping[str, StoredPlane],
    records: Mapping[str, TileDone],
    tiling: Tiling,
    *,
    by_bytes: bool = False,
) -> Iterator[Altered]:
    """Shards of a scene's folder that are missing, torn or, where bytes are compared, altered."""
    for name, record in records.items():
        lost = [plane for plane in record.stored if plane not in planes]
        if lost:
            yield Altered(name, folder / lost[0], "its array is missing, or is none")
            continue
        try:
            shards = list(described(record, tiling.named(name).core, planes))
        except StoreError as error:
            yield Altered(name, folder / "done" / f"{name}.json", str(error))
            continue
        for shard in shards:
            path = planes[shard.plane].array.file(shard.numbers)
            try:
                (shard.expected.compare if by_bytes else shard.expected.compare_size)(path)
            except (ValueError, OSError) as error:
                yield Altered(name, path, str(error))
