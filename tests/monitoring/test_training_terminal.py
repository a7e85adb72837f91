"""Progress of a training says how far, how good, how long."""

from __future__ import annotations

import io

import pytest

from tilesseg.events import Event, Note, StepDone, TrainingFinished, TrainingStarted, ValidationDone
from tilesseg.monitoring import training_terminal
from tilesseg.monitoring.training_terminal import TrainingBar, TrainingBoard, TrainingLines, training_progress_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, *, steps: int = 100, loss: float = 1.0, seconds: float = 0.0) -> StepDone:
    return StepDone(number, steps, loss, 1e-3, seconds)


def test_the_figures_say_loss_score_and_time_left() -> None:
    board = TrainingBoard()
    board.take(TrainingStarted("roofs", 1000, 0))
    assert board.text == "0/1,000 steps, ETA -:--"
    board.take(step(100, steps=1000, loss=0.5, seconds=20.0))
    assert board.text == "100/1,000 steps, loss 0.500, ETA 3:00"
    board.take(ValidationDone(100, 0.8, 0.9, True, 20.0))
    board.take(ValidationDone(200, 0.7, 0.9, False, 40.0))
    board.take(step(200, steps=1000, loss=0.3, seconds=40.0))
    assert board.text == "200/1,000 steps, loss 0.490, validation 0.700 (best 0.800), ETA 2:40"


def test_time_left_counts_the_steps_of_this_execution_and_an_early_end() -> None:
    board = TrainingBoard()
    board.take(TrainingStarted("roofs", 100, done=50, seconds=5000.0))
    assert board.seconds_left is None
    board.take(step(60, seconds=5020.0))
    assert board.seconds_left == 80
    board.take(step(61, steps=70, seconds=5022.0))
    assert board.seconds_left == 18


def events() -> list[Event]:
    return [
        TrainingStarted("roofs", 3, 1, 2.0),
        step(2, steps=3, seconds=3.0),
        Note("something"),
        ValidationDone(2, 0.5, 0.625, True, 3.0),
        step(3, steps=3, seconds=4.0),
        TrainingFinished(3, "runs/roofs/bundle", 4.0),
    ]


def test_plain_lines_come_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(training_terminal.time, "monotonic", lambda: float(next(now)))
    stream = io.StringIO()
    say = TrainingLines(stream, interval=10.0)
    for event in events():
        say(event)
    assert stream.getvalue().splitlines() == [
        "roofs: goes on from step 1 of 3",
        "something",
        "step 2: validation 0.5000, patches 0.6250, the best so far",
        "3/3 steps, loss 1.000, validation 0.500, ETA 0:00",
        "wrote runs/roofs/bundle after 3 steps (4 s)",
    ]
    stream = io.StringIO()
    say = TrainingLines(stream, interval=2.0)
    for number in range(1, 10):
        say(step(number))
    assert len(stream.getvalue().splitlines()) == 5


def test_a_terminal_gets_a_bar_that_is_taken_down_and_a_file_gets_lines() -> None:
    assert isinstance(training_progress_for(io.StringIO()), TrainingLines)
    stream = Terminal()
    say = training_progress_for(stream)
    assert isinstance(say, TrainingBar)
    say(Note("before"))
    for event in events()[:-1]:
        say(event)
    say.close()
    say(events()[-1])
    say.close()
    text = stream.getvalue()
    assert text.startswith("before\n")
    assert "goes on from step 1 of 3" in text
    assert "wrote runs/roofs/bundle" in text
