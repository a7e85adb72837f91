"""Laws of a training as a whole: what was scored is what is shipped, and nothing is lost when it dies."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import job_data
from training_fakes import tiny_spec
from training_scenes import SIDE, materials, squares

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import StoreError
from tilesseg.events import Event, Note, StepDone, TrainingFinished, TrainingStarted
from tilesseg.planning.job import parse_job
from tilesseg.raster.metrics import confusion
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.locks import held
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.scene_validation import mean_dice
from tilesseg.training.train_network import TrainingResult, finished_training, train_network
from tilesseg.training.train_spec import TrainSpec

FAST = {"optimise": {"steps": 40, "rate": 0.02, "ema": 0.9}, "stop": {"every": 20}, "threads": 1}


def small(tmp_path: Path, **changes: Any) -> TrainSpec:
    return tiny_spec(tmp_path / "run", **{**FAST, **changes})


def train(spec: TrainSpec, tmp_path: Path, events: list[Event] | None = None) -> TrainingResult:
    listeners = [] if events is None else [events.append]
    return train_network(spec, materials(spec, tmp_path), listeners=listeners)


def served_score(result: TrainingResult, number: int, tmp_path: Path, where: Window) -> float:
    """Mean Dice of a run of the bundle on a scene, counted in a window."""
    more = {"engine": "torch", "precision": "fp32"}
    scene, folder = tmp_path / f"scene-{number}.tif", tmp_path / f"serve-{number}"
    assert run_job(parse_job(job_data(scene, result.bundle, folder, **more), where="test"), executor=SerialExecutor())
    mask = RunDirectory(folder).scene(scene.stem).read(where)
    truth = squares(number)[1][where.slices()]
    matrix = confusion(np.where(mask == 255, np.uint8(255), truth), mask, 2)
    return mean_dice(matrix, tiny_spec(tmp_path).classes)


def test_the_bundle_serves_what_validation_and_test_have_scored(tmp_path: Path) -> None:
    events: list[Event] = []
    result = train(small(tmp_path), tmp_path, events)
    assert result.score is not None
    assert result.score > 0.8
    assert result.score == served_score(result, 1, tmp_path, Window(0, 0, SIDE, SIDE))
    assert result.test == served_score(result, 2, tmp_path, Window(0, SIDE // 2, SIDE, SIDE // 2))
    figures = json.loads((result.bundle / "evaluation.json").read_text())
    for part, score in (("validate", result.score), ("test", result.test)):
        assert figures[part]["pooled"]["classes"]["bright"]["dice"] == pytest.approx(score)
    assert f"{result.steps} steps" in (result.bundle / "CARD.md").read_text()
    assert isinstance(events[0], TrainingStarted)
    assert isinstance(events[-1], TrainingFinished)
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()].count("validation") == 0


def test_a_finished_training_says_so_and_does_nothing(tmp_path: Path) -> None:
    spec = small(tmp_path, optimise={"steps": 4}, stop={"every": 2})
    assert finished_training(spec) is None
    result = train(spec, tmp_path)
    assert not result.before
    assert finished_training(spec) == replace(result, before=True)
    with pytest.raises(StoreError, match="seed was 0 and is 5 now"):
        finished_training(small(tmp_path, optimise={"steps": 4}, stop={"every": 2}, seed=5))


def test_the_best_or_the_last_becomes_the_bundle(tmp_path: Path) -> None:
    """A rate that destroys what was learnt: the best is an early one."""
    found = {}
    for keep in ("best", "last"):
        stop = {"every": 8, "keep": keep}
        optimise = {"steps": 24, "rate": 3.0, "warmup": 0.9, "decay": 0, "ema": 0, "clip": None, "kind": "sgd"}
        result = train(small(tmp_path / keep, stop=stop, optimise=optimise), _made(tmp_path / keep))
        assert result.best_step is not None
        assert result.best_step < 24
        found[keep] = served_score(result, 1, tmp_path / keep, Window(0, 0, SIDE, SIDE))
        assert result.score is not None
    assert found["best"] > found["last"]
    assert found["best"] == result.score


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(tmp_path: Path) -> None:
    spec = small(tmp_path, optimise={"steps": 6, "ema": 0.9}, stop={"every": 2})
    whole = train(spec, tmp_path)
    weights = (whole.bundle / "weights.safetensors").read_bytes()
    for path in (tmp_path / "run" / "result.json", whole.bundle / "model.yaml"):
        path.unlink()
    newest = tmp_path / "run" / "state" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    events: list[Event] = []
    again = train(spec, tmp_path, events)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert "is damaged" in notes[0] and "goes on from step 4" in notes[0]
    assert (again.bundle / "weights.safetensors").read_bytes() == weights


def test_a_second_process_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    spec = small(tmp_path, optimise={"steps": 2})
    with held(tmp_path / "run" / "locks" / "training"), pytest.raises(StoreError, match="is being trained in by"):
        train(spec, tmp_path)


def test_random_numbers_and_threads_of_the_caller_stay_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    train(small(tmp_path, optimise={"steps": 2}), tmp_path)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.rand(3), expected)


def test_without_validation_the_last_average_is_shipped(tmp_path: Path) -> None:
    spec = small(tmp_path, optimise={"steps": 4})
    result = train_network(spec, replace(materials(spec, tmp_path), validation=[], test=[]))
    assert (result.best_step, result.score, result.test) == (None, None, None)
    assert (result.bundle / "model.yaml").is_file()


PROCESS = """
import sys
from pathlib import Path
from training_fakes import tiny_spec
from training_scenes import materials
from tilesseg.training.train_network import train_network
import tilesseg.events as events

folder = Path(sys.argv[1])
spec = tiny_spec(folder / "run", optimise={"steps": 60, "ema": 0.9}, stop={"every": 5}, threads=1)
def say(event):
    print(event.kind, getattr(event, "step", 0), flush=True)
train_network(spec, materials(spec, folder), listeners=[say])
"""


def start(folder: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def trained(folder: Path) -> int:
    with start(folder) as process:
        assert process.stdout is not None
        process.stdout.read()
        return process.wait(timeout=300)


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "run" / "bundle" / "weights.safetensors").read_bytes()).hexdigest()


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_for_real_and_started_again_it_gives_the_same_bundle(tmp_path: Path, number: signal.Signals) -> None:
    whole, cut = _made(tmp_path / "whole"), _made(tmp_path / "cut")
    assert trained(whole) == 0
    for at in (13, 37):
        with start(cut) as process:
            assert process.stdout is not None
            for line in process.stdout:
                kind, step = line.split()
                if kind == StepDone.kind and int(step) >= at:
                    process.send_signal(number)
                    break
            process.stdout.read()
            assert process.wait(timeout=300) != 0
    assert trained(cut) == 0
    assert weights_of(cut) == weights_of(whole)
