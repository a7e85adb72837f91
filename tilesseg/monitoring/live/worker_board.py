"""Worker processes of a run: a row of figures for each of them, and the timeline of their tiles."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tilesseg.events import TileDone

WORKERS, STRETCHES = 2000, 2000
"""Numbers of workers, and of tiles in the timeline, that are kept at most."""


class Stretch(NamedTuple):
    """A tile in the timeline of a worker."""

    worker: str
    slot: int
    """Number of the slot, from 0, among the tiles that the worker has at the same time."""
    began: float
    wall: float
    seconds: dict[str, float]
    """Seconds by part of the work."""
    scene: str
    tile: str


@dataclass(slots=True)
class WorkerBoard:
    """One worker process."""

    number: int
    tiles: int = 0
    failed: int = 0
    busy: float = 0.0
    """Seconds that its tiles took, all together."""
    peak_mb: float = 0.0
    ends: list[float] = field(default_factory=list)
    """End of the last tile of each slot, in seconds since 1970."""

    def slot(self, began: float, ended: float) -> int:
        """Slot of a tile; tiles come in the order in which they end."""
        free = [k for k, last in enumerate(self.ends) if last <= began + 1e-3]
        if not free:
            self.ends.append(ended)
            return len(self.ends) - 1
        best = max(free, key=self.ends.__getitem__)
        self.ends[best] = ended
        return best

    def to_json(self) -> dict[str, Any]:
        return {
            "tiles": self.tiles,
            "failed": self.failed,
            "busy_seconds": round(self.busy, 2),
            "peak_mb": round(self.peak_mb, 1),
        }


class Workers:
    """Workers of a run by name, the latest last; the first of very many are forgotten."""

    def __init__(self) -> None:
        self.by_name: dict[str, WorkerBoard] = {}
        self.names: list[str] = []
        """Names of all workers that the run has had, by number."""
        self.timeline: deque[Stretch] = deque(maxlen=STRETCHES)
        self.stretch_count = 0
        """Number of stretches that the timeline has had."""

    def take_done(self, event: TileDone, *, wall: float, when: float) -> int:
        """Count a stored tile, which took `wall` seconds until `when`; returns the number of its worker."""
        worker = self._named(event.worker)
        worker.tiles, worker.busy = worker.tiles + 1, worker.busy + wall
        worker.peak_mb = max(worker.peak_mb, event.peak_mb)
        began = event.started or when - wall
        slot = worker.slot(began, began + wall)
        self.timeline.append(Stretch(event.worker, slot, began, wall, dict(event.seconds), event.scene, event.tile))
        self.stretch_count += 1
        return worker.number

    def take_failed(self, name: str) -> int:
        """Count a failed tile; returns the number of its worker, -1 where it has none."""
        if not name:
            return -1
        worker = self._named(name)
        worker.failed += 1
        return worker.number

    def _named(self, name: str) -> WorkerBoard:
        worker = self.by_name.pop(name, None)
        if worker is None:
            worker = WorkerBoard(len(self.names))
            self.names.append(name)
            if len(self.by_name) >= WORKERS:
                del self.by_name[next(iter(self.by_name))]
        self.by_name[name] = worker
        return worker
