"""Coarser levels of a scene's mask, stored beside it: some are made by its tiles, the others for its products."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.labels import FAILED
from tilesseg.raster.pyramid import level_shapes
from tilesseg.raster.window import Window


def tile_shards(core: tuple[int, int], shard: int) -> tuple[int, ...]:
    """Sides of the shards of level 1, 2 and so on, as far as a tile can write whole ones of its own.

    A level's shard is as large as the mask's where cores are so many that it fits, and once half of that, so that a
    run has few more files: the share of a core in the level is whole shards, and a shard that is halved again is even.
    """
    height, width = core
    sides: list[int] = []
    side = shard
    while side % 2 == height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        if height % side or width % side:
            side //= 2
        if 2 * side < shard or height % side or width % side:
            break
        sides.append(side)
    return tuple(sides)


def in_level(core: Window, number: int) -> Window:
    """A core's share of a level; its first row and column are multiples of the level's cells."""
    bounds = core.y, core.x, core.y_stop, core.x_stop
    return Window.from_bounds(*(-(-bound >> number) for bound in bounds))


def make_levels(folder: Path, *, shape: tuple[int, int], shard: int, chunk: int, core: tuple[int, int]) -> None:
    """Empty levels of a mask, as many as tiles with such cores make."""
    levels = list(zip(level_shapes(shape)[1:], tile_shards(core, shard), strict=False))
    StoredLevels(folder).create([size for size, _ in levels], [side for _, side in levels], chunk=chunk)


class StoredLevels:
    """A folder of levels that follow each other. Picklable; each may be written by several processes, in shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, shapes: Sequence[tuple[int, int]], shards: Sequence[int], *, chunk: int) -> None:
        """Empty levels, `(y, x)` uint8 full of 254, in place of any that lie there.

        Args:
            shapes: of the levels, finest first.
            shards: sides of a shard of each.
            chunk: side of a chunk; or a shard's, where it is no multiple of it.
        """
        self.remove()
        self.folder.mkdir()
        for number, (shape, shard) in enumerate(zip(shapes, shards, strict=True)):
            side = chunk if shard % chunk == 0 else shard
            Sharded.create(self.folder / str(number), shape, shard=shard, chunk=side, fill=FAILED)

    def arrays(self) -> tuple[Sharded, ...]:
        """The levels, finest first; none where there is no folder."""
        names = filter(str.isdecimal, os.listdir(self.folder)) if self.folder.exists() else ()
        return tuple(Sharded.open(self.folder / name) for name in sorted(names, key=int))

    def remove(self) -> None:
        """Remove all levels, where there are any."""
        shutil.rmtree(self.folder, ignore_errors=True)
