"""The machine that a plan is made for, what was measured on it, and how a job is computed there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log
from typing import Annotated

from pydantic import Field

from tilesseg.models.runtime_choice import LEAST, NATIVE, Able, Choice


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine that will compute, reported by a worker where the workers are elsewhere."""

    device: str
    """`cpu` or `cuda`."""
    engine_threads: int
    """Number of threads that the network computes with in each worker process."""
    slots: int
    """Number of tiles at the same time, over all workers."""
    able: Able = LEAST
    """Runtimes that are installed there, and precisions that its device accelerates."""
    parallel_batches: int = 1
    """Number of batches that a worker process computes at the same time, where a processor computes."""


NO_MACHINE = Machine("cpu", 1, 1)
"""Machine of a job that is only checked: nothing of it will be computed."""


@dataclass(frozen=True, slots=True)
class PatchSpeed:
    """Speed and memory of a network for one size of patch, at the batch that goes with it."""

    patch: int
    """Side, in pixels."""
    mpx_per_s: float
    """Predicted pixels a second, in millions, of one process."""
    memory_mb: float
    """Peak resident memory of a process that predicts such patches, in millions of bytes."""
    inferred: bool = False
    """Whether the values were not measured, but interpolated between two measured sizes."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Decisions about computing the network of a job, made once, for one machine. Part of the plan."""

    device: str
    """`cpu` or `cuda`."""
    engine_threads: int
    """Number of threads that the network computes with in each worker process."""
    slots: int
    """Number of tiles at the same time, for which cores are chosen."""
    choice: Choice = NATIVE
    """Runtime and precision."""
    compile: bool = False
    """Whether torch compiles the network before the first tile."""
    parallel_batches: Annotated[int, Field(alias="lanes")] = 1
    """Number of batches that a worker process computes at the same time; `lanes` in stored plans."""
    speeds: tuple[PatchSpeed, ...] = ()
    """Measured speeds, by growing patch; empty where patches are not chosen by speed."""

    @property
    def arithmetic(self) -> tuple[str, str, bool]:
        """Choices that change how the network's scores are rounded."""
        return self.choice.runtime, self.choice.precision, self.compile

    @property
    def engine(self) -> str:
        """Runtime and precision, and the reason for them, for people."""
        runtime = "the model's own" if self.choice.runtime == "own" else self.choice.runtime
        words = ", ".join([runtime, self.choice.precision, *(["compiled"] if self.compile else [])])
        return f"{words}: {self.choice.why}" if self.choice.why else words

    def batch_seconds(self, patch: int) -> float | None:
        """Seconds that a patch takes while `parallel_batches` are computed; None where nothing is known of its size."""
        speed = speed_at(patch, self.speeds)
        return None if speed is None else self.parallel_batches * patch**2 / 1e6 / speed.mpx_per_s


def speed_at(patch: int, measured: Sequence[PatchSpeed]) -> PatchSpeed | None:
    """Speed and memory for a size of patch, interpolated between its measured neighbours; None beyond them.

    Args:
        patch: side, in pixels.
        measured: measured speeds, by growing patch.
    """
    for speed in measured:
        if speed.patch == patch:
            return speed
    for below, above in pairwise(measured):
        if below.patch < patch < above.patch:
            return _between(below, above, patch)
    return None


def fitting(measured: Sequence[PatchSpeed], fits: Callable[[PatchSpeed], bool], *, step: int) -> tuple[PatchSpeed, ...]:
    """All measured patch sizes that fit into memory, plus one interpolated size: the largest that still fits.

    Args:
        measured: measured speeds, by growing patch.
        fits: whether a size may be used.
        step: difference between two sizes that are tried.
    """
    usable = tuple(speed for speed in measured if fits(speed))
    if not usable or len(usable) == len(measured):
        return usable
    last, beyond = usable[-1], measured[len(usable)]
    for patch in range(beyond.patch - step, last.patch, -step):
        speed = _between(last, beyond, patch)
        if fits(speed):
            return (*usable, speed)
    return usable


def _between(below: PatchSpeed, above: PatchSpeed, patch: int) -> PatchSpeed:
    """Interpolation: speed goes with the logarithm of the side, memory with the area."""
    share = log(patch / below.patch) / log(above.patch / below.patch)
    speed = below.mpx_per_s + share * (above.mpx_per_s - below.mpx_per_s)
    share = (patch**2 - below.patch**2) / (above.patch**2 - below.patch**2)
    return PatchSpeed(patch, speed, below.memory_mb + share * (above.memory_mb - below.memory_mb), inferred=True)
