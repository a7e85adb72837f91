"""The end of `events.jsonl`: the last event of a run, and the tiles from which its pace follows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tilesseg.monitoring.pace import KEPT, EndedTile, RecentTiles

BLOCK = 1 << 20
"""Bytes that are read from the end of the file at first; four times as many where these do not hold enough tiles."""


class LogEnd(NamedTuple):
    """End of the log of a run."""

    kind: str
    """Kind of the last event; empty where there is none."""
    when: float
    """Time of the last event, in seconds since 1970."""
    recent: RecentTiles
    """Tiles of the latest execution that ended last."""


def read_log_end(path: Path) -> LogEnd:
    """Read as much of a log as a pace needs, however long the log is; a missing one is empty."""
    events = _last_events(path)
    last = events[-1] if events else {}
    began = float(events[0]["time"]) if events and events[0]["event"] == "run_started" else 0.0
    tiles = (_ended_tile(event) for event in events if event["event"] == "tile_done")
    return LogEnd(str(last.get("event", "")), float(last.get("time", 0.0)), RecentTiles(began, tiles))


def _last_events(path: Path) -> list[dict[str, Any]]:
    """Events since the last `run_started`, or as many as hold enough tiles."""
    try:
        size, block = path.stat().st_size, BLOCK
        with path.open("rb") as file:
            while True:
                file.seek(max(0, size - block))
                events, tiles = list[dict[str, Any]](), 0
                for event in _parsed(reversed(file.read(size).splitlines()[block < size :])):
                    events.append(event)
                    tiles += event["event"] == "tile_done"
                    if event["event"] == "run_started" or tiles == KEPT:
                        return events[::-1]
                if block >= size:
                    return events[::-1]
                block *= 4
    except OSError:
        return []


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    """Events of the lines that are whole: a driver that was killed leaves half of its last one."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"event", "time"} <= event.keys():
            yield event


def _ended_tile(event: dict[str, Any]) -> EndedTile:
    seconds = event.get("wall") or sum(event.get("seconds", {}).values())
    return EndedTile(event["time"], event["pixels"], seconds, event["scene"], event.get("worker", ""))
