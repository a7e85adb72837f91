"""The boards of a scheduler's latest runs, shared by page, JSON and metrics. Needs no Dask."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tilesseg.monitoring.live.run_board import Busy, RunBoard

KEPT_RUNS = 5
"""Number of runs that are kept, the latest ones."""

Message = tuple[str, float, Any]
"""Kind, time and content: `event`, `picture` (scene, URL), `done before` (scene, tiles), `here`, `left`."""
Tables = Mapping[str, dict[str, Any]]
"""Table of each worker that has sent one, by address: its threads' phases, its memory and memory limit in bytes."""


class Boards:
    """Boards by run directory, and the tables that workers send with their heartbeats."""

    def __init__(self, tables: Callable[[], Tables] = dict) -> None:
        """Hold no run yet.

        Args:
            tables: gives the latest tables of all workers.
        """
        self.by_run: dict[str, RunBoard] = {}
        self.tables = tables

    def of(self, run: str) -> RunBoard:
        """The board of a run. A new one takes the place of the oldest, of those that ended if there are any."""
        if run not in self.by_run:
            while len(self.by_run) >= KEPT_RUNS:
                ended = (name for name, board in self.by_run.items() if board.ended is not None)
                del self.by_run[next(ended, next(iter(self.by_run)))]
            self.by_run[run] = RunBoard(run)
        return self.by_run[run]

    @property
    def latest(self) -> RunBoard | None:
        """The board of the run that began last."""
        return next(reversed(self.by_run.values()), None)

    def take(self, run: str, batch: list[Message]) -> None:
        """Take a batch of messages from the driver of a run."""
        board = self.of(run)
        for kind, when, content in batch:
            board.last_message = time.time()
            match kind:
                case "event":
                    if content.kind == "run_started" and board.began:
                        board = self._renew(run)
                    board.take(content, when)
                case "picture":
                    board.show(*content)
                case "done before":
                    board.mark_done_before(*content)
                case "left":
                    board.leave(when)

    def tick(self) -> None:
        """Let time go on for every board."""
        for board in self.by_run.values():
            board.tick(time.time())

    def busy(self) -> Busy:
        """Phase of each tile that a worker has in hand, by scene and tile."""
        tables = self.tables().values()
        return {(str(row[0]), str(row[1])): str(row[2]) for table in tables for row in table.get("tiles", ())}

    def _renew(self, run: str) -> RunBoard:
        del self.by_run[run]
        return self.of(run)
