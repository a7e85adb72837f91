"""What is known of one worker process: for the timeline and the table of workers of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Stretch(NamedTuple):
    """A tile in the timeline of a worker."""

    worker: str
    slot: int
    """Which of the tiles that the worker has at the same time, from 0."""
    began: float
    wall: float
    seconds: dict[str, float]
    """By part of the work."""
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
    seen: float = 0.0
    """When it was last heard of."""
    ends: list[float] = field(default_factory=list)
    """When the last tile of each slot ended."""

    def slot(self, began: float, ended: float) -> int:
        """The slot of a tile; tiles are told in the order in which they end."""
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
