"""Laws of a worker's state and preflight: a run is opened once, and a worker that joins late proves itself once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from small_runs import SmallRun

from tilesseg.cluster.executors import SerialExecutor, UnfitWorker
from tilesseg.planning.job import parse_job
from tilesseg.run import run_job as driver
from tilesseg.run import worker_check
from tilesseg.run.run_job import run_job
from tilesseg.run.worker_check import Proof, prove, refuse_if_unfit
from tilesseg.run.worker_state import Assignment, is_proven, open_run

TILING = {"patch": 32, "overlap": 8, "core": 64}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    scene = write_scene(tmp_path / "scene.tif", np.ones((1, 64, 64), np.uint8))
    asked = {"tiling": TILING, "input": {"check_range": False}, "output": {"dir": str(tmp_path / "run")}}
    return {**job_data(scene, write_bundle(tmp_path / "model"), tmp_path / "run"), **asked}


@pytest.fixture
def work(data: dict[str, Any]) -> Assignment:
    small = SmallRun(data)
    small.plan_scenes()
    return Assignment.of(small.run, first="scene")


def test_a_process_opens_a_run_once_for_each_execution(work: Assignment) -> None:
    opened = open_run(work)
    assert open_run(replace(work)) is opened
    later = replace(work, token="later")
    assert open_run(later) is not opened and open_run(later) is open_run(later)


def test_a_process_is_proven_for_the_execution_in_which_it_proved_itself(work: Assignment) -> None:
    assert not is_proven(work)
    open_run(work)
    assert not is_proven(work)
    assert prove(work).problem is None
    later = replace(work, token="later")
    assert is_proven(work) and not is_proven(later)
    open_run(later)
    assert not is_proven(later)


@pytest.mark.parametrize(
    ("address", "proven", "refused"), [("a", False, True), ("a", True, False), (None, False, False)]
)
def test_only_a_worker_of_a_cluster_that_is_not_proven_is_tried_before_an_item(
    work: Assignment, monkeypatch: pytest.MonkeyPatch, address: str | None, proven: bool, refused: bool
) -> None:
    monkeypatch.setattr(worker_check, "worker_address", lambda: address)
    monkeypatch.setattr(worker_check, "prove", lambda work: Proof("1", 0.0, 0.0, "no network here"))
    open_run(work).proven = proven
    if refused:
        with pytest.raises(UnfitWorker, match="no network here"):
            refuse_if_unfit(work)
    else:
        refuse_if_unfit(work)


def test_the_memory_of_a_run_is_checked_by_what_its_workers_measured(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = list[float]()
    monkeypatch.setattr(driver, "prove", lambda work: replace(prove(work), peak_mb=4321.0))
    monkeypatch.setattr(driver.cluster, "check_memory", lambda section, *, needed_mb, device: needed.append(needed_mb))
    assert run_job(parse_job(data, where="test"), executor=SerialExecutor()).exit_code == 0
    assert len(needed) == 1 and 4321 < needed[0] < 5000
