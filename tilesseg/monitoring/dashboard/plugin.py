"""The plugin of the scheduler: it receives what drivers report, and adds page, JSON and metrics."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from tilesseg.inference.worker_phases import METRIC
from tilesseg.monitoring.dashboard import prometheus_metrics, routes
from tilesseg.monitoring.dashboard.boards import Boards, Message, Tables
from tilesseg.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Scheduler


NAME = "tilesseg"


class Dashboard(SchedulerPlugin):
    """Holds the boards, and shows them. There is no hook on tasks: the scheduler does nothing per task."""

    idempotent = True
    name = NAME

    def __init__(self) -> None:
        self.boards = Boards(self._tables)
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
        prometheus_metrics.remove(self._collector)

    async def _receive(self, run: str, batch: bytes) -> None:
        """The handler of what `deliver` sends."""
        self.boards.take(run, pickle.loads(batch))

    def _tables(self) -> Tables:
        workers = self.scheduler.workers if self.scheduler else {}
        return {
            address: {**table, "memory": state.metrics.get("memory", 0), "limit": state.memory_limit or 0}
            for address, state in workers.items()
            if isinstance(table := state.metrics.get(METRIC), dict)
        }

    def _add_json(self, scheduler: Scheduler) -> None:
        routes.add(scheduler, self.boards)

    def _add_page(self, scheduler: Scheduler) -> None:
        from tilesseg.monitoring.dashboard import page

        page.add(scheduler, self.boards)

    def _add_metrics(self, scheduler: Scheduler) -> None:
        self._collector = prometheus_metrics.add(self.boards)


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
