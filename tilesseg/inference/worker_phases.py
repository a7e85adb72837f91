"""Phase in which each thread of this process is now, since when, and seconds of each phase.

A small table that a Dask worker sends with its heartbeats. Nothing is sent per tile and nothing waits: a thread sets
its entry, and the heartbeat reads it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tilesseg.process import this_process

METRIC = "tilesseg"
"""Name of the table among the metrics of a Dask worker."""
WORDS = {"read": "reading", "predict": "predicting", "blend": "predicting", "write": "writing"}
"""Phase of a tile that is in a part of the work, or waits for it."""

_now: dict[int, tuple[str, str, str, float, float]] = {}
"""Thread → scene, tile, phase, start of the tile and of its latest step. Single entries of a dict are set and dropped
whole."""
_longest = 0.0
"""Seconds of the longest step so far."""


@contextmanager
def working(scene: str, tile: str) -> Iterator[None]:
    """Enter this thread into the table while it works on a tile.

    The table is announced too: a process knows only inside a task whether it is a Dask worker, and which one.
    """
    announce()
    me = threading.get_ident()
    began = time.monotonic()
    _now[me] = (scene, tile, "reading", began, began)
    try:
        yield
    finally:
        _now.pop(me, None)


def enter(part: str) -> None:
    """Note that this thread's tile enters a part of its work, or waits for it: a step. Without a tile, do nothing."""
    global _longest
    me = threading.get_ident()
    if (entry := _now.get(me)) is not None:
        scene, tile, phase, began, stepped = entry
        now = time.monotonic()
        _longest = max(_longest, now - stepped)
        _now[me] = (scene, tile, WORDS.get(part, phase), began, now)


def since_last_step() -> dict[int, float]:
    """Seconds since the latest step of each tile under way, by the identifier of its thread."""
    now = time.monotonic()
    return {thread: now - stepped for thread, (*_, stepped) in list(_now.items())}


def longest_step() -> float:
    """Seconds of the longest step of a tile in this process, so far; 0 before the first."""
    return _longest


def table() -> list[list[Any]]:
    """Tiles under way in this process: scene, tile, phase, and seconds since the tile began."""
    now = time.monotonic()
    return [[scene, tile, phase, round(now - began, 2)] for scene, tile, phase, began, _ in list(_now.values())]


def announce() -> bool:
    """Send the table with the heartbeats of this process from now on, if the process is a Dask worker.

    Returns:
        Whether the process is a Dask worker.
    """
    import sys

    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return False
    worker.metrics.setdefault(METRIC, _metric)
    return True


async def _metric(worker: Any) -> dict[str, Any]:
    """Content of the metric: this process's name, as in the records of tiles, and the table."""
    return {"worker": this_process(), "tiles": table()}


class Stopwatch:
    """Wall seconds by part. Different threads may time different parts at once, each part in a single thread."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()
        self.started, self._begun = round(time.time(), 3), time.perf_counter()

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by part, so far."""
        return {part: round(spent, 4) for part, spent in self._spent.items()}

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self._begun, 4)

    @contextmanager
    def __call__(self, part: str, *, doing: str | None = None) -> Iterator[None]:
        """Time a part; `doing` is the part that the table shows meanwhile, where it is another part."""
        enter(doing or part)
        start = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - start  # type: ignore[assignment]
