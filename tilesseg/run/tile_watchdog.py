"""Watchdog over tiles: one that makes no step for too long is given up, even where it holds the interpreter.

A thread of Python cannot be stopped. A worker process with a nanny ends itself and leaves the stacks of its threads in
the run directory; its tiles are suspects like those of any process that died, so that a tile that hangs runs once more,
alone. In a process that has nobody to start it again (`threads`) the thread is abandoned.
"""

from __future__ import annotations

import faulthandler
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.cluster.executors import worker_address
from tilesseg.inference.worker_phases import longest_step, since_last_step

if TYPE_CHECKING:
    from tilesseg.planning.fault_options import TileLimit
    from tilesseg.run.worker_state import Assignment

FOLDER = "hung"
"""Folder of a run directory with the stacks of workers whose tile hung."""
LOOK_EVERY, LOOKS = 5.0, 10.0
"""Largest number of seconds between two looks, and least number of looks within the limit."""


class _Watchdog(threading.Thread):
    """Thread that has faulthandler end the process once a tile makes no step for too long.

    faulthandler's own thread needs no interpreter: it ends the process, too, where a tile holds the interpreter. Such a
    tile may begin to hold it at any time, so that the time of the end is set before its first step, and set anew by
    this thread. Without a tile there is none: tasks of others may take as long as they like.
    """

    def __init__(self, work: Assignment, limit: float, traces: Path) -> None:
        super().__init__(name="tilesseg-watchdog", daemon=True)
        self.work, self.over = work, threading.Event()
        self._limit, self._armed, self._lock = limit, False, threading.Lock()
        traces.parent.mkdir(exist_ok=True)
        self._traces = traces.open("w")
        self.start()

    def run(self) -> None:
        with self._traces:
            while not self.over.wait(min(LOOK_EVERY, self._limit / LOOKS)):
                self._look()
            faulthandler.cancel_dump_traceback_later()

    def arm(self) -> None:
        """Set the time of the end, if there is none; to be called when a tile has begun."""
        with self._lock:
            if not self._armed:
                self._end_in(self._limit)

    def _look(self) -> None:
        """Set the time of the end anew, by the tile that has made no step for the longest time."""
        with self._lock:
            limit = self.work.limit.after(longest_step())
            assert limit is not None  # else there is no watchdog
            self._limit, waited = limit, max(since_last_step().values(), default=None)
            if waited is None:
                faulthandler.cancel_dump_traceback_later()
                self._armed = False
            else:
                self._end_in(limit - waited)

    def _end_in(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True, file=self._traces)
        self._armed = True


_LOCK = threading.Lock()
_watchdog: _Watchdog | None = None


def watch(work: Assignment) -> None:
    """Watch a tile that has just begun in this thread, where a nanny starts this process again."""
    global _watchdog
    limit, address = work.limit.after(longest_step()), worker_address(with_nanny=True)
    if limit is None or address is None:
        return
    with _LOCK:
        if _watchdog is None or _watchdog.work != work:
            if _watchdog is not None:
                _watchdog.over.set()
                _watchdog.join()
            _watchdog = _Watchdog(work, limit, traces_of(Path(work.run), address))
        watchdog = _watchdog
    watchdog.arm()


def traces_of(run: Path, address: str) -> Path:
    """File with the stacks of the worker at an address."""
    return run / FOLDER / (re.sub(r"\W+", "-", address) + ".txt")


def explain_death(run: Path, limit: TileLimit, address: str) -> str:
    """Reason why a worker ended itself while a tile ran alone on it; an empty text where it did not."""
    traces = traces_of(run, address)
    if not traces.exists() or not traces.stat().st_size:
        return ""
    return f"it hung, also when it ran alone: {limit}; the stacks of its worker are in {traces}"


def remove_empty(run: Path) -> None:
    """Remove the files of workers that did not hang."""
    for path in (run / FOLDER).glob("*.txt"):
        if not path.stat().st_size:
            path.unlink(missing_ok=True)
    if (run / FOLDER).is_dir() and not any((run / FOLDER).iterdir()):
        (run / FOLDER).rmdir()


def overdue(limit: TileLimit) -> Callable[[int], str]:
    """Function that gives the reason why the tile of a thread of this process is to be given up, or an empty text."""

    def reason(thread: int) -> str:
        seconds = limit.after(longest_step())
        if seconds is None or since_last_step().get(thread, 0.0) < seconds:
            return ""
        return f"it hung, and its thread is abandoned: {limit}"

    return reason
