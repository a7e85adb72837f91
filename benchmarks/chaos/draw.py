"""What a seed draws: an executor, a fault and its moment, and the exit codes that the fault may lead to."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.chaos.network import DEADLY, HANGING, LIVING, NOT_FINITE

EXECUTORS = ("threads", "local", "address", "array")
"""Executors: threads of the driver, worker processes, somebody else's scheduler, two parts of a job array."""
POISON = (*DEADLY, *LIVING, *HANGING, NOT_FINITE)
SIGNALS = {"SIGKILL to the client": -9, "SIGTERM to the client": 130, "SIGINT to the client": 130}
"""Signals to the driver, and the exit codes that they lead to."""
WORKERS = ("SIGKILL to a worker", "SIGKILL to all workers")
SHARDS = (
    "a shard is altered",
    "a shard is torn",
    "a shard is missing",
    "a shard is an older one",
    "a record is missing",
)
"""Damage between two executions."""
DISK = "the disk is full"
SCHEDULER, NANNY = "SIGKILL to the scheduler", "SIGKILL to all nannies"
PROCESSES = ("local", "address")
"""Executors whose workers are processes."""


@dataclass(frozen=True, slots=True)
class Draw:
    """An executor under a fault."""

    seed: int
    executor: str
    workers: int
    threads: int
    fault: str
    after: int
    """Number of tiles that are done when the fault strikes; poison is there from the beginning."""

    @property
    def codes(self) -> set[int]:
        """Exit codes to which the first execution may lead; the one after it leads to 0."""
        apart = self.executor in PROCESSES
        if self.fault in DEADLY:  # in threads of the driver it kills the driver
            return {3} if apart else {3, -9, -11, -6}
        if self.fault in ("transient error", *SHARDS):
            return {0}
        if self.fault in POISON:
            return {3}
        if self.fault in WORKERS:
            return {0, 3}  # 3: the worker was killed again while a tile ran alone on it
        if self.fault in SIGNALS:
            return {0, SIGNALS[self.fault]}  # 0: it had just ended
        return {0, 1} if self.fault == DISK else {0, 4}


def draw(seed: int, *, disks: bool) -> Draw:
    """Executor, fault and moment of a seed.

    As many seeds in turn as there are pairs of executor and fault draw them all.

    Args:
        seed: the seed.
        disks: whether small file systems can be made, which needs root.
    """
    pairs = [(executor, fault) for executor in EXECUTORS for fault in faults_of(executor) if disks or fault != DISK]
    random.Random(0).shuffle(pairs)
    executor, fault = pairs[seed % len(pairs)]
    dice = random.Random(seed)
    return Draw(seed, executor, dice.choice((1, 2)), dice.choice((1, 2)), fault, dice.randint(1, 20))


def faults_of(executor: str) -> tuple[str, ...]:
    """Faults that an executor meets. Nothing ends a thread of the driver that holds the interpreter."""
    poison = [kind for kind in POISON if executor in PROCESSES or kind != "hang with the interpreter"]
    workers = WORKERS if executor in PROCESSES else ()
    others = (SCHEDULER, NANNY) if executor == "address" else ()
    return (*poison, *SIGNALS, *SHARDS, *workers, *others, DISK)
