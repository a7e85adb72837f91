"""A training from its data to its bundle: begun or gone on with, trained to the end, tested once, written."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tilesseg.errors import StoreError
from tilesseg.events import Event, Listener, Note, TrainingFinished, TrainingStarted, tell
from tilesseg.models.engines.torch_engine import pick_device
from tilesseg.models.spec import ModelSpec
from tilesseg.process import available_cores
from tilesseg.store.locks import held, holder
from tilesseg.training.checkpoint import read_checkpoint
from tilesseg.training.distributed import Processes, device_of_process, joined_processes
from tilesseg.training.losses import class_weights, loss_function
from tilesseg.training.model_card import ScenePart, TrainingFacts, split_sentence
from tilesseg.training.optimiser import make_optimiser
from tilesseg.training.scene_validation import Device, PartOfScene, Validation, decided, validate
from tilesseg.training.split import PartMap
from tilesseg.training.stop_request import StopRequest, stop_on_signals
from tilesseg.training.train_spec import TrainSpec
from tilesseg.training.trained_bundle import write_trained
from tilesseg.training.training_directory import TrainingDirectory
from tilesseg.training.training_log import read_curves
from tilesseg.training.training_loop import Loader, Manner, TrainingLoop
from tilesseg.training.training_pictures import TrainingPictures
from tilesseg.training.training_state import MovingAverage, Progress, Trainee


@dataclass(frozen=True, slots=True)
class Materials:
    """All that a training takes from its data."""

    spec: ModelSpec
    """Contract of the network to be; no weights yet."""
    network: nn.Module
    """Network with its initial parameters, on the CPU."""
    loader: Loader
    validation: Sequence[PartOfScene]
    """Scenes that validate; none trains without validation."""
    test: Sequence[PartOfScene]
    """Scenes that are scored once, at the end."""
    identities: dict[str, Any]
    """State of the files of each scene and of its labels, by name."""
    counts: Sequence[int]
    """Number of labelled pixels of each class in the part that trains."""
    scenes: tuple[ScenePart, ...] = ()
    """Scenes with their sizes and parts, for the card of the network."""
    split: Mapping[str, PartMap] = field(default_factory=dict)
    """Part of each pixel, by the scene's name, for `split.csv`."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of a training."""

    directory: Path
    bundle: Path
    """Folder of the trained network."""
    steps: int
    """Number of steps that were done."""
    seconds: float
    """Seconds of all executions."""
    best_step: int | None
    """Step of the best validation; None without one."""
    score: float | None
    """Mean Dice of the best validation."""
    test: float | None
    """Mean Dice of the part that tests; None without one."""
    before: bool = False
    """Whether an earlier execution had finished the training."""

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {**asdict(self), "directory": str(self.directory), "bundle": str(self.bundle)}

    @property
    def text(self) -> str:
        """The result for people."""
        best = "" if self.score is None else f", validation {self.score:.4f} at step {self.best_step:,}"
        tested = "" if self.test is None else f", test {self.test:.4f}"
        finished = "was finished before" if self.before else "is finished"
        return f"the training {finished}: {self.steps:,} steps{best}{tested}\n{self.bundle}"


def finished_training(spec: TrainSpec) -> TrainingResult | None:
    """Result of a training that is finished; None where something is left to do.

    Raises:
        StoreError: the training in the directory was asked for differently.
    """
    directory = TrainingDirectory(Path(spec.output.dir))
    result = directory.result()
    if result is None:
        return None
    directory.compare_spec(spec)
    return TrainingResult(directory.path, directory.bundle, **result, before=True)


def train_network(spec: TrainSpec, materials: Materials, *, listeners: Sequence[Listener] = ()) -> TrainingResult:
    """Train a network in the directory of its spec, or go on with it.

    Raises:
        KeyboardInterrupt: the training was asked to stop; the same call goes on.
        TilessegError: it cannot go on, see `TrainingDirectory.claim` and `TrainingLoop.carry_out`.
    """
    directory = TrainingDirectory(Path(spec.output.dir))
    device = device_of_process(pick_device(spec.device))
    with ExitStack() as stack:
        processes = stack.enter_context(joined_processes(device))
        processes.share(spec.sampling.batch)
        stack.enter_context(alike_each_time(spec))
        if processes.first:
            directory.claim(spec, materials.identities)
            directory.write_split(materials.split)
            stack.enter_context(_alone(directory))
        stop = stack.enter_context(stop_on_signals())
        return _Training(spec, materials, directory, device, processes, stop, listeners).carry_out()


@dataclass
class _Training:
    """One execution of a training."""

    spec: TrainSpec
    materials: Materials
    directory: TrainingDirectory
    device: torch.device
    processes: Processes
    stop: StopRequest
    listeners: Sequence[Listener]

    def __post_init__(self) -> None:
        self._served = copy.deepcopy(self.materials.network)
        self._precision = precision_of(self.spec, self.device)
        folder, materials, batch = self.directory.path, self.materials, self.spec.sampling.batch
        self._pictures = TrainingPictures(
            folder, materials.spec, materials.validation, materials.loader, batch, self.device
        )

    def carry_out(self) -> TrainingResult:
        trainee = self._trainee()
        loop = TrainingLoop(
            self.spec,
            trainee,
            self.materials.loader,
            self._manner(),
            self.directory,
            partial(self._score, trainee, self.materials.validation) if self.materials.validation else None,
            self.processes,
            self.stop,
            self._tell,
            partial(self._draw, trainee),
        )
        done = trainee.progress
        self._tell(TrainingStarted(self.spec.name, loop.last, done.step, done.seconds))
        loop.carry_out()
        return self._finish(trainee)

    def _trainee(self) -> Trainee:
        """Network, optimiser and average as the last checkpoint has them, or at their start."""
        network = self.materials.network.to(self.device)
        network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        options = self.spec.optimise
        trainee = Trainee(network, make_optimiser(network, options), MovingAverage(network, options.ema))
        stored, notes = read_checkpoint(self.directory.state)
        for note in notes:
            self._tell(Note(note))
        if stored is not None:
            trainee.restore(stored)
        return trainee

    def _manner(self) -> Manner:
        spec = self.spec
        loss = loss_function(spec.loss, weights=class_weights(spec.loss, self.materials.counts))
        return Manner(loss, self.device, spec.optimise.clip, self._precision == "bf16")

    def _score(self, trainee: Trainee, parts: Sequence[PartOfScene], after_tile: Any) -> Validation:
        """Validate the average of now."""
        self._served.load_state_dict(trainee.average.state)
        return self._validate(self.materials.spec, parts, choose=True, after_tile=after_tile)

    def _validate(self, spec: ModelSpec, parts: Sequence[PartOfScene], *, choose: bool, after_tile: Any) -> Validation:
        place = Device(str(self.device), threads_of(self.spec), self._precision)
        return validate(
            self._served,
            spec,
            parts,
            device=place,
            folder=self.directory.validation,
            choose=choose,
            after_tile=after_tile,
        )

    def _draw(self, trainee: Trainee) -> None:
        """Draw the pictures of the training so far."""
        self._served.load_state_dict(trainee.average.state)
        network, step = self._served, trainee.progress.step
        losses, scores = read_curves(self.directory.path)
        self._pictures.draw(network, step=step, worst=trainee.progress.worst, losses=losses, scores=scores)

    def _finish(self, trainee: Trainee) -> TrainingResult:
        """Write the bundle, score the test part once, and write the result."""
        progress, best = trainee.progress, self.spec.stop.keep == "best" and bool(trainee.best)
        self._served.load_state_dict(trainee.best if best else trainee.average.state)
        spec = decided(self.materials.spec, progress.threshold)
        result = _result(self.directory, progress)
        if not self.processes.first:
            return result
        parts = {"validate": self.materials.validation, "test": self.materials.test}
        found = {part: self._final(spec, scenes) for part, scenes in parts.items() if scenes}
        result = _result(self.directory, progress, test=found["test"].score if "test" in found else None)
        write_trained(
            self.directory.bundle,
            spec,
            self._served,
            facts=self._facts(result),
            matrices={part: each.matrices for part, each in found.items()},
            onnx=self.spec.output.onnx,
        )
        kept = {key: value for key, value in asdict(result).items() if key not in ("directory", "bundle", "before")}
        self.directory.write_result(kept)
        self._tell(TrainingFinished(result.steps, str(result.bundle), result.seconds))
        return result

    def _final(self, spec: ModelSpec, scenes: Sequence[PartOfScene]) -> Validation:
        """Score the parameters that become the bundle."""
        return self._validate(spec, scenes, choose=False, after_tile=self.stop.refuse_to_go_on)

    def _facts(self, result: TrainingResult) -> TrainingFacts:
        network = self.spec.network
        library = network.library and f"{network.class_name} of {network.library}, {network.arguments}"
        return TrainingFacts(
            scenes=self.materials.scenes,
            split=split_sentence(self.spec.split),
            pixels=self.materials.counts,
            steps=result.steps,
            best_step=result.best_step if self.spec.stop.keep == "best" else None,
            seconds=result.seconds,
            device=str(self.device),
            threads=threads_of(self.spec),
            precision=self._precision,
            start=network.start,
            library=library or None,
        )

    def _tell(self, event: Event) -> None:
        if self.processes.first:
            tell(self.listeners, event)


def _result(directory: TrainingDirectory, progress: Progress, *, test: float | None = None) -> TrainingResult:
    validated = progress.best_step is not None
    return TrainingResult(
        directory.path,
        directory.bundle,
        steps=progress.step,
        seconds=round(progress.seconds, 2),
        best_step=progress.best_step,
        score=progress.best_score if validated else None,
        test=test,
    )


def precision_of(spec: TrainSpec, device: torch.device) -> str:
    """Numbers that convolutions compute with."""
    if spec.optimise.precision != "auto":
        return spec.optimise.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def threads_of(spec: TrainSpec) -> int:
    """Number of threads of the processor that a training computes with."""
    return available_cores() if spec.threads == "auto" else spec.threads


@contextmanager
def alike_each_time(spec: TrainSpec) -> Iterator[None]:
    """Context with the spec's number of threads, which leaves torch's number and random numbers as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.set_num_threads(threads_of(spec))
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def _alone(directory: TrainingDirectory) -> Iterator[None]:
    """Context in which no other process trains in the directory.

    Raises:
        StoreError: another process does.
    """
    path = directory.path / "locks" / "training"
    with held(path) as taken:
        if not taken:
            raise StoreError(
                f"{directory.path} is being trained in by {holder(path)}; wait for it, or give another directory"
            )
        yield
