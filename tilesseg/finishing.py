"""What products need that is best made by all workers: a mask's coarser levels, and the polygons of each tile.

Both lie in the scene's folder while its products are written, and are removed afterwards. Items go out as names and
windows; a worker reads the stored mask and writes a whole shard, or a file under its final name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import FormatError
from tilesseg.formats import Level, Mask, resolve
from tilesseg.pyramid import halve_mode, level_shapes
from tilesseg.store import Store
from tilesseg.store_levels import StoredLevels
from tilesseg.window import Window

REGION = 2048
"""Side, in pixels, of what a worker halves at a time, about."""

if TYPE_CHECKING:
    from tilesseg.executors import Executor
    from tilesseg.tiling import Tiling


class Part(NamedTuple):
    """A piece of work: a region of a level, or the polygons of a core."""

    name: str
    window: Window
    """In the level's own pixels; of a core, in the mask's."""
    level: int = 0
    """0 for polygons."""


@dataclass(frozen=True, slots=True)
class FinishWork:
    """The function that executors map over parts; it answers with None, or why it failed."""

    folder: str
    """The scene's folder."""

    def __call__(self, part: Part) -> str | None:
        """Make one part. Safe to do twice."""
        store = Store(Path(self.folder))
        try:
            if part.level:
                levels_of(store).write(part.level, part.window, _halved(store, part))
            else:
                write_piece = resolve("tilesseg.formats.vector:write_piece")
                write_piece(store.read, part.window, pieces_folder(store) / f"{part.name}.npz")
        except Exception as error:
            # ^ of any kind: the product cannot be written, and this is why
            return f"{part.name}: {type(error).__name__}: {' '.join(str(error).split())}"
        return None

    def lost(self, part: Part, reason: str) -> str:
        """What stands for a part whose worker died."""
        return f"{part.name}: {reason}"


@contextmanager
def with_levels(mask: Mask, store: Store, executor: Executor) -> Iterator[Mask]:
    """The mask with coarser levels by mode, each made by the workers from the one below.

    Raises:
        FormatError: a part of a level could not be made.
    """
    shapes, stored = level_shapes(mask.grid.shape)[1:], levels_of(store)
    stored.create(shapes, shard=store.shard, chunk=store.chunk)
    try:
        for number, shape in enumerate(shapes, start=1):
            parts = [Part(f"level {number}, {window}", window, number) for window in _regions(shape, store.shard)]
            _carry_out(store, parts, executor)
        levels = tuple(Level(shape, partial(stored.read, number)) for number, shape in enumerate(shapes, start=1))
        yield replace(mask, levels=levels)
    finally:
        stored.remove()


@contextmanager
def with_pieces(mask: Mask, store: Store, tiling: Tiling, executor: Executor) -> Iterator[Mask]:
    """The mask with the polygons of each tile, made by the workers.

    Raises:
        FormatError: those of a tile could not be made.
    """
    folder = pieces_folder(store)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        parts = [Part(tile.name, tile.core) for tile in tiling]
        _carry_out(store, parts, executor)
        yield replace(mask, pieces=tuple(folder / f"{part.name}.npz" for part in parts))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pieces_folder(store: Store) -> Path:
    """Where the polygons of a scene's tiles lie."""
    return store.folder / "pieces"


def levels_of(store: Store) -> StoredLevels:
    """Where the coarser levels of a scene's mask lie."""
    return StoredLevels(store.folder / "levels")


def _carry_out(store: Store, parts: list[Part], executor: Executor) -> None:
    """Have all parts made; also after one has failed, so that nothing is written any more when this returns."""
    work = FinishWork(os.path.abspath(store.folder))
    problems = [problem for problem in executor.map(work, parts, lost=work.lost) if problem]
    if problems:
        how_many = f"{len(problems)} of {len(parts)} parts of a product cannot be made"
        raise FormatError(f"{store.scene}: {how_many}, the first: {problems[0]}; run the job again")


def _halved(store: Store, part: Part) -> NDArray[np.uint8]:
    levels, below = levels_of(store), part.level - 1
    height, width = levels.shape(below) if below else store.shape
    y, x, tall, wide = part.window.y, part.window.x, part.window.height, part.window.width
    window = Window(2 * y, 2 * x, 2 * tall, 2 * wide).intersect(Window(0, 0, height, width))
    return halve_mode(levels.read(below, window) if below else store.read(window))


def _regions(shape: tuple[int, int], shard: int) -> Iterator[Window]:
    """Windows of whole shards that partition a level."""
    whole, side = Window(0, 0, *shape), max(1, REGION // shard) * shard
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield Window(y, x, side, side).intersect(whole)
