"""Pace: bar, page and `status` give one rate and one time left, whatever happens in a run."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SmallRun

from tilesseg.events import (
    Event,
    ProductWritten,
    RunFinished,
    RunStarted,
    SceneFinished,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.monitoring.dashboard.boards import Boards
from tilesseg.monitoring.live.event_log import read_log_end
from tilesseg.monitoring.pace import KEPT, SHORTEST, EndedTile, Pace, RateHistory, RecentTiles
from tilesseg.monitoring.terminal import TerminalProgress
from tilesseg.planning.stored_plan import planned_event, stored_scene_plan
from tilesseg.reporting.status import Progress, Watch
from tilesseg.store.driver_record import driver_record

T0 = 1_700_000_000.0
SIDE = 64


@dataclass
class Views:
    """The bar, the page and `status` of one run, which all see the same events at the same times."""

    small: SmallRun
    bar: TerminalProgress = field(default_factory=lambda: TerminalProgress(io.StringIO()))
    page: Boards = field(default_factory=Boards)

    def tell(self, event: Event, when: float) -> None:
        self.small.run.log(event, when)
        self.bar.board.take(event, when)
        self.page.take("run", [("event", when, event)])

    def status(self, now: float) -> Progress:
        return Watch(self.small.run, self.small.plan, self.small.names).look(now).progress

    def agree(self, now: float) -> Pace:
        """Assert that all three say the same at a time; returns what they say."""
        board, found = self.page.by_run["run"], self.status(now)
        for one in (self.bar.board, board):
            one.tick(now)
        pace, data = self.bar.board.pace, board.to_json()
        assert data["mpx_per_second"] == found.rate == round(pace.rate, 4)
        assert data["eta_seconds"] == found.eta == (None if pace.eta is None else round(pace.eta, 1))
        assert (found.left, found.window) == (round(pace.left), round(pace.window, 1))
        counts = (board.done, board.failed, board.skipped)
        if board.finished_before == board.waiting == 0:
            assert counts[:2] == (found.done, found.failed)
        return pace

    def plan(self, scene: str, when: float) -> None:
        self.small.plan_scenes(scene)
        store = self.small.run.scene(scene)
        planned = stored_scene_plan(store)
        assert planned is not None
        self.tell(planned_event(planned, store=store), when)

    def tile(self, scene: str, when: float, *, fail: bool = False, wall: float = 1.0, patches: int = 1) -> None:
        """Do the next tile of a scene."""
        store = self.small.run.scene(scene)
        planned = stored_scene_plan(store)
        assert planned is not None
        tile = next(tile for tile in planned.tiling if tile.name not in store.done_names())
        if fail:
            failed = TileFailed(scene, tile.name, tile.core.area, "ValueError: planted", "node1:7")
            self.tell(store.mark_failed(failed), when)
            os.utime(store.folder / "failed" / f"{tile.name}.json", (when, when))
            return
        counts = {"0": tile.core.area}
        done = TileDone(scene, tile.name, tile.core.area, patches, 0, counts, {}, started=when - wall, wall=wall)
        self.tell(store.mark_done(done), when)


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """Four scenes of 2 × 2 tiles, the last of them narrower."""
    for name, width in zip("abcd", (128, 128, 128, 100), strict=True):
        values = np.random.default_rng(ord(name)).integers(0, 3, (1, 128, width), np.uint8)
        write_scene(tmp_path / f"{name}.tif", values)
    data = job_data(str(tmp_path / "*.tif"), write_bundle(tmp_path / "model"), tmp_path / "run")
    cut = {"core": SIDE, "patch": SIDE, "blend": "gaussian"}
    return Views(SmallRun({**data, "tiling": cut, "input": {"check_range": False}}))


@pytest.fixture
def driver() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(views: Views, driver: ExitStack, when: float, *, finished: int = 0, pixels: int = 0) -> None:
    """Start an execution: its driver is there from then on."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tilesseg.store.driver_record.time.time", lambda: when)
        driver.enter_context(driver_record(views.small.run.path))
    views.tell(RunStarted(scenes=4, finished=finished, finished_pixels=pixels), when)


def test_bar_page_and_status_give_the_same_rate_and_time_left_from_the_first_event_to_the_last(
    views: Views, driver: ExitStack
) -> None:
    begin(views, driver, T0)
    assert views.agree(T0).eta is None  # no scene is planned yet
    views.plan("a", T0 + 1)
    assert views.agree(T0 + 1.5).left == 4 * 4 * SIDE**2
    views.tile("a", T0 + 4)
    assert views.agree(T0 + 4).rate == pytest.approx(SIDE**2 / 1e6 / 4)
    views.tile("a", T0 + 5.125, patches=0)
    views.tile("a", T0 + 6.25, fail=True)
    views.agree(T0 + 6.25)
    views.plan("d", T0 + 7)
    views.agree(T0 + 7)
    views.tell(SceneRefused("b", "too few bands"), T0 + 8)
    views.small.run.scene("b").write_json("refused.json", {"reason": "too few bands"})
    assert views.agree(T0 + 12).left == SIDE**2 + 128 * 100 + (128**2 + 12800) / 2
    views.tile("d", T0 + 30, wall=20.0)
    views.agree(T0 + 31)
    assert views.agree(T0 + 500).eta is None  # nothing has ended for long
    views.plan("c", T0 + 501)
    for number in range(3):
        views.tile("d", T0 + 502 + number)
        views.agree(T0 + 502 + number)
    for number in range(4):
        views.tile("c", T0 + 510 + 2 * number)
        views.agree(T0 + 511 + 2 * number)


def test_they_agree_after_a_run_was_cut_off_and_goes_on(views: Views, driver: ExitStack) -> None:
    begin(views, driver, T0)
    for scene in "ab":
        views.plan(scene, T0 + 1)
    for number in range(4):
        views.tile("a", T0 + 2 + number)
    views.small.finish("a")
    views.tell(SceneFinished("a", "complete"), T0 + 6)
    views.tile("b", T0 + 7)
    views.tile("b", T0 + 8, fail=True)
    views.agree(T0 + 8)
    driver.close()  # it is killed

    later = T0 + 5000
    views.bar, views.page = TerminalProgress(io.StringIO()), Boards()
    begin(views, driver, later, finished=1, pixels=128 * 128)
    views.plan("b", later + 2)
    pace = views.agree(later + 3)
    assert pace.left == 3 * SIDE**2 + 2 * 128 * 128 and pace.rate == 0  # the failed tile is tried again
    views.tile("b", later + 4)
    assert views.agree(later + 4).rate == pytest.approx(SIDE**2 / 1e6 / 4)
    views.plan("d", later + 5)
    views.tile("b", later + 6, fail=True)
    views.agree(later + 7)


def test_at_the_end_the_pace_is_that_of_the_last_tile_and_nothing_is_left(views: Views, driver: ExitStack) -> None:
    begin(views, driver, T0)
    for scene in "abcd":
        views.plan(scene, T0 + 1)
    for number in range(16):
        views.tile("abcd"[number // 4], T0 + 2 + number)
    before = views.agree(T0 + 17)
    views.tell(ProductWritten("a", "a.tif", 600.0), T0 + 700)
    assert views.agree(T0 + 700) == before
    driver.close()
    views.tell(RunFinished(16, 0, 0, 701.0), T0 + 701)
    assert views.agree(T0 + 9000) == before and before.eta == 0.0


def pace_of(tiles: list[tuple[float, int, float]], now: float, left: float | None = 0, began: float = 0.0) -> Pace:
    return RecentTiles(began, [EndedTile(*tile) for tile in tiles]).pace(now, left=left)


def test_the_window_is_several_tiles_long_and_never_longer_than_the_run() -> None:
    tiles = [(100.0, 1_000_000, 40.0), (110.0, 1_000_000, 40.0)]
    assert pace_of(tiles, 120.0, 1e6).window == pytest.approx(120)  # three tiles of 40 s
    assert pace_of(tiles, 120.0, 1e6, began=60.0)[:4] == (pytest.approx(2 / 60), 1e6, pytest.approx(30), 60)
    assert pace_of([(100.0, 1, 0.1)], 105.0, 1).window == SHORTEST


def test_a_steady_rate_is_measured_as_it_is_and_fades_when_nothing_ends() -> None:
    tiles = [(float(second), 3_000_000, 1.0) for second in range(1, 100)]
    assert pace_of(tiles, 99.0, 1e6).rate == pytest.approx(3.0)
    assert pace_of(tiles, 114.0, 1e6).rate == pytest.approx(1.5)
    assert pace_of(tiles, 200.0, 1e6)[:3] == (0.0, 1e6, None)
    assert pace_of([], 5.0, 1e6)[:3] == (0.0, 1e6, None) and pace_of([], 5.0).eta == 0.0
    assert pace_of(tiles, 99.0, None)[:3] == (pytest.approx(3.0), 0.0, None)


def test_of_very_many_tiles_the_last_ones_make_the_rate() -> None:
    recent = RecentTiles(0.0)
    for number in range(10 * KEPT):
        recent.add(EndedTile(1 + number / 1000, 1_000_000, 0.01))
    pace = recent.pace(1 + 10 * KEPT / 1000, left=1e6)
    assert pace.rate == pytest.approx(1000, rel=0.01) and pace.window == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("block", [1, 300, 5000, 1 << 20])
def test_the_end_of_a_log_is_enough_however_it_is_cut(
    views: Views, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = views.small.run
    monkeypatch.setattr("tilesseg.monitoring.live.event_log.BLOCK", block)
    assert read_log_end(run.path / "events.jsonl")[:2] == ("", 0.0)
    run.log(RunStarted(scenes=1), T0)
    for number in range(50):
        run.log(TileDone("a", f"r000-c{number:03d}", 100, 1, 0, {}, {}, wall=2.0), T0 + number)
    run.log(RunStarted(scenes=1), T0 + 100)
    for number in range(20):
        run.log(TileDone("a", f"r001-c{number:03d}", 100, 1, 0, {}, {}, wall=3.0), T0 + 100 + number)
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"time":1700000999.0,"event":"tile_d')
    end = read_log_end(run.path / "events.jsonl")
    assert (end.kind, end.when, end.recent.began, end.recent.longest) == ("tile_done", T0 + 119, T0 + 100, 3.0)
    assert len(end.recent.pace(T0 + 119, left=1).tiles) == 20


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 100)), max_size=60))
def test_no_amount_is_lost_from_a_history_however_long_it_goes_on(parts: list[tuple[float, float]]) -> None:
    history = RateHistory(50.0, bins=16)
    for when, amount in parts:
        history.add(50.0 + when, amount)
    ends, series = history.series(history.last + 1, over=0.0)
    widths = np.diff(ends, prepend=0.0)
    assert len(series) <= 16
    assert float((series * widths).sum()) == pytest.approx(sum(amount for _, amount in parts), abs=1e-6)


def test_a_steady_rate_is_a_level_line_in_the_history() -> None:
    history = RateHistory(0.0, bins=16)
    for second in range(100):
        history.add(second + 0.5, 3.0)
    ends, series = history.series(100.0, over=10.0)
    assert series == pytest.approx(np.full(len(ends), 3.0), rel=0.05)
