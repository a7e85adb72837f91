"""Status of a run, from its directory alone: its pace, the time left, and whether a driver works on it.

It works while a run goes on, after a crash, and where several drivers share a directory. A finished scene costs one
small file, only unfinished scenes have their ledger read, and of the events only the last ones are: with these the
live board is filled, so that status, page and bar give the same pace. A second look reads only what is new.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilesseg.monitoring.live.event_log import LogEnd, read_log_end
from tilesseg.monitoring.live.run_board import RunBoard, StoredScene
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.reporting.results import OVER, Report, SceneReport, report_of
from tilesseg.reporting.status_cache import CachedRun, modified
from tilesseg.store.driver_record import drivers, left_behind
from tilesseg.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan


QUIET = 60.0
"""Seconds without an event after which a run counts as stopped; three times the longest tile, where that is more."""


@dataclass(frozen=True, slots=True)
class SceneProgress:
    """Progress of a scene."""

    scene: str
    state: str
    tiles: int
    done: int
    failed: int
    skipped: int
    """Number of stored tiles in which nothing was predicted."""
    pixels: int | None
    """Pixels of the scene; None before it is planned."""
    left: int | None
    """Pixels of the tiles that are still to be tried; None before the scene is planned."""
    rate: float
    """Mpx/s in the window of the job's rate."""
    eta: float | None
    """Seconds left at that rate."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job."""

    scenes: tuple[SceneProgress, ...]
    states: Mapping[str, int]
    """Number of scenes by state."""
    tiles: int
    done: int
    failed: int
    skipped: int
    pixels: int
    """Pixels of planned scenes whose tiles were tried."""
    left: int
    """Pixels still to be tried; scenes that are not planned yet are estimated by the mean of the others."""
    about: bool
    """Whether scenes are not planned yet, so that `left`, `eta` and the number of tiles are estimates."""
    rate: float
    """Mpx/s over the last `window` seconds."""
    window: float
    eta: float | None
    """Seconds left at that rate; None where there is no rate."""
    running: bool
    age: float | None
    """Seconds since the last event."""
    workers: int
    """Number of worker processes that finished a tile in the window."""
    seconds: Mapping[str, float]
    """Seconds of all tiles by part, see `events.PARTS`."""
    reduced: int = 0
    """Number of tiles with smaller batches than planned, for lack of device memory."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Status:
    """Results of a run so far, and its progress."""

    report: Report
    progress: Progress

    def to_json(self) -> dict[str, Any]:
        """Fields of the report, and `progress`."""
        return {**self.report.to_json(), "progress": self.progress.to_json()}


class Watch:
    """Watcher of a run, for one status or many; files that cannot change any more are read once."""

    def __init__(self, run: RunDirectory, plan: Plan, names: Sequence[str]) -> None:
        self.run, self._plan, self._names = CachedRun(run.path), plan, tuple(names)
        self._complete: dict[str, SceneReport] = {}
        self._areas: dict[str, int] = {}

    def look(self, now: float | None = None) -> Status:
        """Status at the time `now`, in seconds since 1970.

        Raises:
            StoreError: a file of the run is damaged.
        """
        now = time.time() if now is None else now
        log, working = read_log_end(self.run.path / "events.jsonl"), drivers(self.run.path)
        newest = max(log.when, modified(self.run.path / "driver.json"))
        quiet = log.kind == "run_finished" or now - newest >= max(QUIET, 3 * log.recent.longest)
        running = bool(working) or (not quiet and left_behind(self.run.path))
        alone = next((driver.started for driver in working if driver.shard is None), None)
        report, age = self._report(), round(max(0.0, now - newest), 1) if newest else None
        at = max(now, log.when) if running else newest  # the clock of the driver may be ahead
        return Status(report, self._progress(report, log, at, retried_since=alone, running=running, age=age))

    def _report(self) -> Report:
        present = self.run.scene_folders()
        names = [name for name in self._names if name in present and name not in self._complete]
        read = {scene.scene: scene for scene in report_of(self.run, self._plan, names=names).scenes}
        over = {name: scene for name, scene in read.items() if scene.state in OVER and self.run.over(name)}
        self._complete.update(over)
        scenes = (read.get(name) or self._complete.get(name) or _waiting(name) for name in self._names)
        return Report(str(self.run.path), tuple(scenes), name=str(self._plan.spec.name))

    def _progress(
        self, report: Report, log: LogEnd, now: float, *, retried_since: float | None, running: bool, age: float | None
    ) -> Progress:
        stored = {
            scene.scene: self._stored(scene, retried_since)
            for scene in report.scenes
            if scene.state not in ("waiting", "refused")
        }
        waiting = sum(scene.state == "waiting" for scene in report.scenes)
        board = RunBoard.replay(str(self.run.path), recent=log.recent, scenes=stored.values(), waiting=waiting)
        board.tick(now)
        pace = board.pace
        pixels = Counter[str]()
        for tile in pace.tiles:
            pixels[tile.scene] += tile.pixels
        scenes = tuple(
            _scene(scene, stored.get(scene.scene), pixels[scene.scene] / 1e6 / pace.window) for scene in report.scenes
        )
        return Progress(
            scenes=scenes,
            states=dict(Counter(scene.state for scene in scenes)),
            tiles=board.tiles,
            done=board.done,
            failed=board.failed,
            skipped=board.skipped,
            pixels=sum(scene.area - scene.left for scene in stored.values()),
            left=round(pace.left),
            about=waiting > 0,
            rate=round(pace.rate, 4),
            window=round(pace.window, 1),
            eta=None if pace.eta is None else round(pace.eta, 1),
            running=running,
            age=age,
            workers=len({tile.worker for tile in pace.tiles}),
            seconds={part: round(value, 3) for part, value in sorted(_sum(report).items())},
            reduced=sum(scene.reduced for scene in report.scenes),
        )

    def _stored(self, scene: SceneReport, retried_since: float | None) -> StoredScene:
        """A planned scene for the board; the failed tiles of an earlier execution are still to be tried.

        Args:
            scene: results of the scene so far.
            retried_since: start of the driver that has the whole run in hand; None where there is none.
        """
        tried = sum(scene.pixels.values())
        area = self._area(scene, tried)
        if scene.failed and retried_since is not None:
            tried -= self.run.scene(scene.scene).failed_pixels(before=retried_since)
        left = max(0, area - tried)
        return StoredScene(scene.tiles, scene.done, len(scene.failed), scene.skipped, area, left)

    def _area(self, scene: SceneReport, tried: int) -> int:
        """Pixels of a scene; with no tile left, those tried."""
        if not scene.missing:
            return tried
        if scene.scene not in self._areas:
            planned = stored_scene_plan(self.run.scene(scene.scene))
            self._areas[scene.scene] = planned.grid.window.area if planned else tried
        return self._areas[scene.scene]


def _scene(report: SceneReport, stored: StoredScene | None, rate: float) -> SceneProgress:
    counts = (report.tiles, report.done, len(report.failed), report.skipped)
    if stored is None:
        return SceneProgress(report.scene, report.state, *counts, None, None, round(rate, 4), None)
    eta = round(stored.left / 1e6 / rate, 1) if stored.left and rate else None if stored.left else 0.0
    eta = eta if report.state == "unfinished" or stored.left else None
    return SceneProgress(report.scene, report.state, *counts, stored.area, stored.left, round(rate, 4), eta)


def _waiting(name: str) -> SceneReport:
    return SceneReport(name, 0, 0, {}, {}, {}, {}, planned=False)


def _sum(report: Report) -> Counter[str]:
    total: Counter[str] = Counter()
    for scene in report.scenes:
        total.update(scene.seconds)
    return total
