"""Inputs of products that all workers make together: a mask's coarsest levels, and the polygons of each tile.

Both lie in the scene's folder while its products are written, and are removed afterwards; the finer levels have been
made by the tiles. Items are names and windows; a worker reads the stored mask and writes a whole shard, or a file
under its final name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.atomic_write import current_fences, fenced
from tilesseg.errors import FormatError, joined_lines
from tilesseg.formats.registry import resolve
from tilesseg.formats.writer import Mask, MaskLevel
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.pyramid import halve_mode, level_shapes
from tilesseg.raster.window import Window
from tilesseg.store.mask_levels import StoredLevels
from tilesseg.store.scene_store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tilesseg.cluster.executors import Executor
    from tilesseg.raster.tiling import Tiling


REGION = 2048
"""Side, in pixels, of the region that a worker halves at a time, about."""


class Part(NamedTuple):
    """A piece of work: a region of a level, or the polygons of a core."""

    name: str
    window: Window
    """Window in the level's own pixels; a core's in the mask's."""
    level: int
    """0 for polygons."""
    store: Store
    """The scene's store, its folder an absolute path, with what is known of the shards that the part needs."""


@dataclass(frozen=True, slots=True)
class FinishWork:
    """Function that executors map over parts; it returns None, or the reason of a failure."""

    fences: tuple[Callable[[], None], ...] = ()
    """Fences of the driver: a part for a run that another execution has taken over is not made."""

    def __call__(self, part: Part) -> str | None:
        """Make one part. Safe to do twice."""
        with ExitStack() as stack:
            for check in self.fences:
                stack.enter_context(fenced(check))
            return self._make(part)

    def _make(self, part: Part) -> str | None:
        store = part.store
        try:
            if part.level:
                _planes(store)[part.level].write(part.window, _halved(store, part))
            else:
                write_tile_polygons = resolve("tilesseg.formats.vector:write_tile_polygons")
                write_tile_polygons(store.read, part.window, polygons_folder(store) / f"{part.name}.npz")
        except Exception as error:
            # ^ of any kind: the product cannot be written, and this is why
            return f"{part.name}: {type(error).__name__}: {joined_lines(error)}"
        return None

    def lost(self, part: Part, reason: str) -> str:
        """Result of a part whose worker died."""
        return f"{part.name}: {reason}"


@contextmanager
def with_levels(mask: Mask, store: Store, executor: Executor) -> Iterator[Mask]:
    """The mask with coarser levels by mode: those of the tiles, and further ones that workers make from those below.

    Raises:
        FormatError: a part of a level could not be made.
    """
    first, further = 1 + len(store.levels), further_levels(store)
    shapes = level_shapes(mask.grid.shape)[first:]
    further.create(shapes, [store.shard] * len(shapes), chunk=store.chunk)
    try:
        for number, shape in enumerate(shapes, start=first):
            regions = list(_regions(shape, store.shard))
            known = [store.within(_times(window, 1 << number)) for window in regions]
            parts = [
                Part(f"level {number}, {window}", window, number, part_store)
                for window, part_store in zip(regions, known, strict=True)
            ]
            _carry_out(store, parts, executor)
        yield replace(mask, levels=tuple(MaskLevel(array.shape, array.read) for array in _planes(store)[1:]))
    finally:
        further.remove()


@contextmanager
def with_tile_polygons(mask: Mask, store: Store, tiling: Tiling, executor: Executor) -> Iterator[Mask]:
    """The mask with the polygons of each tile, made by the workers.

    Raises:
        FormatError: those of a tile could not be made.
    """
    folder = polygons_folder(store)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        parts = [Part(tile.name, tile.core, 0, store.within(tile.core)) for tile in tiling]
        _carry_out(store, parts, executor)
        yield replace(mask, tile_polygons=tuple(folder / f"{part.name}.npz" for part in parts))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def polygons_folder(store: Store) -> Path:
    """Folder of the polygons of a scene's tiles."""
    return store.folder / "pieces"


def further_levels(store: Store) -> StoredLevels:
    """Levels of a scene's mask that are coarser than those of its tiles."""
    return StoredLevels(store.folder / "further-levels")


def _carry_out(store: Store, parts: list[Part], executor: Executor) -> None:
    """Have all parts made, even after a failure, so that no worker still writes when this returns."""
    work = FinishWork(current_fences())
    problems = [problem for problem in executor.map(work, parts, lost=work.lost) if problem]
    if problems:
        how_many = f"{len(problems)} of {len(parts)} parts of a product cannot be made"
        raise FormatError(f"{store.scene}: {how_many}, the first: {problems[0]}; run the job again")


def _halved(store: Store, part: Part) -> NDArray[np.uint8]:
    below = _planes(store)[part.level - 1]
    return halve_mode(below.read(_times(part.window, 2).intersect(Window(0, 0, *below.shape))))


def _times(window: Window, factor: int) -> Window:
    """The same pixels in a level that is `factor` times finer; it may reach beyond that level's end."""
    return Window(factor * window.y, factor * window.x, factor * window.height, factor * window.width)


def _planes(store: Store) -> tuple[Sharded, ...]:
    """The mask and all its levels."""
    return (store.mask, *store.levels, *further_levels(store).arrays())


def _regions(shape: tuple[int, int], shard: int) -> Iterator[Window]:
    """Windows of whole shards that partition a level."""
    whole, side = Window(0, 0, *shape), max(1, REGION // shard) * shard
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield Window(y, x, side, side).intersect(whole)
