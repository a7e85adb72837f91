"""Batches: number that a process computes at the same time, threads of each, and the size that a file fixes.

Two batches with a core each are done sooner than the same batches in turn with two cores: no thread waits for another
between two layers, and while a tile is read or blended, the network of the other tile goes on. Measured with the U-Net
of the benchmark on two cores: 1.2 to 1.4 times as many pixels a second. Each batch takes memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import BoundedSemaphore
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.shape_advice import input_problem
from tilesseg.models.spec import ModelSpec

MOST_BATCHES = 2
"""Largest number of batches at the same time."""


def choose_parallel_batches(threads: int, tiles: int) -> int:
    """Number of batches that a processor computes at the same time.

    Args:
        threads: number of engine threads in a worker process.
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


def compare_input(shape: Sequence[int | None], spec: ModelSpec, weights: Path) -> int | None:
    """Compare the fixed axes of an input `(n, channel, y, x)` with the spec; a free axis is None.

    Returns:
        Batch size that the file fixes; None if any.

    Raises:
        ModelError: the input has another number of axes or channels, or another patch than the spec.
    """
    problem = input_problem(weights, shape, spec)
    if problem:
        raise ModelError(problem)
    return shape[0]


def parts(patches: NDArray[Any], batch: int | None) -> list[NDArray[Any]]:
    """Batches of the size that the file fixes; the last batch is filled up with its own last patch."""
    if batch is None:
        return [patches]
    missing = -len(patches) % batch
    full = np.concatenate([patches, np.repeat(patches[-1:], missing, axis=0)]) if missing else patches
    return [full[i : i + batch] for i in range(0, len(full), batch)]
