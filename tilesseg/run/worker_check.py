"""Preflight of a worker: before its first item it proves that it can work, so that a sick worker costs no tiles."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.cluster.executors import UnfitWorker, worker_address
from tilesseg.errors import reason_of
from tilesseg.models.network import repeated
from tilesseg.planning.machine import speed_at
from tilesseg.planning.model_contract import try_reference
from tilesseg.process import peak_mb
from tilesseg.raster.labels import quantise
from tilesseg.run.worker_state import Assignment, Opened, is_proven, open_run
from tilesseg.store.run_directory import RunDirectory
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.models.network import Call


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a worker's preflight."""

    version: str
    seconds_per_batch: float
    """Seconds of a batch, for the whole process and its parallel batches; 0 where not measured."""
    peak_mb: float
    problem: str | None = None


def prove(work: Assignment, timed: bool = False) -> Proof:
    """Prove that this process can read the first scene, load the model, predict, and write in the run directory.

    Args:
        work: the run.
        timed: whether the time of a batch is measured, with further batches.
    """
    if work.version != __version__:
        problem = f"it has tilesseg {__version__} and the client has {work.version}; install the same version"
        return Proof(__version__, 0.0, 0.0, problem)
    try:
        opened = open_run(work)
        for reference in opened.plan.untried:
            try_reference(reference)
        seconds = _predict(opened, work.first, timed=timed)
        RunDirectory.create(opened.run.path)
    except Exception as error:
        # ^ whatever it is, this worker cannot work, and the others may
        return Proof(__version__, 0.0, 0.0, reason_of(error))
    opened.proven = True
    return Proof(__version__, seconds, peak_mb())


def problem_of(answer: Proof | Exception) -> str | None:
    """Reason why a worker cannot be used, or None."""
    return reason_of(answer) if isinstance(answer, Exception) else answer.problem


_PROVING = Lock()
_NOISE = 64


def refuse_if_unfit(work: Assignment) -> None:
    """Run the preflight of a cluster's worker that joined after the others, before its first item.

    Raises:
        UnfitWorker: the worker would fail with any item.
    """
    with _PROVING:
        worker = None if is_proven(work) else worker_address()
        proof = prove(work) if worker else None
    if proof and proof.problem:
        raise UnfitWorker(proof.problem, worker)


def _predict(opened: Opened, first: str, *, timed: bool) -> float:
    """Seconds that a second batch takes, by the network of the tiles; 0 unless `timed`.

    All parallel batches are computed at the same time, as in the tiles. The first ones compile and warm up, and show
    whether their scores could be stored. Where speed and memory of the planned patch are known, the smallest measured
    patch shows as much, and takes a tenth of the time.
    """
    plan, compute, scene = opened.plan, opened.plan.compute, opened.scene(first)
    call = opened.call(first, opened.source(first, copied=False))
    network, side = opened.network(call), scene.layout.lattice.patch
    if not timed and speed_at(side, compute.speeds):
        side = compute.speeds[0].patch
    patches = _usual(call, (scene.layout.batch, len(plan.spec.bands), side, side))
    with ThreadPoolExecutor(compute.parallel_batches) as pool:
        for answer in pool.map(network, [patches] * compute.parallel_batches):
            for channel in plan.scores:
                quantise(answer[:, channel])
        if not timed:
            return 0.0
        del answer  # a tile's own are counted with it
        start = time.perf_counter()
        list(pool.map(network, [patches] * compute.parallel_batches))
        return (time.perf_counter() - start) / compute.parallel_batches


def _usual(call: Call, shape: tuple[int, ...]) -> NDArray[Any]:
    """Raw patches `(n, channel, P, P)` of noise that has mean 0 and deviation 1 after normalisation.

    A small square is repeated, which is fast and takes no more memory than the patches.
    """
    norm = call.normalisation
    subtract, divide = (np.asarray(values, np.float32)[:, None, None] for values in (norm.subtract, norm.divide))
    values = np.random.default_rng(0).standard_normal((shape[1], _NOISE, _NOISE), np.float32)
    values *= divide
    values += subtract - np.float32(norm.offset)
    values /= np.float32(norm.scale)
    if call.dtype.kind in "iu":
        limits = np.iinfo(call.dtype)
        np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    return repeated(values.astype(call.dtype), shape)
