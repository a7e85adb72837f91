"""The state of a running job as a dashboard shows it: made of events alone, in bounded memory.

Pure values: no Dask, no drawing. The scheduler holds one `Board` for each run directory; the page, the JSON and the
Prometheus metrics read it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from tilesseg.events import (
    PARTS,
    Event,
    Note,
    ProductWritten,
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
from tilesseg.monitoring.live.event_rates import Rates
from tilesseg.monitoring.live.scene_board import LETTERS, REASON, STATES, SceneBoard, too_many
from tilesseg.monitoring.live.worker_board import Stretch, WorkerBoard

FORGET_EVERY = 10
"""Ends of scenes after which those that are too many are let go."""
STRETCHES, FAILURES, NOTES, WORKERS = 2000, 500, 50, 2000
SILENCE = 30.0
"""Seconds without a word of the driver after which that is said."""
LISTED = 200
"""Scenes, and failures, that JSON lists."""

Busy = dict[tuple[str, str], str]
"""What workers say they do now: scene and tile → reading, predicting, writing."""


class Failure(NamedTuple):
    """Something that went wrong: a tile, a region, a scene, or a product."""

    when: float
    scene: str
    what: str
    reason: str
    worker: str


class Board:
    """One run, from its events."""

    def __init__(self, run: str = "") -> None:
        self.run, self.job, self.classes = run, "", ()  # type: tuple[str, str, tuple[str, ...]]
        self.began = self.now = 0.0
        self.ended: float | None = None
        self.heard = 0.0
        """When the driver last said anything, if only that it is there."""
        self.stopped = False
        self.version = 0
        """Grows with everything that is told, so that a page knows whether to draw."""
        self.scenes: dict[str, SceneBoard] = {}
        """Those in detail: running, and the last that ended."""
        self.asked = self.found = self.planned = self.complete = self.broken = self.refused = 0
        self.tiles = self.done = self.failed = self.skipped = self.retried = 0
        self.pixels = self.done_pixels = self.failed_pixels = self.products = 0
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.rates = Rates(0.0)
        self.workers: dict[str, WorkerBoard] = {}
        self.names: list[str] = []
        """Of all workers ever seen, by number."""
        self.timeline: deque[Stretch] = deque(maxlen=STRETCHES)
        self.told = 0
        """Number of stretches ever added to the timeline."""
        self.failures: deque[Failure] = deque(maxlen=FAILURES)
        self.failure_count = 0
        self.notes: deque[str] = deque(maxlen=NOTES)
        self._work = [0.0, 0]
        self._wall = [0.0, 0]

    def take(self, event: Event, when: float) -> None:
        """Take what happened, at `when` in seconds since 1970."""
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
            case ProductWritten():
                self.products += 1
            case Note():
                self.notes.append(event.text)
            case RunFinished():
                self.ended = when

    def tick(self, now: float) -> None:
        """Time goes on, also where nothing happens."""
        self.now = max(self.now, now) if self.ended is None else self.now

    def leave(self, when: float) -> None:
        """The driver goes, whether the run has finished or not."""
        if self.ended is None:
            self.ended, self.stopped, self.version = when, True, self.version + 1

    def show(self, scene: str, picture: str) -> None:
        """Have an image of a scene, as a data URL."""
        if scene in self.scenes:
            self.scenes[scene].picture, self.version = picture, self.version + 1

    def find_done(self, scene: str, tiles: list[str]) -> None:
        """Know which tiles of a scene an earlier run has stored."""
        if scene in self.scenes:
            self.scenes[scene].take_found(tiles)
            self.version += 1

    @property
    def rate(self) -> float:
        """Mpx/s: of late while it runs, all in all at its end."""
        if self.ended is not None:
            return self.done_pixels / 1e6 / max(1e-9, self.ended - self.began)
        return self.rates.recent(self.now, over=self.window)

    @property
    def window(self) -> float:
        """Seconds that a rate is taken over: several tiles' worth."""
        return max(10.0, 3 * self._wall[0] / max(1, self._wall[1]))

    @property
    def left(self) -> float:
        """Pixels left, those of scenes that are not planned yet guessed from those that are."""
        unplanned = max(0, self.asked - self.found - self.planned - self.refused)
        known = max(0, self.pixels - self.done_pixels - self.failed_pixels)
        return known + unplanned * self.pixels / max(1, self.planned)

    @property
    def eta(self) -> float | None:
        """Seconds left at the rate of late; None while nothing is known, 0 at the end."""
        if self.ended is not None:
            return 0.0
        rate = self.rate
        return self.left / 1e6 / rate if rate > 0 and self.planned else None

    @property
    def work_factor(self) -> float:
        """Predicted ÷ scene pixels, over the scenes planned so far."""
        return self._work[0] / self._work[1] if self._work[1] else 0.0

    @property
    def state(self) -> str:
        if not self.began:
            return "starting"
        if self.ended is None:
            return "running" if self.now - self.heard < SILENCE or not self.heard else "silent"
        if self.stopped:
            return "stopped"
        return "finished with failures" if self.failure_count else "finished"

    def scene_counts(self) -> dict[str, int]:
        """Scenes by state; `waiting` are those that are not planned yet."""
        ended = self.complete + self.broken
        running = max(0, self.planned - ended)
        waiting = max(0, self.asked - self.found - self.planned - self.refused)
        return {
            "waiting": waiting,
            "running": running,
            "complete": self.complete + self.found,
            "failed": self.broken,
            "refused": self.refused,
        }

    def to_json(self, scene: str | None = None, *, busy: Busy | None = None) -> dict[str, Any]:
        """Everything, the lists cut; with `scene`, also the map of its tiles as text."""
        eta, chosen = self.eta, self.scenes.get(scene or "")
        ends, rates = self.rates.series(self.now, over=self.window)
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
            "mpx_per_second": round(self.rate, 4),
            "eta_seconds": None if eta is None else round(eta, 1),
            "work_factor": round(self.work_factor, 4),
            "seconds": {part: round(spent, 3) for part, spent in self.seconds.items()},
            "history": [[round(float(at), 1), round(float(r), 4)] for at, r in zip(ends, rates, strict=True)],
            "workers": {name: worker.to_json() for name, worker in islice(self.workers.items(), LISTED)},
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

    def _start(self, event: RunStarted, when: float) -> None:
        self.job, self.classes = event.job, event.classes
        self.began, self.rates = when, Rates(when)
        self.asked, self.found = event.scenes, event.finished

    def _plan(self, event: ScenePlanned, when: float) -> None:
        self.scenes[event.scene] = SceneBoard(event, when=when)
        self.planned += 1
        self.tiles, self.done = self.tiles + event.tiles + event.done, self.done + event.done
        self.pixels += event.pixels
        area = event.shape[0] * event.shape[1]
        self._work = [self._work[0] + event.work_factor * area, self._work[1] + area]

    def _done(self, event: TileDone, when: float) -> None:
        worker = self._worker(event.worker)
        wall = event.wall or sum(event.seconds.values())
        self.done, self.done_pixels = self.done + 1, self.done_pixels + event.pixels
        self.skipped, self.retried = self.skipped + (event.patches == 0), self.retried + (event.attempts > 1)
        for part, spent in event.seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
        self._wall = [self._wall[0] + wall, self._wall[1] + 1]
        self.rates.add(when, event.pixels / 1e6)
        worker.tiles, worker.busy, worker.seen = worker.tiles + 1, worker.busy + wall, when
        worker.peak_mb = max(worker.peak_mb, event.peak_mb)
        began = event.started or when - wall
        slot = worker.slot(began, began + wall)
        self.timeline.append(Stretch(event.worker, slot, began, wall, dict(event.seconds), event.scene, event.tile))
        self.told += 1
        if event.scene in self.scenes:
            self.scenes[event.scene].take_done(event, worker.number)

    def _fail(self, event: TileFailed, when: float) -> None:
        self.failed, self.failed_pixels = self.failed + 1, self.failed_pixels + event.pixels
        number = -1
        if event.worker:
            worker = self._worker(event.worker)
            worker.failed, number = worker.failed + 1, worker.number
        self._blame(when, event.scene, event.tile, event.reason, event.worker)
        if event.scene in self.scenes:
            self.scenes[event.scene].take_failed(event, number)

    def _copy(self, event: RegionStaged | RegionFailed, when: float) -> None:
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

    def _worker(self, name: str) -> WorkerBoard:
        """The one of a name; the least recently seen of very many is forgotten."""
        found = self.workers.pop(name, None)
        if found is None:
            found = WorkerBoard(len(self.names))
            self.names.append(name)
            if len(self.workers) >= WORKERS:
                del self.workers[next(iter(self.workers))]
        self.workers[name] = found
        return found
