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
from typing import TYPE_CHECKING, TextIO

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

    faulthandler's own thread needs no interpreter: it ends the process, too, where a tile holds the interpreter.
    """

    def __init__(self, work: Assignment, traces: Path) -> None:
        super().__init__(name="tilesseg-watchdog", daemon=True)
        self.work, self.traces, self.over = work, traces, threading.Event()

    def run(self) -> None:
        self.traces.parent.mkdir(exist_ok=True)
        with self.traces.open("w") as file:
            while not self.over.wait(self._look(file)):
                pass
            faulthandler.cancel_dump_traceback_later()

    def _look(self, file: TextIO) -> float:
        """Set the time at which the process ends unless a step comes first; returns seconds until the next look."""
        limit = self.work.limit.after(longest_step())
        assert limit is not None  # else there is no watchdog
        waited = max(since_last_step().values(), default=None)
        if waited is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            faulthandler.dump_traceback_later(max(limit - waited, 0.001), exit=True, file=file)
        return min(LOOK_EVERY, limit / LOOKS)


_LOCK = threading.Lock()
_watchdog: _Watchdog | None = None


def watch(work: Assignment) -> None:
    """Watch the tiles of an execution from now on, where this process is a Dask worker that a nanny starts again."""
    global _watchdog
    if work.limit.seconds is None or (_watchdog is not None and _watchdog.work == work):
        return
    address = worker_address(with_nanny=True)
    if address is None:
        return
    with _LOCK:
        if _watchdog is not None:
            _watchdog.over.set()
        _watchdog = _Watchdog(work, traces_of(Path(work.run), address))
        _watchdog.start()


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
