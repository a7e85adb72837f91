"""Seconds of a tile by the part of the work that they went to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tilesseg.phases import enter


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
