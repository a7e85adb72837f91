"""Progress for people: listeners that draw the board of a run, as a bar on a terminal, elsewhere as plain lines."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from tilesseg.events import (
    Event,
    Listener,
    Note,
    ProductWritten,
    RegionFailed,
    RegionStaged,
    RunFinished,
    RunStarted,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.monitoring.humanize import span
from tilesseg.monitoring.live.run_board import RunBoard

if TYPE_CHECKING:
    from rich.progress import Progress


INTERVAL = 5.0
"""Seconds between two plain lines."""
MANY = 100
"""Number of scenes above which those that go well are only counted."""


def progress_for(stream: IO[str]) -> Listener:
    """Listener that suits the stream."""
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)


def figures(board: RunBoard) -> str:
    """Figures of a run as one line: scenes, regions and tiles, rate, time left, failures."""
    pace = board.pace
    eta = "-:--" if pace.eta is None else span(pace.eta)
    text = f"{board.done + board.failed}/{board.tiles} tiles, {pace.rate:.2f} Mpx/s, ETA {eta}"
    if board.copied < board.regions:
        text = f"{board.copied}/{board.regions} regions copied, {text}"
    if board.total > 1:
        ended = board.finished_before + board.complete + board.broken + board.refused
        text = f"{ended}/{board.total} scenes, {text}"
    return f"{text}, {board.failed} failed" if board.failed else text


def sentence(event: Event, *, brief: bool = False) -> str | None:
    """Sentence of an event that is more than progress, or None; in brief, none of a scene that goes well."""
    match event:
        case ScenePlanned() | ProductWritten() if brief:
            return None
        case Note():
            return event.text
        case SceneRefused():
            return f"refused {event.scene}: {event.reason}"
        case RegionFailed():
            return f"cannot copy {event.scene} {event.region}: {event.reason}"
        case TileFailed():
            return f"failed {event.scene} {event.tile}: {event.reason}"
        case ProductWritten():
            instead = f", {event.replaced}" if event.replaced else ""
            return f"wrote {event.path} ({event.seconds:.1f} s){instead}"
        case RunStarted():
            return _start_sentence(event)
        case ScenePlanned():
            return _plan_sentences(event)
        case _:
            return None


def _start_sentence(event: RunStarted) -> str | None:
    before = f"scenes: {event.scenes}" if event.scenes > 1 else ""
    before += f", {event.finished} finished before" if event.finished else ""
    link = f"dashboard at {event.dashboard}" if event.dashboard else ""
    return "; ".join(part for part in (before, link) if part) or None


def _plan_sentences(event: ScenePlanned) -> str:
    copy = f"regions to copy: {event.regions}; " if event.regions else ""
    before = f", {event.done} done before" if event.done else ""
    lines = [f"{event.scene}: {copy}tiles to do: {event.tiles}{before}"]
    return "\n".join([*lines, *(f"{event.scene}: {note}" for note in event.notes)])


class LineProgress:
    """Listener that prints a plain line every few seconds, and at the end."""

    def __init__(self, stream: IO[str], interval: float = INTERVAL) -> None:
        self._stream, self._interval, self.board = stream, interval, RunBoard()
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event; print its sentence, and the figures where they are due."""
        now = time.time()
        self.board.take(event, now)
        text = sentence(event, brief=self.board.total > MANY)
        if text:
            self._print(text)
        if isinstance(event, RunStarted):
            self._next = now + self._interval
        work = isinstance(event, TileDone | TileFailed | RegionStaged | RegionFailed)
        if work and (self.board.all_tried or now >= self._next):
            self._next = now + self._interval
            self._print(figures(self.board))

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """Listener that draws a bar, which stays in place, with sentences above it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self.board = stream, RunBoard()
        self._bar: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Take an event and redraw."""
        self.board.take(event, time.time())
        if isinstance(event, RunStarted):
            self._bar = self._start()
        text = sentence(event, brief=self.board.total > MANY)
        if text and self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif text:
            print(text, file=self._stream, flush=True)
        if self._bar:
            total, tried = self._steps()
            self._bar.update(self._bar.task_ids[0], total=total, completed=tried, text=figures(self.board))
            if isinstance(event, RunFinished):
                self.close()

    def close(self) -> None:
        """Take the bar down, also when the run is cut off."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _steps(self) -> tuple[int, int]:
        """Number of tiles and regions, and of those that were tried."""
        board = self.board
        return board.tiles + board.regions, board.done + board.failed + board.copied

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(file=self._stream))
        bar.add_task("tiles", total=self._steps()[0], text="")
        bar.start()
        return bar
