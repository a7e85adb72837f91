"""A tiny training: a network of 4 channels, patches made up from their numbers, a validation that looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tilesseg.errors import TilessegError
from tilesseg.events import Event
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.training.checkpoint import read_checkpoint
from tilesseg.training.distributed import Processes
from tilesseg.training.losses import labels_of, loss_function
from tilesseg.training.optimiser import make_optimiser
from tilesseg.training.scene_validation import Validation, mean_dice
from tilesseg.training.stop_request import StopRequest
from tilesseg.training.train_spec import TrainSpec, parse_train_spec
from tilesseg.training.training_directory import TrainingDirectory
from tilesseg.training.training_loop import Manner, TrainingLoop
from tilesseg.training.training_state import MovingAverage, Trainee

CLASSES = [{"name": "background", "colour": "black"}, {"name": "bright", "colour": "white"}]


def tiny_spec(folder: Path, **changes: Any) -> TrainSpec:
    data = {
        "name": "tiny",
        "licence": "CC0-1.0",
        "classes": CLASSES,
        "data": {"scenes": "a.tif", "labels": "b.tif"},
        "network": {"depth": 1, "width": 4},
        "sampling": {"patch": 16, "batch": 4},
        "optimise": {"steps": 14, "warmup": 0.2, "ema": 0.9},
        "stop": {"every": 4},
        "output": {"dir": str(folder)},
    }
    return parse_train_spec(data | changes, where="test")


@dataclass(frozen=True, slots=True)
class FakeBatch:
    step: int
    values: Tensor
    labels: Tensor


@lru_cache(maxsize=256)
def patches(step: int, indices: range) -> FakeBatch:
    """Noisy squares; a function of the step and the number of each patch alone."""
    values, labels = [], []
    for index in indices:
        rng = np.random.default_rng([step, index])
        truth = np.kron(rng.integers(0, 2, (4, 4)), np.ones((4, 4))).astype(np.uint8)
        values.append(rng.normal(0, 0.5, (1, 16, 16)).astype(np.float32) + truth)
        labels.append(np.where(rng.random(truth.shape) < 0.1, 255, truth).astype(np.uint8))
    return FakeBatch(step, torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(labels)))


@dataclass
class FakeLoader:
    batch: int = 4

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[FakeBatch]:
        for step in range(first, last + 1):
            yield patches(step, range(rank, self.batch, world))


def tiny_trainee(spec: TrainSpec, dropout: float = 0.25) -> Trainee:
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        network = UNet(1, 2, UNetShape(depth=1, width=4))
    network.pool = torch.nn.Sequential(network.pool, torch.nn.Dropout2d(dropout))  # type: ignore[assignment]
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trainee(network, make_optimiser(network, spec.optimise), MovingAverage(network, spec.optimise.ema))


def tiny_loop(
    spec: TrainSpec,
    *,
    tell: Callable[[Event], None] = lambda event: None,
    scores: Callable[[int], float] | None = None,
    processes: Processes | None = None,
    stop: StopRequest | None = None,
) -> TrainingLoop:
    """A loop that goes on from the last checkpoint in the spec's directory.

    Args:
        spec: its spec.
        tell: called with every event.
        scores: score of the validation after a step; None looks at made-up patches.
        processes: processes that train.
        stop: request to stop.
    """
    directory = TrainingDirectory(Path(spec.output.dir))
    directory.path.mkdir(parents=True, exist_ok=True)
    trainee = tiny_trainee(spec)
    stored, _ = read_checkpoint(directory.state)
    if stored:
        trainee.restore(stored)

    def validate(after_tile: Callable[[], None]) -> Validation:
        network = tiny_trainee(spec).network.eval()
        network.load_state_dict(trainee.average.state)
        held = patches(0, range(2))
        matrix = np.zeros((2, 3), np.int64)
        with torch.inference_mode():
            found = labels_of(network(held.values))
        after_tile()
        for truth, label in np.ndindex(2, 2):
            matrix[truth, label] = int(((held.labels == truth) & (found == label)).sum())
        score = mean_dice(matrix, spec.classes) if scores is None else scores(trainee.progress.step)
        return Validation({"held": matrix}, score)

    manner = Manner(loss_function(spec.loss), torch.device("cpu"), spec.optimise.clip)
    return TrainingLoop(
        spec, trainee, FakeLoader(), manner, directory, validate, processes or Processes(), stop or StopRequest(), tell
    )


class Crash(TilessegError):
    """Raised by a test in place of a power cut."""
