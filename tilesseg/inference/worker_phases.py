"""What each thread of this process does right now, and the seconds of each phase.

A small table that a Dask worker sends with its heartbeats. Nothing is sent per tile and nothing waits: a thread writes
one entry, and whoever wants to know reads it.
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
"""The name of the table among the metrics of a Dask worker."""
WORDS = {"read": "reading", "predict": "predicting", "blend": "predicting", "write": "writing"}
"""Parts of the work, and what is said of a tile that is in one, or waits for it."""

_now: dict[int, tuple[str, str, str, float]] = {}
"""Thread → scene, tile, phase, and when the tile began. Single entries of a dict are set and dropped whole."""


@contextmanager
def working(scene: str, tile: str) -> Iterator[None]:
    """For as long as the context lasts, this thread works on a tile.

    Announces it too: only in a task does a process know for certain that it is a Dask worker, and which one.
    """
    announce()
    me = threading.get_ident()
    _now[me] = (scene, tile, "reading", time.monotonic())
    try:
        yield
    finally:
        _now.pop(me, None)


def enter(part: str) -> None:
    """This thread's tile enters a part of its work, or waits for it; in a thread without a tile, nothing."""
    me = threading.get_ident()
    if (found := _now.get(me)) is not None:
        _now[me] = (found[0], found[1], WORDS.get(part, found[2]), found[3])


def table() -> list[list[Any]]:
    """What is worked on in this process: scene, tile, phase, and seconds since the tile began."""
    now = time.monotonic()
    return [[scene, tile, phase, round(now - began, 2)] for scene, tile, phase, began in list(_now.values())]


def announce() -> bool:
    """Send the table with the heartbeats of this process from now on, if it is a Dask worker.

    Returns:
        Whether it is one.
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
    """What the heartbeat takes along: who this is, as in the records of tiles, and the table."""
    return {"worker": this_process(), "tiles": table()}


class Stopwatch:
    """Wall seconds by part. Parts that different threads time go on at the same time; one part is timed by one."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()
        self.started, self._begun = round(time.time(), 3), time.perf_counter()

    @property
    def seconds(self) -> Mapping[str, float]:
        """By part, so far."""
        return {part: round(spent, 4) for part, spent in self._spent.items()}

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self._begun, 4)

    @contextmanager
    def __call__(self, part: str, *, doing: str | None = None) -> Iterator[None]:
        """Time a part; `doing` is the part that a tile is said to be in meanwhile, if it is another one."""
        enter(doing or part)
        start = time.perf_counter()
        yield
        self._spent[part] += time.perf_counter() - start  # type: ignore[assignment]
