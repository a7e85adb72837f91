"""The loop of a training: steps, validations, checkpoints, and the end.

Step s takes the batch of step s, which is a function of the seed and s, and random numbers of a generator that the seed
and s set. So a training that was interrupted anywhere and goes on is the uninterrupted one, bit for bit on a processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tilesseg.errors import JobError
from tilesseg.events import Event, StepDone, ValidationDone
from tilesseg.raster.labels import IGNORED
from tilesseg.raster.metrics import dice
from tilesseg.training.checkpoint import write_checkpoint
from tilesseg.training.distributed import Processes
from tilesseg.training.losses import LossFunction, labels_of
from tilesseg.training.optimiser import Schedule, set_rate
from tilesseg.training.scene_validation import Validation, mean_dice
from tilesseg.training.stop_request import StopRequest
from tilesseg.training.train_spec import TrainSpec
from tilesseg.training.training_log import LOG, STEP_COLUMNS, VALIDATION, TrainingTable
from tilesseg.training.worst_patches import keep_worst, patch_losses

if TYPE_CHECKING:
    from tilesseg.training.training_directory import TrainingDirectory
    from tilesseg.training.training_state import Trainee


class Batch(Protocol):
    """Patches of a step, as `patch_loader.TrainingBatch`."""

    @property
    def values(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...


class Loader(Protocol):
    """Batches in order, as `patch_loader.PatchLoader`."""

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Manner:
    """Manner of a step: all that stays the same from step to step."""

    loss: LossFunction
    device: torch.device
    clip: float | None = None
    """Largest norm of the gradient."""
    bf16: bool = False
    """Whether convolutions compute in bfloat16."""


def train_step(
    network: nn.Module, batch: Batch, optimiser: torch.optim.Optimizer, *, manner: Manner
) -> tuple[Tensor, Tensor]:
    """Learn from a batch.

    Args:
        network: network in training mode, on the device.
        batch: values `(n, channel, P, P)` float32, normalised, and labels `(n, y, x)`.
        optimiser: optimiser of the network, its learning rate set.
        manner: loss, device and precision.

    Returns:
        Loss, a scalar, and scores `(n, channel, y, x)` before activation; both without gradients.
    """
    values = batch.values.to(manner.device, memory_format=torch.channels_last, non_blocking=True)
    labels = batch.labels.to(manner.device, non_blocking=True)
    with torch.autocast(manner.device.type, torch.bfloat16, enabled=manner.bf16):
        scores = network(values)
    loss = manner.loss(scores, labels)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if manner.clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), manner.clip)
    optimiser.step()
    return loss.detach(), scores.detach()


@dataclass
class TrainingLoop:
    """One execution of a training, from its last checkpoint to its last step."""

    spec: TrainSpec
    trainee: Trainee
    loader: Loader
    manner: Manner
    directory: TrainingDirectory
    validate: Callable[[Callable[[], None]], Validation] | None
    """Validates the average; calls its argument after each tile. None where no part validates."""
    processes: Processes = field(default_factory=Processes)
    stop: StopRequest = field(default_factory=StopRequest)
    tell: Callable[[Event], None] = lambda event: None
    draw: Callable[[], None] = lambda: None
    """Draws the pictures of the training so far, after each validation."""

    def __post_init__(self) -> None:
        self._schedule = Schedule.of(self.spec.optimise)
        self._network = self.processes.wrap(self.trainee.network, self.manner.device)
        path, names = self.directory.path, [f"dice_{each.name}" for each in self.spec.classes]
        self._steps = TrainingTable(path / LOG, STEP_COLUMNS)
        columns = ("step", "score", "patch_score", "loss", "threshold", *names, "seconds")
        self._validations = TrainingTable(path / VALIDATION, columns)

    @property
    def last(self) -> int:
        """Number of the last step, as known by now."""
        return self._schedule.last(self.trainee.progress.fall)

    def carry_out(self) -> None:
        """Train to the end.

        Raises:
            KeyboardInterrupt: the training was asked to stop; its state is written.
            JobError: the loss is no finite number.
            StoreError: the directory cannot be written.
        """
        self._begin()
        progress, who = self.trainee.progress, self.processes
        batches = self.loader.batches(progress.step + 1, self._schedule.steps, rank=who.rank, world=who.world)
        with closing(batches):  # type: ignore[type-var]
            while True:
                if self._pause_is_due():
                    self._pause()
                if progress.step >= self.last:
                    return
                self._step(next(batches))

    def _begin(self) -> None:
        progress = self.trainee.progress
        self._clock = time.monotonic() - progress.seconds
        first = int(self.processes.from_first(torch.tensor([progress.step], device=self.manner.device))[0])
        if first != progress.step:
            raise JobError(
                f"process {self.processes.rank} goes on from step {progress.step}, process 0 from {first}; put the "
                "directory of the training where all processes see it"
            )
        if self.processes.first:
            self._steps.go_on_from(progress.step)
            if self.validate:
                self._validations.go_on_from(progress.validated)
        self._network.train()

    def _step(self, batch: Batch) -> None:
        trainee, progress = self.trainee, self.trainee.progress
        step = progress.step + 1
        rate = self._schedule.rate_at(step, progress.fall)
        set_rate(trainee.optimiser, rate)
        torch.manual_seed(seed_of(self.spec.seed, step, self.processes.rank))
        loss, scores = train_step(self._network, batch, trainee.optimiser, manner=self.manner)
        trainee.average.update(trainee.network, step)
        progress.step, progress.seconds = step, time.monotonic() - self._clock
        mean, stopped = self._agree(float(loss))
        self._count(scores, batch.labels, mean)
        if self.processes.first:
            row = {"step": step, "loss": mean, "rate": rate, "seconds": round(progress.seconds, 2)}
            self._steps.append(row)
            self.tell(StepDone(step, self.last, mean, rate, progress.seconds))
        if stopped:
            self._save()
            raise KeyboardInterrupt

    def _agree(self, loss: float) -> tuple[float, bool]:
        """Mean loss of all processes, and whether one was asked to stop; the fall begins where minutes are over."""
        over = self._minutes_are_over()
        mine = torch.tensor([loss, self.stop.requested, over], dtype=torch.float64)
        total = self.processes.total(mine.to(self.manner.device)).tolist()
        mean = total[0] / self.processes.world
        if not np.isfinite(mean):
            raise JobError(
                f"the loss of step {self.trainee.progress.step} is {mean}, no finite number; reduce optimise.rate "
                f"({self._schedule.rate:g}), or look at the scenes' values"
            )
        if total[2]:
            self._begin_fall()
        return mean, total[1] > 0

    def _minutes_are_over(self) -> bool:
        """Whether the rest of the minutes is just enough for the fall."""
        progress, minutes = self.trainee.progress, self.spec.optimise.minutes
        if minutes is None or progress.fall is not None:
            return False
        each = progress.seconds / progress.step
        return progress.seconds + each * self._schedule.fall(progress.step) >= 60 * minutes

    def _begin_fall(self) -> None:
        progress = self.trainee.progress
        if progress.fall is None and progress.step < self._schedule.planned_fall:
            progress.fall = progress.step

    def _count(self, scores: Tensor, labels: Tensor, loss: float) -> None:
        """Take a step into the figures of the next validation."""
        progress, classes = self.trainee.progress, len(self.spec.classes)
        labels = labels.to(scores.device)
        known = labels != IGNORED
        cells = labels[known].long() * (classes + 1) + labels_of(scores)[known]
        counts = torch.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)
        before = torch.tensor(progress.patch_counts or [[0] * (classes + 1)] * classes)
        progress.patch_counts = (before + counts.cpu()).tolist()
        progress.losses += loss
        progress.worst = keep_worst(progress.worst, patch_losses(scores, labels), progress.step, self.processes)

    def _pause_is_due(self) -> bool:
        """Whether to validate and to write a checkpoint before the next step."""
        step, before = self.trainee.progress.step, self.trainee.progress.validated
        return step > before and (step % self.spec.stop.every == 0 or step >= self.last)

    def _pause(self) -> None:
        """Validate, and write a checkpoint; rank 0 does, and the others learn what follows."""
        progress, stopped = self.trainee.progress, False
        if self.processes.first:
            try:
                self._validate()
                self.draw()
                progress.worst = []
            except KeyboardInterrupt:
                stopped = True
            self._save()
        told = torch.tensor([-1 if progress.fall is None else progress.fall, int(stopped)], device=self.manner.device)
        fall, over = self.processes.from_first(told).tolist()
        progress.fall, progress.validated = None if fall < 0 else fall, progress.validated if over else progress.step
        if over:
            raise KeyboardInterrupt

    def _validate(self) -> None:
        """Validate the average, and keep it if it is the best.

        Raises:
            KeyboardInterrupt: the training was asked to stop; nothing is changed.
        """
        progress, trainee = self.trainee.progress, self.trainee
        if self.validate is not None:
            result = self.validate(self.stop.refuse_to_go_on)
            best = progress.best_step is None or result.score > progress.best_score
            self._tell_validation(result, best=best)
            if best:
                progress.best_step, progress.best_score, progress.fruitless = progress.step, result.score, 0
                trainee.keep_best()
            else:
                progress.fruitless += 1
            if best or self.spec.stop.keep == "last":
                progress.threshold = result.threshold
            if progress.fruitless >= self.spec.stop.patience:
                self._begin_fall()
        progress.validated, progress.losses, progress.patch_counts = progress.step, 0.0, []

    def _tell_validation(self, result: Validation, *, best: bool) -> None:
        progress, classes = self.trainee.progress, self.spec.classes
        patches = np.array(progress.patch_counts, np.int64)
        patch_score = mean_dice(patches, classes)
        values = (None if np.isnan(value) else float(value) for value in dice(result.matrix))
        progress.seconds = time.monotonic() - self._clock
        self._validations.append(
            {
                "step": progress.step,
                "score": result.score,
                "patch_score": patch_score,
                "loss": progress.losses / (progress.step - progress.validated),
                "threshold": result.threshold,
                **dict(zip((f"dice_{each.name}" for each in classes), values, strict=True)),
                "seconds": round(progress.seconds, 2),
            }
        )
        self.tell(ValidationDone(progress.step, result.score, patch_score, best, progress.seconds))

    def _save(self) -> None:
        if self.processes.first:
            progress = self.trainee.progress
            progress.seconds = time.monotonic() - self._clock
            write_checkpoint(
                self.directory.state, progress.step, tensors=self.trainee.tensors(), facts=self.trainee.facts()
            )


def seed_of(seed: int, step: int, rank: int) -> int:
    """Seed of torch's random numbers (dropout) in a step of a process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]) >> 1
