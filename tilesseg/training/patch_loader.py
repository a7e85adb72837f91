"""Loader of training patches: threads read ahead, and the order is that of the draws."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilesseg.errors import SourceError, joined_lines
from tilesseg.models.normalisation import Normalisation
from tilesseg.raster.window import Window
from tilesseg.training.augmentation import Labels, Mask, PatchPixels, Values, change_colours, change_stains
from tilesseg.training.patch_sampling import PatchDraw, PatchSampler

AHEAD = 2
"""Number of batches that are read ahead."""


class ReadScene(Protocol):
    """A scene with its labels, as `labelled_scenes.LabelledScene`."""

    @property
    def name(self) -> str: ...

    @property
    def normalisation(self) -> Normalisation: ...

    def read_raw(self, window: Window) -> tuple[NDArray[np.generic], Mask, Labels]:
        """Values before normalisation as a run gives them to its network, valid pixels, and labels.

        Labels are IGNORED where nothing is labelled, and where pixels are invalid or outside the image.
        """


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Patches of a step."""

    step: int
    values: Tensor
    """Normalised values `(n, channel, P, P)`, float32."""
    labels: Tensor
    """Labels `(n, y, x)`, uint8: of the pixels that the network predicts; IGNORED where nothing is known."""
    draws: tuple[PatchDraw, ...]
    """Draw of each patch."""


@dataclass(frozen=True)
class PatchLoader:
    """Loader of a training's patches."""

    scenes: Sequence[ReadScene]
    sampler: PatchSampler
    white: float = 255.0
    """Value of bare glass, for changes of stain."""

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[TrainingBatch]:
        """Batches of steps, in order.

        Args:
            first: number of the first step.
            last: number of the last step.
            rank: number of this process; it gets every `world`-th patch of each step.
            world: number of processes.

        Raises:
            SourceError: a scene or its labels cannot be read; names the scene.
        """
        options = self.sampler.sampling
        indices = range(rank, options.batch, world)
        with ThreadPoolExecutor(options.readers, thread_name_prefix="patches") as pool:
            try:
                for step, patches in _ahead(pool, self._patch, first, last, indices):
                    yield _joined(step, patches)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _patch(self, step: int, index: int) -> tuple[PatchDraw, PatchPixels]:
        draw = self.sampler.draw(step, index)
        return draw, self.cut(draw)

    def cut(self, draw: PatchDraw) -> PatchPixels:
        """Pixels of a patch with all its changes; labels are those of the pixels that the network predicts.

        Raises:
            SourceError: the scene or its labels cannot be read; names the scene.
        """
        scene, augment, geometry = self.scenes[draw.scene], self.sampler.augment, self.sampler.geometry
        try:
            raw, valid, labels = scene.read_raw(draw.window)
        except SourceError as error:
            where = f"scene {scene.name}: "
            raise SourceError(where + joined_lines(error)) from error
        if augment.stain:
            stained = change_stains(raw, augment.stain, white=self.white, seed=draw.seed)
            raw = np.where(valid, stained, raw).astype(np.float32)
        pixels = PatchPixels(scene.normalisation.apply(raw), valid, labels).resampled(geometry.patch)
        changed = change_colours(pixels.turned(draw.turn), augment, seed=draw.seed)
        lost = geometry.shrink // 2
        inner = slice(lost, geometry.patch - lost)
        return PatchPixels(changed.values, changed.valid, changed.labels[inner, inner])


Patch = tuple[PatchDraw, PatchPixels]


def _ahead(
    pool: ThreadPoolExecutor, cut: Callable[[int, int], Patch], first: int, last: int, indices: range
) -> Iterator[tuple[int, list[Patch]]]:
    """Patches of each step, while those of the next steps are read."""
    waiting: deque[tuple[int, list[Future[Patch]]]] = deque()
    for step in range(first, last + 1):
        waiting.append((step, [pool.submit(cut, step, index) for index in indices]))
        if len(waiting) > AHEAD:
            yield _next(waiting)
    while waiting:
        yield _next(waiting)


def _next(waiting: deque[tuple[int, list[Future[Patch]]]]) -> tuple[int, list[Patch]]:
    step, futures = waiting.popleft()
    return step, [future.result() for future in futures]


def _joined(step: int, patches: Sequence[Patch]) -> TrainingBatch:
    values: list[Values] = [pixels.values for _, pixels in patches]
    labels = [pixels.labels for _, pixels in patches]
    draws = tuple(draw for draw, _ in patches)
    return TrainingBatch(step, torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(labels)), draws)
