"""Plugin of the scheduler: it receives the batches of drivers, and adds the page, the JSON and the metrics."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from tilesseg.errors import reason_of
from tilesseg.inference.worker_phases import METRIC
from tilesseg.monitoring.dashboard import prometheus_metrics, status_json
from tilesseg.monitoring.dashboard.boards import Boards, Message, Tables
from tilesseg.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Scheduler


NAME = "tilesseg"


class Dashboard(SchedulerPlugin):
    """Holder of the boards in a scheduler. There is no hook on tasks: the scheduler does nothing per task."""

    idempotent = True
    name = NAME

    def __init__(self) -> None:
        self.boards = Boards(self._tables)
        self.problems: dict[str, str] = {}
        """Reason why the `page`, the `json` or the `metrics` could not be added."""
        self.scheduler: Scheduler | None = None
        self._collector: Any = None

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page, the JSON and the metrics; a part that fails in this version of Dask is left out."""
        self.scheduler = scheduler
        scheduler.handlers["tilesseg_take"] = self._receive
        for part, add in (("json", self._add_json), ("page", self._add_page), ("metrics", self._add_metrics)):
            try:
                add(scheduler)
            except Exception as error:
                # ^ of any kind: these are names that distributed may change; the driver prints the reason
                self.problems[part] = reason_of(error)

    async def close(self) -> None:
        """Take the metrics out of the registry of Prometheus, which belongs to the whole process."""
        prometheus_metrics.remove_collector(self._collector)

    async def _receive(self, run: str, batch: bytes) -> None:
        """Take a batch that `deliver` has sent."""
        self.boards.take(run, pickle.loads(batch))

    def _tables(self) -> Tables:
        workers = self.scheduler.workers if self.scheduler else {}
        return {
            address: {**table, "memory": state.metrics.get("memory", 0), "limit": state.memory_limit or 0}
            for address, state in workers.items()
            if isinstance(table := state.metrics.get(METRIC), dict)
        }

    def _add_json(self, scheduler: Scheduler) -> None:
        status_json.add_route(scheduler, self.boards)

    def _add_page(self, scheduler: Scheduler) -> None:
        from tilesseg.monitoring.dashboard import page

        page.add_page(scheduler, self.boards)

    def _add_metrics(self, scheduler: Scheduler) -> None:
        self._collector = prometheus_metrics.add_collector(self.boards)


def deliver(client: Client, run: str, batch: list[Message]) -> None:
    """Hand a batch to the plugin of a client's scheduler.

    The plugin has a handler of its own: `run_on_scheduler` writes a line into the scheduler's log for each call.
    """
    scheduler: Any = client.scheduler
    client.sync(scheduler.tilesseg_take, run=run, batch=pickle.dumps(batch))


def answer(dask_scheduler: Any = None) -> dict[str, Any]:
    """Version of tilesseg in the scheduler, where this runs, and the problems of the plugin there."""
    plugin = dask_scheduler.plugins.get(NAME)
    return {"version": __version__, "problems": dict(plugin.problems) if plugin else None}
