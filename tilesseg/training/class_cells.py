"""Class index of a scene: how many pixels of each class lie in each square cell, from one pass over its labels.

Patches are drawn from it: a class at random, a cell by its pixels of the class, then a pixel. Its memory is 1/4,096 of
the labels' for each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.training.split import Part, PartMap

SIDE = 64
"""Side of a cell in pixels: its 4,096 pixels fit into uint16."""
STRIP = 1024
"""Side in pixels of the windows of the pass: whole cells, and whole cells of rasterised vectors."""


class KnownLabels(Protocol):
    """Labels of a scene without those of pixels that have no data."""

    def known(self, window: Window) -> NDArray[np.uint8]:
        """Classes `(y, x)` of a window in the scene, `IGNORED` where nothing is labelled or the image has no data."""


@dataclass(frozen=True)
class ClassCells:
    """Number of labelled pixels of each class in each cell of a scene."""

    counts: NDArray[np.uint16]
    """Numbers `(class, row, column)`."""

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Number of labelled pixels of each class in the scene."""
        return np.asarray(self.counts.sum(axis=(1, 2), dtype=np.int64))

    @cached_property
    def _cumulated(self) -> list[NDArray[np.int64]]:
        """For each class, and last for all classes together, pixels up to and with each cell in order of rows."""
        every = [*self.counts, self.counts.sum(axis=0, dtype=np.int64)]
        return [np.cumsum(one.ravel(), dtype=np.int64) for one in every]

    def cell(self, rank: int, label: int | None = None) -> tuple[Window, int]:
        """Cell that holds a labelled pixel, counted in order of cells, and the pixel's rank in the cell.

        Args:
            rank: number of the pixel from 0, of its class or of all.
            label: its class; None counts all classes.
        """
        sums = self._cumulated[-1 if label is None else label]
        index = int(np.searchsorted(sums, rank, side="right"))
        row, column = divmod(index, self.counts.shape[2])
        return Window(row * SIDE, column * SIDE, SIDE, SIDE), rank - (int(sums[index - 1]) if index else 0)


def count_cells(
    labels: KnownLabels, shape: tuple[int, int], classes: int, *, parts: PartMap, threads: int = 1
) -> dict[Part, ClassCells]:
    """Count the labelled pixels of each part of a scene, in one pass over it.

    Args:
        labels: labels of the scene.
        shape: shape of the scene in pixels.
        classes: number of classes.
        parts: part of each pixel.
        threads: number of windows that are read at the same time.

    Returns:
        An index for each part that the scene holds.

    Raises:
        SourceError: labels or image cannot be read, or a value has no class.
    """
    from tilesseg.training.split import PARTS

    held = [part for part in PARTS if parts.holds(part)]
    rows, columns = (-(-size // SIDE) for size in shape)
    counts = {part: np.zeros((classes, rows, columns), np.uint16) for part in held}

    def count(window: Window) -> None:
        known = labels.known(window)
        place = slice(window.y // SIDE, -(-window.y_stop // SIDE)), slice(window.x // SIDE, -(-window.x_stop // SIDE))
        for part in held:
            own = parts.mask(part, window)
            if own.any():
                counts[part][:, *place] = _counted(np.where(own, known, np.uint8(IGNORED)), classes)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(count, list(_strips(shape))):
            pass
    return {part: ClassCells(cells) for part, cells in counts.items()}


def shares(cells: Sequence[ClassCells]) -> NDArray[np.float64]:
    """Share of each class in the labelled pixels of several scenes; 0 without any."""
    total = np.sum([one.pixels for one in cells], axis=0)
    result: NDArray[np.float64] = total / max(1, int(total.sum()))
    return result


def _strips(shape: tuple[int, int]) -> Iterator[Window]:
    whole = Window(0, 0, *shape)
    for y in range(0, shape[0], STRIP):
        for x in range(0, shape[1], STRIP):
            yield Window(y, x, STRIP, STRIP).intersect(whole)


def _counted(labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint16]:
    """Numbers `(class, row, column)` of cells of a window that begins with a cell."""
    rows, columns = (-(-size // SIDE) for size in labels.shape)
    cells = np.arange(labels.shape[0])[:, None] // SIDE * columns + np.arange(labels.shape[1]) // SIDE
    known = labels != IGNORED
    numbers = labels[known].astype(np.int64) * (rows * columns) + cells[known]
    return np.bincount(numbers, minlength=classes * rows * columns).reshape(classes, rows, columns).astype(np.uint16)
