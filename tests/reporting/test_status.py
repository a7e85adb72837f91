"""Laws of `tilesseg status`: what a directory alone says of a run's pace, while it goes on and after it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from small_runs import SmallRun

from tilesseg.cli.main import run as command
from tilesseg.cli.status_text import drawn, job_lines, status_text, table_rows
from tilesseg.events import RunStarted, TileDone, account
from tilesseg.monitoring.humanize import area, duration, pixels, share
from tilesseg.reporting.status import Watch
from tilesseg.store.driver_record import driver_record

NOW = 1_700_000_000.0
TILE = 64 * 64


@pytest.fixture
def small(tmp_path: Path) -> SmallRun:
    """Three scenes of 2 × 3 tiles of 64 × 64 pixels."""
    for name in "abc":
        values = np.random.default_rng(ord(name)).integers(0, 3, (1, 128, 192), np.uint8)
        write_scene(tmp_path / f"{name}.tif", values)
    data = job_data(str(tmp_path / "*.tif"), write_bundle(tmp_path / "model"), tmp_path / "run", name="three")
    cut = {"core": 64, "patch": 64, "blend": "gaussian"}
    small = SmallRun({**data, "tiling": cut, "input": {"check_range": False}})
    (small.run.path / "driver.json").write_text("{}")  # of a driver whose lock cannot be seen
    os.utime(small.run.path / "driver.json", (0, 0))
    return small


def watch(small: SmallRun) -> Watch:
    return Watch(small.run, small.plan, small.names)


def ended(seconds_ago: float, every: float = 1.0, wall: float = 1.0) -> dict[str, Any]:
    """Fields of records of tiles that ended one after the other, the last one so long before NOW."""
    return {"started": lambda number: NOW - seconds_ago - wall - every * number, "wall": wall}


def tell(small: SmallRun, event: str, when: float) -> None:
    with (small.run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": when, "event": event}) + "\n")


def test_a_run_that_has_just_been_planned_waits(small: SmallRun) -> None:
    found = watch(small).look(NOW).progress
    assert found.states == {"waiting": 3} and found.about
    assert (found.tiles, found.left, found.rate, found.eta, found.running) == (0, 0, 0.0, None, False)
    assert "work left of unknown size, no rate yet" in "\n".join(job_lines(found))


def test_it_says_where_the_time_went_and_which_tiles_had_smaller_batches(small: SmallRun) -> None:
    small.plan_scenes("a")
    spent = {"predict": 3.0, "wait": 1.0, "read": 2.0, "blend": 0.4, "write": 0.2}
    small.segment("a", **ended(0), seconds=spent, batch=lambda number: 2 if number == 4 else 0)
    status = watch(small).look(NOW)
    text = status_text(status)
    assert "where the time went: predict 75%, wait 25%; at the same time: read 50%, blend 10%, write 5%" in text
    assert "1 tile with smaller batches than planned, for want of device memory" in text
    told = status.to_json()
    assert told["progress"]["seconds"] == {part: pytest.approx(6 * value) for part, value in spent.items()}
    assert told["progress"]["reduced"] == told["scenes"][0]["reduced"] == 1


def test_where_nothing_was_predicted_the_time_went_to_writing() -> None:
    assert account({"write": 2.0}) == ({"write": 2.0}, {})
    assert account({}) == ({}, {})
    assert account({"wait": 1.0, "write": 2.0, "older": 1.0}) == ({"wait": 1.0, "older": 1.0}, {"write": 2.0})


def test_the_rate_is_that_of_the_last_tiles_and_the_time_left_follows_from_it(small: SmallRun) -> None:
    small.plan_scenes("a", "b", "c")
    small.run.log(RunStarted(scenes=3), NOW - 8)
    small.segment("b", limit=2, **ended(6))
    small.segment("a", **ended(0))
    found = watch(small).look(NOW).progress
    # eight tiles in the eight seconds since the run began
    assert found.running and found.window == pytest.approx(8.0)
    assert found.rate == pytest.approx(TILE / 1e6, abs=1e-4)
    assert found.left == 10 * TILE and not found.about
    assert found.eta == pytest.approx(10, rel=0.05)
    states = {one.scene: (one.state, one.done, one.left) for one in found.scenes}
    assert states["b"] == ("unfinished", 2, 4 * TILE) and states["c"] == ("unfinished", 0, 6 * TILE)


def test_tiles_of_long_ago_do_not_count_while_there_are_newer_ones(small: SmallRun) -> None:
    small.plan_scenes()
    small.segment("a", **ended(50_000))
    small.segment("b", **ended(0, every=10, wall=20))
    small.segment("c", limit=4, **ended(5, every=10, wall=20))
    found = watch(small).look(NOW).progress
    # three times the mean time of a tile, (6 · 1 s + 10 · 20 s) ÷ 16; eight tiles ended in it
    assert found.window == pytest.approx(38.6) and found.rate == pytest.approx(8 * TILE / 1e6 / 38.6, abs=1e-4)


def test_scenes_that_are_not_planned_count_as_the_mean_of_the_others(small: SmallRun) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=4, **ended(0))
    found = watch(small).look(NOW).progress
    assert found.about and found.left == 2 * TILE + 2 * 6 * TILE
    assert "about" in "\n".join(job_lines(found)) and "known tiles" in "\n".join(job_lines(found))


def test_failed_tiles_are_not_left_to_do(small: SmallRun) -> None:
    small.plan_scenes()
    for name in small.names:
        small.segment(name, fail=["r000-c001"], **ended(10))
    found = watch(small).look(NOW).progress
    assert (found.done, found.failed, found.left, found.eta) == (15, 3, 0, 0.0)
    assert found.states == {"failed tiles": 3}


def test_tiles_that_predicted_nothing_are_counted_as_skipped(small: SmallRun) -> None:
    small.plan_scenes("a")
    small.segment("a", patches=lambda number: number % 2, **ended(1))
    assert watch(small).look(NOW).progress.skipped == 3


@pytest.mark.parametrize(("ago", "wall", "alive"), [(10, 1, True), (70, 1, False), (70, 40, True), (4000, 40, False)])
def test_somebody_works_while_the_last_sign_is_younger_than_tiles_take(
    small: SmallRun, ago: float, wall: float, alive: bool
) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=2, **ended(ago, wall=wall))
    found = watch(small).look(NOW).progress
    assert found.running is alive and found.age == pytest.approx(ago, abs=0.2)
    assert found.rate > 0  # also of a run that has stopped: the pace it had


def test_a_run_with_a_driver_is_running_however_long_its_first_tile_takes_or_another_shard_has_ended(
    small: SmallRun,
) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=2, **ended(4000))
    with driver_record(small.run.path, "2/2"):
        stalled = watch(small).look(NOW).progress
        assert stalled.running and (stalled.rate, stalled.eta) == (0.0, None)
        assert "no tile has ended lately" in "\n".join(job_lines(stalled))
        tell(small, "run_finished", NOW - 1)
        assert watch(small).look(NOW).progress.running
    assert not watch(small).look(NOW).progress.running


def test_a_run_whose_driver_has_taken_its_record_away_is_not_running_however_young_its_last_tile(
    small: SmallRun,
) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=2, **ended(1))
    assert watch(small).look(NOW).progress.running
    (small.run.path / "driver.json").unlink()
    assert not watch(small).look(NOW).progress.running


def test_a_run_that_has_said_its_end_is_not_running_though_it_is_young(small: SmallRun) -> None:
    small.plan_scenes()
    for name in small.names:
        small.segment(name, **ended(3))
        small.finish(name)
    tell(small, "note", NOW - 2)
    assert watch(small).look(NOW).progress.running
    tell(small, "run_finished", NOW - 1)
    found = watch(small).look(NOW).progress
    assert not found.running and found.states == {"complete": 3}
    assert "nothing left to try" in "\n".join(job_lines(found))


def test_looking_again_sees_what_is_new_and_reads_records_once(
    small: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.plan_scenes("a", "b")
    small.segment("a", limit=3, **ended(0))
    eye = watch(small)
    assert eye.look(NOW).progress.done == 3
    made: list[str] = []
    real = TileDone.__init__

    def counted(self: TileDone, *args: Any, **fields: Any) -> None:
        made.append(fields["tile"])
        real(self, *args, **fields)

    small.segment("a", limit=1, **ended(0))
    small.segment("b", limit=1, **ended(0))
    monkeypatch.setattr(TileDone, "__init__", counted)
    assert eye.look(NOW).progress.done == 5
    assert len(made) == 2
    small.segment("a")
    small.finish("a")
    assert eye.look(NOW).progress.states["complete"] == 1


def test_the_command_prints_every_state_and_every_reason(
    small: SmallRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "b.tif").write_bytes(b"no image")
    small.plan_scenes("a", "b")
    small.segment("a", fail=["r001-c002"])
    assert command(["status", str(small.run.path)]) == 0
    out = capsys.readouterr().out
    for word in ("failed tiles", "refused", "waiting", "ValueError: planted", "b.tif", "5 of 6 known tiles done"):
        assert word in out
    assert command(["status", str(small.run.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [scene["state"] for scene in said["scenes"]] == ["failed tiles", "refused", "waiting"]
    assert said["progress"]["states"] == {"failed tiles": 1, "refused": 1, "waiting": 1}
    assert [scene["scene"] for scene in said["progress"]["scenes"]] == ["a", "b", "c"]


def test_watching_a_run_that_nobody_works_on_ends_at_once(
    small: SmallRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=2, **ended(0))
    assert command(["status", str(small.run.path), "--watch"]) == 0
    assert capsys.readouterr().out.startswith("not running")


def test_watching_tells_a_line_for_each_look_and_ends_when_the_run_does(
    small: SmallRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: NOW)
    looks = []

    def later(seconds: float) -> None:
        looks.append(seconds)
        assert len(looks) < 5
        small.segment("a", limit=3, **ended(0))
        if len(looks) == 2:
            tell(small, "run_finished", NOW)

    monkeypatch.setattr("tilesseg.cli.status_command.time.sleep", later)
    small.plan_scenes("a")
    small.segment("a", limit=1, **ended(1))
    assert command(["status", str(small.run.path), "--watch"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in told[:3]] == ["running", "running", "not running"]
    assert "1 of 6 known tiles done" in told[0] and "4 of 6 known tiles done" in told[1]


def test_a_table_of_many_scenes_begins_with_those_one_looks_for_and_stays_short(small: SmallRun) -> None:
    names = [f"s{number:05d}" for number in range(2000)]
    small.plan_scenes("a")
    small.segment("a", limit=1, **ended(0))
    found = Watch(small.run, small.plan, [*names, "a"]).look(NOW)
    rows, rest = table_rows(found.progress)
    assert rows[0][:2] == ("a", "unfinished") and len(rows) == 40
    assert rest == "and more: 1961 waiting"
    assert len(status_text(found).splitlines()) < 50
    assert drawn(found) is not None


def test_a_damaged_record_is_named(small: SmallRun, capsys: pytest.CaptureFixture[str]) -> None:
    small.plan_scenes("a")
    small.segment("a", limit=2)
    record = next((small.run.path / "scenes" / "a" / "done").glob("*.json"))
    record.write_text("{")
    assert command(["status", str(small.run.path)]) == 1
    assert record.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.04, "0.04 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"),
        (3600, "1:00 h"), (86_400 * 3 + 7200, "3 d 2 h"), (None, "unknown"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_quantities_in_words() -> None:
    assert [pixels(n) for n in (512, 40_000, 4_194_304, 3.4e12)] == ["512 px", "40 kpx", "4.19 Mpx", "3.4 Tpx"]
    assert [area(n) for n in (0.0035, 12.5, 123_456)] == ["35 m²", "12.5 ha", "1,234.6 km²"]
    assert area(12.5, largest=123_456) == "0.1 km²"
    assert [share(*pair) for pair in ((0, 5), (1, 100_000), (99_999, 100_000), (5, 5))] == [
        "0 %", "< 0.1 %", "99.9 %", "100 %",
    ]  # fmt: skip
