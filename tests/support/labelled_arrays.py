"""Labelled scenes in memory, and what samples and loads patches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fakes import ArraySource
from numpy.typing import NDArray

from tilesseg.models.normalisation import Normalisation
from tilesseg.raster.window import Window
from tilesseg.training.class_cells import count_cells
from tilesseg.training.patch_sampling import Geometry, PatchSampler, SampledScene
from tilesseg.training.split import PartMap
from tilesseg.training.train_spec import Augment, Sampling

STILL = {"turns": False, "scale": 0, "brightness": 0, "gamma": 0, "noise": 0, "stain": 0}
"""Augmentation that changes nothing."""


@dataclass(frozen=True)
class ArrayScene:
    """A scene in memory whose labels are in memory, too."""

    name: str
    values: NDArray[Any]
    truth: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None = None
    normalisation: Normalisation = field(default_factory=lambda: Normalisation((0.0,), (1.0,)))
    fill: float = 0.0

    @property
    def source(self) -> ArraySource:
        return ArraySource.of(self.values, self.valid)

    def known(self, window: Window) -> NDArray[np.uint8]:
        labels = self.truth[window.slices()]
        return labels if self.valid is None else np.where(self.valid[window.slices()], labels, np.uint8(255))

    def read_raw(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
        values, valid = self.source.read(window)
        labels = np.full(window.shape, 255, np.uint8)
        inside = window.intersect(Window(0, 0, *self.truth.shape))
        labels[inside.slices(window)] = self.known(inside)
        return np.where(valid, values, self.fill), valid.copy(), labels


def array_scene(name: str, truth: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> ArrayScene:
    """Scene whose values are the numbers of its pixels."""
    return ArrayScene(name, np.arange(truth.size, dtype=np.float32).reshape(1, *truth.shape), truth, valid)


def sampler_of(
    scenes: Sequence[ArrayScene],
    *,
    classes: int,
    parts: Sequence[PartMap] | None = None,
    geometry: Geometry | None = None,
    sampling: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    seed: int = 0,
) -> PatchSampler:
    maps = parts or [PartMap.whole("train", scene.truth.shape) for scene in scenes]
    sampled = [
        SampledScene(
            number,
            scene,
            scene.truth.shape,
            places,
            count_cells(scene, scene.truth.shape, classes, parts=places)["train"],
        )
        for number, (scene, places) in enumerate(zip(scenes, maps, strict=True))
    ]
    chosen = Sampling.model_validate(sampling or {}), Augment.model_validate({**STILL, **(augment or {})})
    return PatchSampler(sampled, geometry or Geometry(16, 0), *chosen, seed)
