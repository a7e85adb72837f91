"""Progress for people: listeners that draw events. Rich on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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
    SceneFinished,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.monitoring.humanize import span

if TYPE_CHECKING:
    from rich.progress import Progress


INTERVAL = 5.0
"""Seconds between two plain lines."""
MANY = 100
"""Scenes above which those that go well are only counted."""


def progress_for(stream: IO[str]) -> Listener:
    """The listener that suits the stream."""
    return TerminalProgress(stream) if stream.isatty() else LineProgress(stream)


@dataclass(slots=True)
class Tally:
    """The figures of a run, from its events."""

    scenes: int = 0
    """That are to be done."""
    planned: int = 0
    """Scenes whose tiles are known, or that are refused."""
    segmented: int = 0
    """Planned scenes that were not refused."""
    finished: int = 0
    regions: int = 0
    copied: int = 0
    tiles: int = 0
    pixels: int = 0
    """Core pixels of the tiles that are known."""
    done: int = 0
    failed: int = 0
    done_pixels: int = 0
    started: float = field(default_factory=time.monotonic)

    def take(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.scenes, self.started = event.scenes - event.finished, time.monotonic()
            case ScenePlanned():
                self.planned, self.segmented = self.planned + 1, self.segmented + 1
                self.tiles, self.pixels = self.tiles + event.tiles, self.pixels + event.pixels
                self.regions += event.regions
            case SceneRefused():
                self.planned += 1
            case SceneFinished():
                self.finished += 1
            case RegionStaged() | RegionFailed():
                self.copied += 1
            case TileDone():
                self.done, self.done_pixels = self.done + 1, self.done_pixels + event.pixels
            case TileFailed():
                self.failed, self.pixels = self.failed + 1, self.pixels - event.pixels

    @property
    def steps(self) -> int:
        """Tiles and regions behind us."""
        return self.done + self.failed + self.copied

    @property
    def rate(self) -> float:
        """Mpx/s of finished cores since the start."""
        return self.done_pixels / 1e6 / max(1e-9, time.monotonic() - self.started)

    @property
    def eta(self) -> str:
        """Time left as m:ss, at the rate so far."""
        if not self.done_pixels:
            return "-:--"
        return span(max(0.0, self.pixels + self._unknown - self.done_pixels) / 1e6 / self.rate)

    @property
    def _unknown(self) -> float:
        """Pixels of the scenes that are not planned yet, should they be like the others."""
        return max(0, self.scenes - self.planned) * self.pixels / max(1, self.segmented)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to copy or to segment."""
        tried = self.done + self.failed == self.tiles and self.copied == self.regions
        return tried and self.planned >= self.scenes

    def __str__(self) -> str:
        copied = f"{self.copied}/{self.regions} regions copied"
        if not self.tiles and self.regions:
            return copied
        text = f"{self.done + self.failed}/{self.tiles} tiles, {self.rate:.2f} Mpx/s, ETA {self.eta}"
        text = f"{copied}, {text}" if self.copied < self.regions else text
        text = f"{self.finished}/{self.scenes} scenes, {text}" if self.scenes > 1 else text
        return f"{text}, {self.failed} failed" if self.failed else text


def sentence(event: Event) -> str | None:
    """What an event that is more than progress says, or None."""
    match event:
        case Note():
            return event.text
        case SceneRefused():
            return f"refused {event.scene}: {event.reason}"
        case RegionFailed():
            return f"cannot copy {event.scene} {event.region}: {event.reason}"
        case TileFailed():
            return f"failed {event.scene} {event.tile}: {event.reason}"
        case ProductWritten():
            return f"wrote {event.path} ({event.seconds:.1f} s)"
        case RunStarted():
            return _beginning(event)
        case ScenePlanned():
            return _work(event)
        case _:
            return None


def _beginning(event: RunStarted) -> str | None:
    before = f"scenes: {event.scenes}" if event.scenes > 1 else ""
    before += f", {event.finished} finished before" if event.finished else ""
    link = f"dashboard at {event.dashboard}" if event.dashboard else ""
    return "; ".join(part for part in (before, link) if part) or None


def _work(event: ScenePlanned) -> str:
    copy = f"regions to copy: {event.regions}; " if event.regions else ""
    before = f", {event.done} done before" if event.done else ""
    lines = [f"{event.scene}: {copy}tiles to do: {event.tiles}{before}"]
    return "\n".join([*lines, *(f"{event.scene}: {note}" for note in event.notes)])


class LineProgress:
    """One plain line every few seconds, and at the end."""

    def __init__(self, stream: IO[str], interval: float = INTERVAL) -> None:
        self._stream, self._interval, self._tally = stream, interval, Tally()
        self._next = 0.0
        self._many = False

    def __call__(self, event: Event) -> None:
        """Take an event; perhaps say something."""
        self._tally.take(event)
        text = sentence(event)
        if text and not (self._many and isinstance(event, ScenePlanned | ProductWritten)):
            self._say(text)
        if isinstance(event, RunStarted):
            self._next, self._many = time.monotonic() + self._interval, event.scenes > MANY
        work = isinstance(event, TileDone | TileFailed | RegionStaged | RegionFailed)
        if work and (self._tally.complete or time.monotonic() >= self._next):
            self._next = time.monotonic() + self._interval
            self._say(str(self._tally))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """A bar that stays in place, with sentences above it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._tally = stream, Tally()
        self._bar: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Take an event and redraw."""
        self._tally.take(event)
        if isinstance(event, RunStarted):
            self._bar = self._start()
        text = sentence(event)
        if self._tally.scenes > MANY and isinstance(event, ScenePlanned | ProductWritten):
            text = None
        if text and self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif text:
            print(text, file=self._stream, flush=True)
        if self._bar:
            total = self._tally.tiles + self._tally.regions
            self._bar.update(self._bar.task_ids[0], total=total, completed=self._tally.steps, text=str(self._tally))
            if isinstance(event, RunFinished):
                self.close()

    def close(self) -> None:
        """Leave the terminal as it was, also when the run is cut off."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(file=self._stream))
        bar.add_task("tiles", total=self._tally.tiles + self._tally.regions, text="")
        bar.start()
        return bar
