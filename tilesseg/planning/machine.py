"""The machine that a plan is made for: its device, threads, tiles at a time and what its libraries can do."""

from __future__ import annotations

from dataclasses import dataclass

from tilesseg.models.runtime_choice import LEAST, Able


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine that will compute is; asked on a worker where the workers are elsewhere."""

    device: str
    """`cpu` or `cuda`."""
    engine_threads: int
    """Threads the network computes with in each worker process."""
    slots: int
    """Tiles at the same time, over all workers."""
    able: Able = LEAST
    """Runtimes that are installed there, and what its device accelerates."""
    parallel_batches: int = 1
    """Batches that a worker process computes at the same time, where it is a processor that computes."""


NO_MACHINE = Machine("cpu", 1, 1)
"""For a job that is only looked at, where nothing of it will be computed."""
