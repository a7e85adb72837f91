"""Parallel batches: number of batches that a process computes at the same time, and of threads for each.

Two batches on one core each are done sooner than one after the other on two: no thread waits for another between two
layers, and while one tile is read or blended, the other's network goes on. Measured with the U-Net of the benchmark on
two cores: 1.2 to 1.4 times as many pixels a second. Each batch takes memory of its own.
"""

from __future__ import annotations

from threading import BoundedSemaphore
from types import TracebackType

MOST_BATCHES = 2
"""Largest number of batches at the same time."""


def choose_parallel_batches(threads: int, tiles: int) -> int:
    """Number of batches that a processor computes at the same time.

    Args:
        threads: number of engine threads in one worker process.
        tiles: number of tiles at the same time in the process.
    """
    return max(1, min(MOST_BATCHES, threads, tiles))


class BatchSlots:
    """Context that a limited number of threads may be in at the same time, each with a share of the engine threads."""

    def __init__(self, threads: int, parallel_batches: int = 1) -> None:
        self.parallel_batches = max(1, min(parallel_batches, threads))
        self.threads = max(1, threads // self.parallel_batches)
        """Number of engine threads for each batch."""
        self._free = BoundedSemaphore(self.parallel_batches)

    def __enter__(self) -> None:
        self._free.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free.release()
