"""Progress of a training for people: listeners that show loss, score and time left, as a bar or as plain lines."""

from __future__ import annotations

import time
from typing import IO, TYPE_CHECKING

from tilesseg.events import Event, Listener, Note, StepDone, TrainingFinished, TrainingStarted, ValidationDone
from tilesseg.monitoring.humanize import duration, span
from tilesseg.monitoring.terminal import INTERVAL

if TYPE_CHECKING:
    from rich.progress import Progress

SMOOTH = 0.95
"""Share of the earlier loss in the one that is shown: single batches differ."""


def training_progress_for(stream: IO[str]) -> Listener:
    """Listener that suits the stream."""
    return TrainingBar(stream) if stream.isatty() else TrainingLines(stream)


class TrainingBoard:
    """Figures of a training, as its events tell them."""

    def __init__(self) -> None:
        self.step = self.steps = 0
        self.loss: float | None = None
        self._score: ValidationDone | None = None
        self._best: ValidationDone | None = None
        self._start: tuple[int, float] = (0, 0.0)
        self._seconds = 0.0

    def take(self, event: Event) -> None:
        """Take an event into the figures."""
        match event:
            case TrainingStarted():
                self.step, self.steps, self._seconds = event.done, event.steps, event.seconds
                self._start = event.done, event.seconds
            case StepDone():
                self.step, self.steps, self._seconds = event.step, event.steps, event.seconds
                self.loss = event.loss if self.loss is None else SMOOTH * self.loss + (1 - SMOOTH) * event.loss
            case ValidationDone():
                self._score, self._seconds = event, event.seconds
                self._best = event if event.best else self._best

    @property
    def seconds_left(self) -> float | None:
        """Seconds of the steps that are left, by the pace of this execution; None before its first step."""
        step, seconds = self._start
        if self.step == step:
            return None
        return (self._seconds - seconds) / (self.step - step) * max(0, self.steps - self.step)

    @property
    def text(self) -> str:
        """Figures as one line: steps, loss, score of the last validation and of the best, time left."""
        parts = [f"{self.step:,}/{self.steps:,} steps"]
        parts += [] if self.loss is None else [f"loss {self.loss:.3f}"]
        if self._score:
            best = f" (best {self._best.score:.3f})" if self._best and self._best != self._score else ""
            parts.append(f"validation {self._score.score:.3f}{best}")
        eta = "-:--" if self.seconds_left is None else span(self.seconds_left)
        return ", ".join([*parts, f"ETA {eta}"])


def training_sentence(event: Event) -> str | None:
    """Sentence of an event that is more than progress, or None."""
    match event:
        case Note():
            return event.text
        case TrainingStarted() if event.done:
            return f"{event.name}: goes on from step {event.done:,} of {event.steps:,}"
        case TrainingStarted():
            return f"{event.name}: {event.steps:,} steps"
        case ValidationDone():
            best = ", the best so far" if event.best else ""
            return f"step {event.step:,}: validation {event.score:.4f}, patches {event.patch_score:.4f}{best}"
        case TrainingFinished():
            return f"wrote {event.bundle} after {event.steps:,} steps ({duration(event.seconds)})"
        case _:
            return None


class TrainingLines:
    """Listener that prints a plain line every few seconds, and after each validation."""

    def __init__(self, stream: IO[str], interval: float = INTERVAL) -> None:
        self._stream, self._interval, self.board = stream, interval, TrainingBoard()
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        """Take an event; print its sentence, and the figures where they are due."""
        now = time.monotonic()
        self.board.take(event)
        text = training_sentence(event)
        if text:
            self._print(text)
        if isinstance(event, TrainingStarted):
            self._next = now + self._interval
        if isinstance(event, StepDone) and (now >= self._next or event.step == event.steps):
            self._next = now + self._interval
            self._print(self.board.text)

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class TrainingBar:
    """Listener that draws a bar, which stays in place, with sentences above it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self.board = stream, TrainingBoard()
        self._bar: Progress | None = None

    def __call__(self, event: Event) -> None:
        """Take an event and redraw."""
        self.board.take(event)
        if isinstance(event, TrainingStarted):
            self._bar = self._start()
        text = training_sentence(event)
        if text and self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        elif text:
            print(text, file=self._stream, flush=True)
        if self._bar:
            board = self.board
            self._bar.update(self._bar.task_ids[0], total=board.steps, completed=board.step, text=board.text)
            if isinstance(event, TrainingFinished):
                self.close()

    def close(self) -> None:
        """Take the bar down, also when the training is cut off."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        bar = Progress(BarColumn(), TextColumn("{task.fields[text]}"), console=Console(file=self._stream))
        bar.add_task("steps", total=self.board.steps, text="")
        bar.start()
        return bar
