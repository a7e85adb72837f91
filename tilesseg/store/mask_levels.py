"""Coarser levels of a scene's mask, stored beside the mask: the finer ones made by tiles, the others for products."""

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
    """Sides of the shards of level 1, 2 and so on, for the levels that tiles can write in whole shards of their own.

    Each level uses the mask's shard size while a core's part of the level is a whole number of shards, then half that
    size once, so that a run has few more files. Beyond that, a level is built later, from the level below.
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
    """Window of a core in a level. The first row and column of a core are multiples of the level's reduction."""
    bounds = core.y, core.x, core.y_stop, core.x_stop
    return Window.from_bounds(*(-(-bound >> number) for bound in bounds))


def make_levels(folder: Path, *, shape: tuple[int, int], shard: int, chunk: int, core: tuple[int, int]) -> None:
    """Create the levels of a mask that tiles with such cores make, each full of 254."""
    levels = list(zip(level_shapes(shape)[1:], tile_shards(core, shard), strict=False))
    StoredLevels(folder).create([size for size, _ in levels], [side for _, side in levels], chunk=chunk)


class StoredLevels:
    """A folder of consecutive levels. Picklable; several processes may write different shards of a level."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, shapes: Sequence[tuple[int, int]], shards: Sequence[int], *, chunk: int) -> None:
        """Create levels, `(y, x)` uint8 full of 254, in place of existing ones.

        Args:
            shapes: shapes of the levels, finest first.
            shards: sides of the shards of each level.
            chunk: side of a chunk; a level whose shard is no multiple of it has one chunk in each shard.
        """
        self.remove()
        self.folder.mkdir()
        for number, (shape, shard) in enumerate(zip(shapes, shards, strict=True)):
            side = chunk if shard % chunk == 0 else shard
            Sharded.create(self.folder / str(number), shape, shard=shard, chunk=side, fill=FAILED)

    def arrays(self) -> tuple[Sharded, ...]:
        """Arrays of the levels, finest first; none where the folder does not exist."""
        names = filter(str.isdecimal, os.listdir(self.folder)) if self.folder.exists() else ()
        return tuple(Sharded.open(self.folder / name) for name in sorted(names, key=int))

    def remove(self) -> None:
        """Remove the folder with all levels, where it exists."""
        shutil.rmtree(self.folder, ignore_errors=True)
