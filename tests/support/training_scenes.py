"""A scene on disk that a tiny network learns from, with labels in memory: bright squares on a dark ground."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fakes import write_scene
from numpy.typing import NDArray
from training_fakes import FakeBatch

from tilesseg.formats.open import open_source
from tilesseg.models.normalisation import Normalisation
from tilesseg.models.spec import Decision, ModelSpec, Normalise, PatchSizes, UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, patch_rule, stride_multiple
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.training.scene_validation import PartOfScene
from tilesseg.training.train_network import Materials
from tilesseg.training.train_spec import TrainSpec

SIDE = 96


@dataclass(frozen=True)
class FakeLabels:
    values: NDArray[np.uint8]

    @property
    def grid(self) -> Grid:
        return Grid(*self.values.shape)

    def read(self, window: Window) -> NDArray[np.uint8]:
        return self.values[window.slices()]


@dataclass(frozen=True)
class FakeScene:
    name: str
    source: Any
    labels: FakeLabels
    normalisation: Normalisation


def squares(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Values `(1, y, x)` and labels `(y, x)`."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (SIDE // 8, SIDE // 8)), np.ones((8, 8))).astype(np.uint8)
    values = np.clip(rng.normal(80, 30, labels.shape) + 70 * labels, 1, 255).astype(np.uint8)
    values[:10, :10] = 0
    labels[40, :] = 255
    return values[None], labels


def model_spec(spec: TrainSpec) -> ModelSpec:
    shape = UNetShape(depth=1, width=4)
    offset, multiple = patch_rule(shape)
    one = spec.decision == "threshold"
    return ModelSpec(
        name=spec.name,
        licence=spec.licence,
        engine="unet",
        unet=shape,
        bands=("grey",),
        input_range=(0, 255),
        normalise=Normalise(kind="mean_std", mean=(115.0,), std=(45.0,)),
        patch=PatchSizes(offset=offset, multiple=multiple, stride_multiple=stride_multiple(shape)),
        margin=margin_of(shape),
        activation="sigmoid" if one else "softmax",
        decision=Decision(kind="threshold", threshold=0.5) if one else Decision(),
        classes=spec.classes,
    )


@dataclass
class SceneLoader:
    """Patches of a scene in memory; a function of the step and their number."""

    values: NDArray[np.float32]
    labels: NDArray[np.uint8]
    batch: int = 4
    side: int = 32

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[FakeBatch]:
        for step in range(first, last + 1):
            drawn = [self._patch(step, index) for index in range(rank, self.batch, world)]
            values, labels = (np.stack(parts) for parts in zip(*drawn, strict=True))
            yield FakeBatch(step, torch.from_numpy(values), torch.from_numpy(labels))

    def _patch(self, step: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        y, x = np.random.default_rng([step, index]).integers(0, SIDE - self.side, 2)
        at = (slice(y, y + self.side), slice(x, x + self.side))
        return self.values[:, *at], self.labels[at]


def materials(spec: TrainSpec, folder: Path) -> Materials:
    """Materials of three scenes in a folder: one trains, one validates, of one the right half tests."""
    model = model_spec(spec)
    rule, scenes = model.normalisation(), []
    for number in range(3):
        values, labels = squares(number)
        path = write_scene(folder / f"scene-{number}.tif", values, nodata=0)
        scenes.append(FakeScene(f"scene-{number}", open_source(str(path)), FakeLabels(labels), rule))
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        network = UNet(1, model.score_channels, UNetShape(depth=1, width=4))
    values, labels = squares(0)
    loader = SceneLoader(rule.apply(values), np.where(values[0] == 0, 255, labels).astype(np.uint8))
    whole, right = Window(0, 0, SIDE, SIDE), Window(0, SIDE // 2, SIDE, SIDE // 2)
    return Materials(
        spec=model,
        network=network,
        loader=loader,
        validation=[PartOfScene(scenes[1], (whole,))],
        test=[PartOfScene(scenes[2], (right,))],
        identities={scene.name: {"image": {"made": "up"}} for scene in scenes},
        counts=[int((labels == label).sum()) for label in (0, 1)],
    )
