"""Sampling of training patches: patch i of step s is a function of the seed, s and i, and of nothing else.

So an interrupted training goes on with the very patches that it would have had, and any number of readers or processes
draws the same ones. A patch is drawn round a labelled pixel: its window of labels holds the pixel and lies in the
image, and the patch overhangs where the network sees more than it predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.labels import IGNORED
from tilesseg.raster.window import Window
from tilesseg.training.augmentation import TURNS
from tilesseg.training.class_cells import ClassCells, KnownLabels
from tilesseg.training.split import PartMap
from tilesseg.training.train_spec import Augment, Sampling


@dataclass(frozen=True, slots=True)
class PatchDraw:
    """A patch that was drawn: where it lies, and what is changed."""

    scene: int
    """Number of its scene."""
    window: Window
    """Square that is read; it may leave the image. Its side is another than the patch's where the size is changed."""
    turn: int
    """Turn from 0 (as it is) to 7."""
    seed: int
    """Number that decides colours and noise."""


@dataclass(frozen=True, slots=True)
class SampledScene:
    """A scene with pixels that train."""

    number: int
    """Number of the scene, as draws give it."""
    labels: KnownLabels
    shape: tuple[int, int]
    """Shape of the scene in pixels."""
    parts: PartMap
    cells: ClassCells
    """Pixels of each class that train, by cell."""


class Geometry(NamedTuple):
    """Sides of a patch."""

    patch: int
    """Side of what the network sees."""
    shrink: int
    """Number of pixels by which its prediction is smaller."""

    def label_side(self, side: int) -> int:
        """Side of the window of labels of a patch that is read with another side."""
        return max(1, side * (self.patch - self.shrink) // self.patch)


def largest_side(patch: int, scale: float) -> int:
    """Side of the largest window that a patch reads, in pixels."""
    return round(patch * (1 + scale))


@dataclass(frozen=True)
class PatchSampler:
    """Sampler of a training."""

    scenes: Sequence[SampledScene]
    geometry: Geometry
    sampling: Sampling
    augment: Augment
    seed: int

    def draw(self, step: int, index: int) -> PatchDraw:
        """Draw a patch.

        Args:
            step: number of the step.
            index: number of the patch in the step.

        Raises:
            SourceError: labels or image cannot be read.
        """
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, step, index])))
        rare = rng.random() < self.sampling.foreground and len(self._rare) > 0
        label = self._rare[int(rng.integers(len(self._rare)))] if rare else None
        scene, rank = self._scene_of(int(rng.integers(self._total(label))), label)
        y, x = _pixel(scene, rank, label)
        side = round(self.geometry.patch * (1 + self.augment.scale) ** rng.uniform(-1, 1))
        window = self._window_round(rng, y, x, side, scene.shape)
        turn = int(rng.integers(TURNS)) if self.augment.turns else 0
        return PatchDraw(scene.number, window, turn, int(rng.integers(2**32)))

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """Pixels that train, by class."""
        total: NDArray[np.int64] = np.sum([scene.cells.pixels for scene in self.scenes], axis=0, dtype=np.int64)
        return total

    @cached_property
    def _rare(self) -> list[int]:
        """Classes that train, but for the most frequent one."""
        found = np.flatnonzero(self.pixels)
        return [int(label) for label in found if label != self.pixels.argmax()]

    @cached_property
    def _sums(self) -> list[NDArray[np.int64]]:
        """For each class, and last for all together, pixels up to and with each scene."""
        by_scene = np.array([scene.cells.pixels for scene in self.scenes], np.int64).reshape(len(self.scenes), -1)
        return [np.cumsum(column) for column in (*by_scene.T, by_scene.sum(axis=1))]

    def _total(self, label: int | None) -> int:
        return int(self._sums[-1 if label is None else label][-1])

    def _scene_of(self, rank: int, label: int | None) -> tuple[SampledScene, int]:
        """Scene that holds a pixel of a class, or of any, and the pixel's rank in the scene."""
        sums = self._sums[-1 if label is None else label]
        number = int(np.searchsorted(sums, rank, side="right"))
        return self.scenes[number], rank - (int(sums[number - 1]) if number else 0)

    def _window_round(self, rng: np.random.Generator, y: int, x: int, side: int, shape: tuple[int, int]) -> Window:
        """Window of a patch whose labels hold a pixel and lie in the image, where the image is large enough."""
        inner = self.geometry.label_side(side)
        lead = (side - inner) // 2
        top, left = (_start(rng, at, inner, size) - lead for at, size in zip((y, x), shape, strict=True))
        return Window(top, left, side, side)


def _start(rng: np.random.Generator, at: int, side: int, size: int) -> int:
    """First pixel of a span of `side` that holds the pixel `at` and lies in 0 … `size`, or covers it."""
    least, most = max(at - side + 1, min(0, size - side)), min(at, max(0, size - side))
    return int(rng.integers(least, most, endpoint=True))


def _pixel(scene: SampledScene, rank: int, label: int | None) -> tuple[int, int]:
    """Position `(y, x)` of a pixel that trains, by its rank among those of its class, or of all."""
    cell, rank = scene.cells.cell(rank, label)
    cell = cell.intersect(Window(0, 0, *scene.shape))
    known = scene.labels.known(cell)
    trains = scene.parts.mask("train", cell) & (known != IGNORED if label is None else known == label)
    row, column = divmod(int(np.flatnonzero(trains)[rank]), cell.width)
    return cell.y + row, cell.x + column
