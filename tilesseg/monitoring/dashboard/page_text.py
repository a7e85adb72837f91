"""Texts of the page: header, legend, split of the time, workers, failures. `texts.html.j2` escapes all of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from tilesseg.events import account
from tilesseg.monitoring.dashboard.palette import PART_COLOURS, STATE_COLOURS
from tilesseg.monitoring.html_templates import templates_of
from tilesseg.monitoring.live.run_board import RunBoard
from tilesseg.monitoring.live.scene_board import SceneBoard

ROWS = 100
"""Largest number of failures that are listed."""
WORKERS = 32
"""Largest number of workers that are listed."""


class WorkerRow(NamedTuple):
    """A row of the table of workers; memory in bytes."""

    name: str
    tiles: int
    failed: int
    alive: bool
    doing: list[tuple[str, str, str, float]]
    """Scene, tile, colour and seconds of each tile in work."""
    now: float
    peak: float
    limit: float
    """Largest memory that the worker may have, or had."""


def header(board: RunBoard | None) -> str:
    """Job, progress, speed, and time."""
    if board is None:
        return _text("header", None, {}, 0.0, None)
    elapsed = (board.ended or board.now) - board.began if board.began else None
    return _text("header", board, board.scene_counts(), _share(board), elapsed)


def legend(scene: SceneBoard | None, busy: Mapping[str, str], factor: int) -> str:
    """Meaning of the map's colours, with the number of tiles of each."""
    counts = scene.counts(dict(busy)) if scene else {}
    return _text("legend", scene, [(state, STATE_COLOURS[state], count) for state, count in counts.items()], factor)


def split(seconds: Mapping[str, float]) -> str:
    """Shares of the parts of the work in the time of tiles, as a bar, and parts that ran at the same time."""
    own, beside = account(seconds)
    total = sum(own.values())
    parts = [(part, spent / total, PART_COLOURS.get(part, "#d5d8dc")) for part, spent in own.items() if spent > 0]
    return _text("split", parts, [(part, spent / total) for part, spent in beside.items() if total > 0 and spent > 0])


def workers(board: RunBoard, tables: Mapping[str, dict[str, Any]]) -> str:
    """A line for each worker: its tiles, what it does now, its memory now and at most."""
    by_name = {str(table.get("worker")): table for table in tables.values()}
    names = [*by_name, *(name for name in reversed(board.workers.by_name) if name not in by_name)]
    rows = [_worker_row(board, name, by_name.get(name)) for name in names]
    largest = max([1.0, *(row.limit for row in rows)])
    return _text("workers", rows[:WORKERS], largest, len(rows) - WORKERS)


def failures(board: RunBoard) -> str:
    """Failures, the latest first."""
    rows = list(islice(reversed(board.failures), ROWS))
    return _text("failures", board, rows, board.failure_count - ROWS)


def _text(name: str, *values: Any) -> str:
    return str(getattr(templates_of(__package__).get_template("texts.html.j2").module, name)(*values))


def _share(board: RunBoard) -> float:
    """Share of the pixels that are behind, in percent."""
    if board.ended is not None and not board.stopped:
        return 100.0
    behind = board.done_pixels + board.failed_pixels
    return 100 * behind / max(1.0, behind + board.pace.left)


def _worker_row(board: RunBoard, name: str, table: Mapping[str, Any] | None) -> WorkerRow:
    known, said = board.workers.by_name.get(name), table or {}
    doing = [
        (scene, tile, STATE_COLOURS.get(phase, "#bbb"), seconds)
        for scene, tile, phase, seconds in islice(said.get("tiles", ()), 4)
    ]
    now = float(said.get("memory", 0))
    peak = max(now, known.peak_mb * 1e6 if known else 0.0)
    tiles, failed = (known.tiles, known.failed) if known else (0, 0)
    return WorkerRow(name, tiles, failed, table is not None, doing, now, peak, max(float(said.get("limit", 0)), peak))
