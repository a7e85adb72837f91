"""Progress says how far, how fast, how long, and what failed."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from tilesseg.events import (
    Note,
    ProductWritten,
    RunFinished,
    RunStarted,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.monitoring import terminal as progress
from tilesseg.monitoring.live.run_board import RunBoard
from tilesseg.monitoring.terminal import LineProgress, TerminalProgress, figures, progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def done(pixels: int) -> TileDone:
    return TileDone("scene", "r000-c000", pixels, patches=1, skipped=0, counts={}, areas={})


def failed(pixels: int) -> TileFailed:
    return TileFailed("scene", "r001-c000", pixels, "the disk is on fire")


def begin(say: Any, *, tiles: int, done: int, pixels: int, dashboard: str | None = None) -> None:
    """A run of one scene."""
    say(RunStarted(scenes=1, dashboard=dashboard))
    say(ScenePlanned("scene", tiles=tiles, done=done, pixels=pixels))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def test_the_figures_are_those_of_the_board_and_failures_do_not_count() -> None:
    board = RunBoard()
    begin(lambda event: board.take(event, 100.0), tiles=10, done=0, pixels=10_000_000)
    assert "ETA -:--" in figures(board)
    board.take(done(1_000_000), 102.0)
    board.take(failed(1_000_000), 102.0)
    assert figures(board) == "2/10 tiles, 0.50 Mpx/s, ETA 0:16, 1 failed"


def test_hours_are_written_as_hours() -> None:
    board = RunBoard()
    begin(lambda event: board.take(event, 100.0), tiles=2, done=0, pixels=10_000_000)
    board.take(replace(done(1_000_000), wall=1000.0), 1100.0)
    assert "ETA 2:30:00" in figures(board)


def test_plain_lines_come_now_and_then_and_at_the_end(clock: list[float]) -> None:
    stream = io.StringIO()
    say = LineProgress(stream, interval=5)
    begin(say, tiles=4, done=2, pixels=4_000_000, dashboard="http://127.0.0.1:8787/status")
    for seconds in (1, 5, 1, 1):
        clock[0] += seconds
        say(done(1_000_000))
    say(ProductWritten("scene", "mask.tif", 1.25))
    say(RunFinished(4, 0, 0, 8.0))
    assert stream.getvalue().splitlines() == [
        "dashboard at http://127.0.0.1:8787/status",
        "scene: tiles to do: 4, 2 done before",
        "4/6 tiles, 0.33 Mpx/s, ETA 0:06",
        "6/6 tiles, 0.50 Mpx/s, ETA 0:00",
        "wrote mask.tif (1.2 s)",
    ]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["lines", "terminal"])
def test_what_is_more_than_progress_is_said_at_once(stream: io.StringIO) -> None:
    say = progress_for(stream)
    begin(say, tiles=2, done=0, pixels=2)
    for event in (failed(1), Note("no [CRS] here"), SceneRefused("b", "too few bands"), RunFinished(0, 1, 1, 0.0)):
        say(event)
    text = stream.getvalue()
    assert "failed scene r001-c000: the disk is on fire" in text
    assert "no [CRS] here" in text
    assert "refused b: too few bands" in text


def test_a_terminal_gets_a_bar_and_a_file_gets_lines() -> None:
    assert isinstance(progress_for(Terminal()), TerminalProgress)
    assert isinstance(progress_for(io.StringIO()), LineProgress)


def test_the_bar_is_taken_down_when_a_run_is_cut_off() -> None:
    say = TerminalProgress(Terminal())
    begin(say, tiles=2, done=0, pixels=2)
    say.close()
    say.close()
    say(Note("after"))


def test_a_note_before_the_run_begins_is_said_too() -> None:
    stream = Terminal()
    TerminalProgress(stream)(Note("making a scene"))
    assert stream.getvalue() == "making a scene\n"
