"""What the scheduler holds: the boards of its latest runs, and what shows them."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from tilesseg.inference.worker_phases import METRIC
from tilesseg.monitoring.dashboard import metrics, routes
from tilesseg.monitoring.live.run_board import Board, Busy
from tilesseg.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Scheduler


NAME = "tilesseg"
BOARDS = 5
"""Runs that are kept, the latest ones."""

Message = tuple[str, float, Any]
"""A kind, when, and what: `event`, `picture` (scene, URL), `found` (scene, tiles), `here`, `left`."""


class Dashboard(SchedulerPlugin):
    """Boards by run directory. There is no hook on tasks: the scheduler does nothing per task."""

    idempotent = True
    name = NAME

    def __init__(self) -> None:
        self.boards: dict[str, Board] = {}
        self.problems: dict[str, str] = {}
        """What could not be added, `page`, `json` or `metrics`, and why."""
        self.scheduler: Scheduler | None = None
        self._collector: Any = None

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page, the JSON and the metrics; what this version of Dask does not let us add is left out."""
        self.scheduler = scheduler
        scheduler.handlers["tilesseg_take"] = self._receive
        for what, add in (("json", self._add_json), ("page", self._add_page), ("metrics", self._add_metrics)):
            try:
                add(scheduler)
            except Exception as error:
                # ^ of any kind: these are names that distributed may change; the answer goes to the driver
                self.problems[what] = f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        """The scheduler ends: the registry of Prometheus belongs to the whole process."""
        metrics.remove(self._collector)

    def take(self, run: str, batch: list[Message]) -> None:
        """Take what the driver tells of a run."""
        board = self.board_of(run)
        for kind, when, what in batch:
            board.heard = time.time()
            match kind:
                case "event":
                    if what.kind == "run_started" and board.began:
                        board = self._renew(run)
                    board.take(what, when)
                case "picture":
                    board.show(*what)
                case "found":
                    board.find_done(*what)
                case "left":
                    board.leave(when)

    async def _receive(self, run: str, batch: bytes) -> None:
        """The handler of what `deliver` sends."""
        self.take(run, pickle.loads(batch))

    def board_of(self, run: str) -> Board:
        """The board of a run; the oldest of more than a few goes, of those that ended if there are any."""
        if run not in self.boards:
            while len(self.boards) >= BOARDS:
                ended = (one for one, board in self.boards.items() if board.ended is not None)
                del self.boards[next(ended, next(iter(self.boards)))]
            self.boards[run] = Board(run)
        return self.boards[run]

    @property
    def latest(self) -> Board | None:
        """The board of the run that began last."""
        return next(reversed(self.boards.values()), None)

    def ticked(self) -> None:
        """Let every board know what time it is."""
        for board in self.boards.values():
            board.tick(time.time())

    def busy(self) -> Busy:
        """What all workers say they do now."""
        return {(str(t[0]), str(t[1])): str(t[2]) for found in self.said().values() for t in found.get("tiles", ())}

    def said(self) -> dict[str, dict[str, Any]]:
        """The tables of all workers that have said anything, by address, with their memory."""
        workers = self.scheduler.workers if self.scheduler else {}
        return {
            address: {**table, "memory": state.metrics.get("memory", 0), "limit": state.memory_limit or 0}
            for address, state in workers.items()
            if isinstance(table := state.metrics.get(METRIC), dict)
        }

    def _renew(self, run: str) -> Board:
        del self.boards[run]
        return self.board_of(run)

    def _add_json(self, scheduler: Scheduler) -> None:
        routes.add(scheduler, self)

    def _add_page(self, scheduler: Scheduler) -> None:
        from tilesseg.monitoring.dashboard import page

        page.add(scheduler, self)

    def _add_metrics(self, scheduler: Scheduler) -> None:
        self._collector = metrics.add(self)


def deliver(client: Client, run: str, batch: list[Message]) -> None:
    """Hand a batch to the plugin of a client's scheduler.

    By a handler of our own: `run_on_scheduler` writes a line into the scheduler's log for each call.
    """
    scheduler: Any = client.scheduler
    client.sync(scheduler.tilesseg_take, run=run, batch=pickle.dumps(batch))


def answer(dask_scheduler: Any = None) -> dict[str, Any]:
    """Runs in the scheduler: which version is there, and what could not be added."""
    found = dask_scheduler.plugins.get(NAME)
    return {"version": __version__, "problems": dict(found.problems) if found else None}


__all__ = ["NAME", "Dashboard", "Message", "answer", "deliver"]
