"""`tilesseg train`: what is typed, and what is printed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_train_job import make_scenes, spec_file

from tilesseg.cli.main import INTERRUPTED, run
from tilesseg.monitoring import training_terminal


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    make_scenes(tmp_path)
    return spec_file(tmp_path, optimise={"steps": 6}, stop={"every": 3})


def test_it_trains_and_says_what_came_out_and_the_second_time_that_it_is_finished(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(spec)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].startswith("the training is finished: 6 steps, validation ")
    assert said.out.splitlines()[1] == str(spec.parent / "run" / "bundle")
    assert "squares: 6 steps" in said.err
    assert "6/6 steps, loss " in said.err
    assert run(["train", str(spec)]) == 0
    again = capsys.readouterr()
    assert again.out == said.out.replace("is finished", "was finished before")
    assert again.err == ""
    assert run(["train", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 6


def test_interrupted_it_exits_with_130_and_says_how_to_go_on(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(training_terminal.TrainingLines):
        def __call__(self, event: object) -> None:
            super().__call__(event)  # type: ignore[arg-type]
            if getattr(event, "step", 0) == 2:
                taken = signal.getsignal(signal.SIGINT)  # called, not sent: a signal would reach pytest's process too
                assert callable(taken)
                taken(signal.SIGINT, None)

    with monkeypatch.context() as patched:
        patched.setattr(training_terminal, "TrainingLines", Interrupting)
        assert run(["train", str(spec)]) == INTERRUPTED
    assert "run the same command again to go on" in capsys.readouterr().err
    assert run(["train", str(spec)]) == 0
    assert "goes on from step 3 of 6" in capsys.readouterr().err


def test_a_refusal_is_one_line(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spec.parent / "run").mkdir()
    (spec.parent / "run" / "spec.yaml").write_text("mine")
    assert run(["train", str(spec)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: cannot train in ")] == said[-1:]


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_network(spec: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tilesseg", "train", str(spec)],
            env={
                **os.environ,
                **more,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said[0].splitlines()[1] == str(spec.parent / "run" / "bundle")
    assert said[1] == ""
