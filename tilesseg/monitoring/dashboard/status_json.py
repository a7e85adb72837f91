"""`/tilesseg/status.json`: the figures of a run for programs. Needs no bokeh."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from distributed.http.utils import RequestHandler

from tilesseg.monitoring.dashboard.boards import Boards

if TYPE_CHECKING:
    from distributed import Scheduler

ROUTE = r"/(?:.*/)?tilesseg/status\.json"
"""Path of the JSON, also under the prefix that a scheduler may have."""


class StatusHandler(RequestHandler):
    """Answers with the board of the run in `?run=`, else the latest; `?scene=` adds the map of a scene's tiles."""

    def initialize(self, dask_server: Any = None, extra: Any = None, boards: Any = None) -> None:
        self.server, self.extra = dask_server, extra or {}
        self.boards: Boards = boards

    def get(self) -> None:
        self.boards.tick()
        run, scene = self.get_query_argument("run", None), self.get_query_argument("scene", None)
        chosen = self.boards.by_run.get(run) if run else self.boards.latest
        data = chosen.to_json(scene, busy=self.boards.busy()) if chosen else {"state": "no run"}
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.write(json.dumps({**data, "runs": list(self.boards.by_run)}))


def add_route(scheduler: Scheduler, boards: Boards) -> None:
    """Add the route to a running scheduler."""
    scheduler.http_application.add_handlers(
        ".*", [(ROUTE, StatusHandler, {"dask_server": scheduler, "boards": boards})]
    )
