"""Laws of a training's directory: it belongs to one training, and a change is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from training_fakes import tiny_spec

from tilesseg.errors import StoreError
from tilesseg.training.train_spec import TrainSpec, read_train_spec
from tilesseg.training.training_directory import TrainingDirectory

FILES = {"a": {"image": {"size": 10}, "labels": {"size": 4}}}


def claimed(tmp_path: Path, **changes: Any) -> tuple[TrainingDirectory, TrainSpec]:
    spec = tiny_spec(tmp_path / "run", **changes)
    directory = TrainingDirectory(tmp_path / "run")
    directory.claim(spec, FILES)
    return directory, spec


def test_the_same_training_may_go_on_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory, spec = claimed(tmp_path)
    before = (tmp_path / "run" / "plan.json").read_bytes()
    directory.claim(spec, FILES)
    (tmp_path / "deeper").mkdir()
    os.chdir(tmp_path / "deeper")
    data = [{"scenes": "../a.tif", "labels": str(tmp_path / "b.tif")}]
    directory.claim(tiny_spec(tmp_path / "run", data=data), FILES)
    assert (tmp_path / "run" / "plan.json").read_bytes() == before


def test_the_copy_of_the_spec_is_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory, _ = claimed(tmp_path, seed=4)
    again = read_train_spec(tmp_path / "run" / "spec.yaml")
    directory.claim(again, FILES)
    assert (again.seed, again.network.width) == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1 now; give the old value again, or another directory"),
        ({"sampling": {"patch": 32, "batch": 4}}, "sampling.patch was 16 and is 32 now"),
        (
            {"data": {"scenes": "a.tif", "labels": "b.tif", "all_touched": True}},
            "data.0.all_touched was False and is True now",
        ),
    ],
)
def test_a_changed_spec_is_refused_with_the_difference(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory, _ = claimed(tmp_path)
    with pytest.raises(StoreError, match=f"was asked for differently: {message}"):
        directory.claim(tiny_spec(tmp_path / "run", **changes), FILES)


def test_what_the_network_does_not_depend_on_may_change(tmp_path: Path) -> None:
    directory, _ = claimed(tmp_path)
    sampling = {"patch": 16, "batch": 4, "readers": 7}
    directory.claim(tiny_spec(tmp_path / "run", sampling=sampling, description="better words"), FILES)


def test_changed_files_are_refused_with_the_difference(tmp_path: Path) -> None:
    directory, spec = claimed(tmp_path)
    with pytest.raises(StoreError, match=r"began with other files: a.labels.size was 4 and is 5 now"):
        directory.claim(spec, {"a": {"image": {"size": 10}, "labels": {"size": 5}}})
    with pytest.raises(StoreError, match=r"began with other files: b was None"):
        directory.claim(spec, {**FILES, "b": {"image": {}}})


@pytest.mark.parametrize("name", ["spec.yaml", "log.csv", "bundle", "state", "result.json"])
def test_files_of_somebody_else_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(StoreError, match=f"{name} lies there, which no training wrote; give it a folder of its own"):
        claimed(tmp_path)
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_the_directory_of_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text('{"format": 5}')
    with pytest.raises(StoreError, match=r"plan.json is not of a training that .*; give another directory"):
        claimed(tmp_path)


def test_a_result_is_the_end(tmp_path: Path) -> None:
    assert TrainingDirectory(tmp_path / "none").result() is None
    directory, _ = claimed(tmp_path)
    assert directory.result() is None
    directory.write_result({"steps": 3})
    assert directory.result() == {"steps": 3}
