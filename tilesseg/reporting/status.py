"""Status: how fast a run is, how long it will take, and whether anybody works on it; from its directory alone.

It works while a run goes on, after a crash, and where several drivers share a directory. A finished scene costs one
small file, and only unfinished ones have their ledger read; who looks again reads only what is new.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilesseg.events import TileDone
from tilesseg.planning.plan_scene import stored_plan
from tilesseg.reporting.results import Report, SceneReport, report_of
from tilesseg.reporting.status_cache import RememberedRun, Signs, ended
from tilesseg.store.driver_record import drivers, left_behind
from tilesseg.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan


WINDOWS = (120.0, 480.0, 1920.0, 7680.0)
"""Seconds over which the rate is taken: the first in which enough tiles ended."""
ENOUGH = 8
QUIET = 60.0
"""Seconds without any sign after which nobody is thought to work, unless tiles take longer than a third of it."""


@dataclass(frozen=True, slots=True)
class SceneProgress:
    """How far a scene is."""

    scene: str
    state: str
    tiles: int
    done: int
    failed: int
    skipped: int
    """Tiles done in which nothing was predicted."""
    pixels: int | None
    """Of the scene; None before it is planned."""
    left: int | None
    """Pixels whose tiles nobody has tried yet."""
    rate: float
    """Mpx/s of late."""
    eta: float | None
    """Seconds left at that rate."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    scenes: tuple[SceneProgress, ...]
    states: Mapping[str, int]
    """Scenes by state."""
    tiles: int
    done: int
    failed: int
    skipped: int
    pixels: int
    """Pixels of planned scenes whose tiles were tried."""
    left: int
    """Pixels to do, scenes not planned yet estimated by the mean of the planned ones."""
    about: bool
    """Whether there are scenes not planned yet, so that `left`, `eta` and the number of tiles are estimates."""
    rate: float
    """Mpx/s over the last `window` seconds."""
    window: float
    eta: float | None
    """Seconds left at that rate; None where there is no rate."""
    running: bool
    age: float | None
    """Seconds since the last sign of life."""
    workers: int
    """Worker processes that finished a tile in the window."""
    seconds: Mapping[str, float]
    """Seconds of all tiles by part, see `events.PARTS`."""
    reduced: int = 0
    """Tiles with smaller batches than planned, for want of device memory."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Status:
    """What a run came to so far, and how it goes on."""

    report: Report
    progress: Progress

    def to_json(self) -> dict[str, Any]:
        """The report's fields, and `progress`."""
        return {**self.report.to_json(), "progress": self.progress.to_json()}


class Watch:
    """Looks at a run, once or again and again; what cannot change any more is read once."""

    def __init__(self, run: RunDirectory, plan: Plan, names: Sequence[str]) -> None:
        self.run, self._plan, self._names = RememberedRun(run.path), plan, tuple(names)
        self._complete: dict[str, SceneReport] = {}
        self._shapes: dict[str, int] = {}

    def look(self, now: float | None = None) -> Status:
        """How things stand `now`, in seconds since 1970.

        Raises:
            StoreError: a file of the run is damaged.
        """
        now = time.time() if now is None else now
        report, signs = self._report(), Signs.of(self.run.path)
        last_tile, longest = self.run.latest()
        newest = max(signs.newest, last_tile if last_tile < now + QUIET else 0.0)  # some worker's clock is wrong
        over = signs.finished and last_tile <= signs.newest + 1
        recent_sign = not over and now - newest < max(QUIET, 3 * longest)
        running = bool(drivers(self.run.path)) or (recent_sign and left_behind(self.run.path))
        recent, window = self._recent(report, now if running else newest)
        age = round(max(0.0, now - newest), 1) if newest else None
        return Status(report, self._progress(report, recent, window, running=running, age=age))

    def _report(self) -> Report:
        there = self.run.scenes_there()
        asked = [name for name in self._names if name in there and name not in self._complete]
        found = {scene.scene: scene for scene in report_of(self.run, self._plan, names=asked).scenes}
        over = {name: one for name, one in found.items() if one.state == "complete" and self.run.over(name)}
        self._complete.update(over)
        scenes = (found.get(name) or self._complete.get(name) or _waiting(name) for name in self._names)
        return Report(str(self.run.path), tuple(scenes), name=str(self._plan.spec.name))

    def _recent(self, report: Report, now: float) -> tuple[list[TileDone], float]:
        """Records of the tiles that ended of late, and how many seconds that is."""
        found: list[TileDone] = []
        for window in WINDOWS:
            since = now - window
            names = [one.scene for one in report.scenes if one.done and self.run.touched(one.scene, since, one.state)]
            found = [one for name in names for one in self.run.scene(name).done().values()]
            found = [one for one in found if since < ended(one) <= now + QUIET]
            if len(found) >= ENOUGH:
                break
        begun = min((one.started for one in found if one.started), default=now - window)
        return found, max(1e-3, min(window, now - begun))

    def _progress(
        self, report: Report, recent: list[TileDone], window: float, *, running: bool, age: float | None
    ) -> Progress:
        speed = Counter[str]()
        for one in recent:
            speed[one.scene] += one.pixels
        scenes = tuple(self._scene(one, speed[one.scene] / 1e6 / window) for one in report.scenes)
        known = [one for one in scenes if one.pixels is not None]
        unplanned = sum(one.state == "waiting" for one in scenes)
        mean = sum(one.pixels or 0 for one in known) / len(known) if known else 0.0
        left = sum(one.left or 0 for one in known) + round(unplanned * mean)
        rate = sum(speed.values()) / 1e6 / window
        return Progress(
            scenes=scenes,
            states=dict(Counter(one.state for one in scenes)),
            tiles=sum(one.tiles for one in scenes),
            done=sum(one.done for one in scenes),
            failed=sum(one.failed for one in scenes),
            skipped=sum(one.skipped for one in scenes),
            pixels=sum((one.pixels or 0) - (one.left or 0) for one in known),
            left=left,
            about=unplanned > 0,
            rate=round(rate, 4),
            window=round(window, 1),
            eta=_eta(left, rate, known=bool(known) or not unplanned),
            running=running,
            age=age,
            workers=len({one.worker for one in recent}),
            seconds={part: round(value, 3) for part, value in sorted(_sum(report).items())},
            reduced=sum(one.reduced for one in report.scenes),
        )

    def _scene(self, scene: SceneReport, rate: float) -> SceneProgress:
        tried = sum(scene.pixels.values())
        whole = self._whole(scene, tried)
        left = None if whole is None else max(0, whole - tried) if scene.state == "unfinished" else 0
        eta = _eta(left, rate) if left is not None and scene.state == "unfinished" else None
        counts = (scene.tiles, scene.done, len(scene.failed), scene.skipped)
        return SceneProgress(scene.scene, scene.state, *counts, whole, left, round(rate, 4), eta)

    def _whole(self, scene: SceneReport, tried: int) -> int | None:
        """Pixels of a scene; where nothing is left, those tried."""
        if scene.state in ("waiting", "refused"):
            return None
        if not scene.missing:
            return tried
        if scene.scene not in self._shapes:
            planned = stored_plan(self.run.scene(scene.scene))
            self._shapes[scene.scene] = planned.grid.window.area if planned else tried
        return self._shapes[scene.scene]


def _waiting(name: str) -> SceneReport:
    return SceneReport(name, 0, 0, {}, {}, {}, {}, planned=False)


def _eta(left: int, rate: float, *, known: bool = True) -> float | None:
    if not left and known:
        return 0.0
    return round(left / 1e6 / rate, 1) if rate > 0 and known else None


def _sum(report: Report) -> Counter[str]:
    total: Counter[str] = Counter()
    for scene in report.scenes:
        total.update(scene.seconds)
    return total
