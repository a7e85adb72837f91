"""The account of a run, in bounded memory: made of its events, or of what its directory holds.

The bar, the page, the JSON, the Prometheus metrics and `status` all read a `RunBoard`. No Dask, no drawing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from tilesseg.events import (
    PARTS,
    Event,
    Note,
    RegionFailed,
    RegionStaged,
    RunFinished,
    RunStarted,
    SceneFinished,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.monitoring.live.scene_board import LETTERS, REASON, STATES, SceneBoard, too_many
from tilesseg.monitoring.live.worker_board import Workers
from tilesseg.monitoring.pace import EndedTile, Pace, RateHistory, RecentTiles

FORGET_EVERY = 10
"""Number of scenes that end before those that are too many are forgotten."""
FAILURES, NOTES = 500, 50
SILENCE = 30.0
"""Seconds without a message of the driver after which the page says so."""
LISTED = 200
"""Number of scenes, of workers and of failures in the JSON, at most."""

Busy = dict[tuple[str, str], str]
"""Phase of each tile that a worker has in hand, by scene and tile: reading, predicting, writing."""


class Failure(NamedTuple):
    """Failure of a tile, a region, a scene, or a product."""

    when: float
    scene: str
    what: str
    reason: str
    worker: str


class StoredScene(NamedTuple):
    """A planned scene by what its folder says, in place of its events."""

    tiles: int
    done: int
    failed: int
    skipped: int
    area: int
    """Pixels of the scene."""
    left: int
    """Pixels of the tiles that are still to be tried."""


class RunBoard:
    """One run, from its events."""

    def __init__(self, run: str = "") -> None:
        self.run, self.job = run, ""
        self.began = self.now = 0.0
        self.ended: float | None = None
        self.last_message = 0.0
        """Time of the driver's last message, in seconds since 1970; 0 before the first."""
        self.stopped = False
        self.version = 0
        """Number that grows with every event, so that a page knows whether to draw."""
        self.scenes: dict[str, SceneBoard] = {}
        """Scenes in detail: those that run, and the last that ended."""
        self.total = self.finished_before = self.planned = self.complete = self.broken = self.refused = 0
        self.tiles = self.done = self.failed = self.skipped = self.retried = 0
        self.regions = self.copied = 0
        self.pixels = self.done_pixels = self.failed_pixels = 0
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.recent, self.history = RecentTiles(), RateHistory(0.0)
        self.workers = Workers()
        self.failures: deque[Failure] = deque(maxlen=FAILURES)
        self.failure_count = 0
        self.notes: deque[str] = deque(maxlen=NOTES)
        self._work = [0.0, 0]
        self._areas = [0, 0]
        """Pixels of the scenes whose size is known, and their number."""

    @classmethod
    def replay(cls, run: str, *, recent: RecentTiles, scenes: Iterable[StoredScene], waiting: int) -> RunBoard:
        """Account of a run after the fact, or from another process: no tile's event is read but the last ones.

        Args:
            run: path of the run directory.
            recent: tiles that ended last.
            scenes: planned scenes.
            waiting: number of scenes that are not planned yet.
        """
        board = cls(run)
        board.recent, board.began = recent, recent.began
        for scene in scenes:
            board.planned += 1
            board.tiles, board.done = board.tiles + scene.tiles, board.done + scene.done
            board.failed, board.skipped = board.failed + scene.failed, board.skipped + scene.skipped
            board.pixels += scene.left
            board._areas = [board._areas[0] + scene.area, board._areas[1] + 1]
        board.total = board.planned + waiting
        return board

    def take(self, event: Event, when: float) -> None:
        """Take an event that happened at `when`, in seconds since 1970."""
        self.version += 1
        self.tick(when)
        match event:
            case RunStarted():
                self._start(event, when)
            case ScenePlanned():
                self._plan(event, when)
            case TileDone():
                self._done(event, when)
            case TileFailed():
                self._fail(event, when)
            case RegionStaged() | RegionFailed():
                self._copy(event, when)
            case SceneRefused():
                self.refused += 1
                self._blame(when, event.scene, "scene refused", event.reason)
            case SceneFinished():
                self._finish(event, when)
            case Note():
                self.notes.append(event.text)
            case RunFinished():
                self.ended = when

    def tick(self, now: float) -> None:
        """Let time go on, also where nothing happens."""
        self.now = max(self.now, now) if self.ended is None else self.now

    def leave(self, when: float) -> None:
        """End the run at `when`, finished or not: its driver is gone."""
        if self.ended is None:
            self.ended, self.stopped, self.version = when, True, self.version + 1

    def show(self, scene: str, picture: str) -> None:
        """Keep the image of a scene, as a data URL."""
        if scene in self.scenes:
            self.scenes[scene].picture, self.version = picture, self.version + 1

    def mark_done_before(self, scene: str, tiles: list[str]) -> None:
        """Mark the tiles of a scene that an earlier run has stored."""
        if scene in self.scenes:
            self.scenes[scene].mark_done_before(tiles)
            self.version += 1

    @property
    def waiting(self) -> int:
        """Number of scenes that are not planned yet."""
        return max(0, self.total - self.finished_before - self.planned - self.refused)

    @property
    def all_tried(self) -> bool:
        """Whether nothing is left to copy or to segment."""
        return self.done + self.failed == self.tiles and self.copied == self.regions and not self.waiting

    @property
    def pace(self) -> Pace:
        """Rate and time left; at its end, those at the end."""
        return self.recent.pace(self.now if self.ended is None else self.ended, left=self._left())

    @property
    def mean_rate(self) -> float:
        """Mpx/s since the start."""
        return self.done_pixels / 1e6 / max(1e-9, (self.ended or self.now) - self.began)

    @property
    def work_factor(self) -> float:
        """Predicted ÷ scene pixels, over the scenes planned so far."""
        return self._work[0] / self._work[1] if self._work[1] else 0.0

    @property
    def state(self) -> str:
        if not self.began:
            return "starting"
        if self.ended is None:
            return "running" if self.now - self.last_message < SILENCE or not self.last_message else "silent"
        if self.stopped:
            return "stopped"
        return "finished with failures" if self.failure_count else "finished"

    def scene_counts(self) -> dict[str, int]:
        """Number of scenes by state; `waiting` are those that are not planned yet."""
        return {
            "waiting": self.waiting,
            "running": max(0, self.planned - self.complete - self.broken),
            "complete": self.complete + self.finished_before,
            "failed": self.broken,
            "refused": self.refused,
        }

    def to_json(self, scene: str | None = None, *, busy: Busy | None = None) -> dict[str, Any]:
        """All figures, the lists cut; with `scene`, also the map of its tiles as text."""
        pace, chosen = self.pace, self.scenes.get(scene or "")
        eta = 0.0 if self.ended is not None else pace.eta
        ends, rates = self.history.series(self.now, over=pace.window)
        data = {
            "job": self.job,
            "run": self.run,
            "state": self.state,
            "elapsed": round((self.ended or self.now) - self.began, 2),
            "scenes": self.scene_counts(),
            "tiles": {
                "planned": self.tiles,
                "done": self.done,
                "failed": self.failed,
                "skipped": self.skipped,
                "retried": self.retried,
            },
            "pixels": {"planned": self.pixels, "done": self.done_pixels},
            "mpx_per_second": round(pace.rate, 4),
            "eta_seconds": None if eta is None else round(eta, 1),
            "work_factor": round(self.work_factor, 4),
            "seconds": {part: round(spent, 3) for part, spent in self.seconds.items()},
            "history": [[round(float(at), 1), round(float(r), 4)] for at, r in zip(ends, rates, strict=True)],
            "workers": {name: worker.to_json() for name, worker in islice(self.workers.by_name.items(), LISTED)},
            "listed": [each.to_json() for each in islice(self.in_order(), LISTED)],
            "failures": [failure._asdict() for failure in islice(reversed(self.failures), LISTED)],
            "failure_count": self.failure_count,
            "notes": list(self.notes),
        }
        if chosen is not None:
            lines = chosen.lines({tile: phase for (name, tile), phase in (busy or {}).items() if name == chosen.name})
            data["map"] = {**chosen.to_json(), "lines": lines, "letters": dict(zip(LETTERS, STATES, strict=True))}
        return data

    def in_order(self) -> list[SceneBoard]:
        """Scenes in detail: those that run, those with something wrong, then the others, the latest first."""
        order = {"running": 0, "complete": 2}
        return sorted(self.scenes.values(), key=lambda scene: (order.get(scene.state, 1), -scene.ended, scene.began))

    def _left(self) -> float | None:
        """Pixels left, scenes that are not planned yet estimated by the mean of the others; None without others."""
        known = max(0, self.pixels - self.done_pixels - self.failed_pixels)
        area, count = self._areas
        if self.waiting and not count:
            return None
        return known + self.waiting * area / max(1, count)

    def _start(self, event: RunStarted, when: float) -> None:
        self.job = event.job
        self.began, self.recent, self.history = when, RecentTiles(when), RateHistory(when)
        self.total, self.finished_before = event.scenes, event.finished
        if event.finished_pixels:
            self._areas = [event.finished_pixels, event.finished]

    def _plan(self, event: ScenePlanned, when: float) -> None:
        self.scenes[event.scene] = SceneBoard(event, when=when)
        self.planned += 1
        self.tiles, self.done = self.tiles + event.tiles + event.done, self.done + event.done
        self.pixels, self.regions = self.pixels + event.pixels, self.regions + event.regions
        area = event.shape[0] * event.shape[1] or event.pixels
        self._work = [self._work[0] + event.work_factor * area, self._work[1] + area]
        self._areas = [self._areas[0] + area, self._areas[1] + 1]

    def _done(self, event: TileDone, when: float) -> None:
        wall = event.wall or sum(event.seconds.values())
        self.done, self.done_pixels = self.done + 1, self.done_pixels + event.pixels
        self.skipped, self.retried = self.skipped + (event.patches == 0), self.retried + (event.attempts > 1)
        for part, spent in event.seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
        self.recent.add(EndedTile(when, event.pixels, wall, event.scene, event.worker))
        self.history.add(when, event.pixels / 1e6)
        if event.damage:
            self._blame(when, event.scene, event.tile, f"done with damage: {event.damage}", event.worker)
        number = self.workers.take_done(event, wall=wall, when=when)
        if event.scene in self.scenes:
            self.scenes[event.scene].take_done(event, number)

    def _fail(self, event: TileFailed, when: float) -> None:
        self.failed, self.failed_pixels = self.failed + 1, self.failed_pixels + event.pixels
        number = self.workers.take_failed(event.worker)
        self._blame(when, event.scene, event.tile, event.reason, event.worker)
        if event.scene in self.scenes:
            self.scenes[event.scene].take_failed(event, number)

    def _copy(self, event: RegionStaged | RegionFailed, when: float) -> None:
        self.copied += 1
        if isinstance(event, RegionFailed):
            self._blame(when, event.scene, f"copy of {event.region}", event.reason, event.worker)
        if event.scene in self.scenes:
            self.scenes[event.scene].copied += 1

    def _finish(self, event: SceneFinished, when: float) -> None:
        whole = event.state == "complete"
        self.complete, self.broken = self.complete + whole, self.broken + (not whole)
        if event.problem:
            self._blame(when, event.scene, "products", event.problem)
        if (scene := self.scenes.get(event.scene)) is not None:
            scene.state, scene.ended, scene.problem = event.state, when, event.problem
        if (self.complete + self.broken) % FORGET_EVERY == 0:
            for name in too_many(self.scenes.values()):
                del self.scenes[name]

    def _blame(self, when: float, scene: str, what: str, reason: str, worker: str = "") -> None:
        self.failures.append(Failure(when, scene, what, reason[:REASON], worker))
        self.failure_count += 1
