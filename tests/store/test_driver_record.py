"""A record names the process that executes a run for as long as the process lives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tilesseg.errors import StoreError
from tilesseg.store.driver_record import IDS, Driver, driver_record, drivers, end_driver, left_behind


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDS:
        monkeypatch.delenv(name, raising=False)


def test_a_driver_is_listed_while_it_works_and_leaves_no_record(tmp_path: Path) -> None:
    before = time.time()
    with driver_record(tmp_path), driver_record(tmp_path, "3/8"):
        of_share, whole = drivers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"driver.json", "driver-3-of-8.json"}
        assert (whole.pid, whole.shard, whole.job, of_share.shard) == (os.getpid(), None, None, "3/8")
        assert whole.here and before <= whole.started <= time.time()
        assert not left_behind(tmp_path)
    assert drivers(tmp_path) == [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"host": "node", "pid": 1, "started": 0, "job": null}', '{"host": 1}', "[]", "{"])
def test_a_record_that_nobody_holds_is_left_behind_and_no_driver(tmp_path: Path, text: str) -> None:
    assert not left_behind(tmp_path)
    (tmp_path / "driver.json").write_text(text)
    assert drivers(tmp_path) == [] and left_behind(tmp_path)
    with driver_record(tmp_path):  # the next driver takes its place
        assert len(drivers(tmp_path)) == 1 and not left_behind(tmp_path)


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17"}, "17"),
        ({"PBS_JOBID": "17[12].server"}, "17[].server"),
        ({"PBS_JOBID": "17.server"}, "17.server"),
    ],
)
def test_a_record_names_the_job_as_its_submission_printed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], job: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with driver_record(tmp_path):
        assert json.loads((tmp_path / "driver.json").read_text())["job"] == job


def test_a_driver_has_ended_once_its_record_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr("tilesseg.store.driver_record.os.kill", lambda *sent: signals.append(sent))
    with driver_record(tmp_path):
        (driver,) = drivers(tmp_path)
        begun = time.monotonic()
        assert not end_driver(driver, tmp_path, within=0.2)
        assert time.monotonic() - begun >= 0.2
    assert end_driver(driver, tmp_path, within=5)
    assert signals == [(os.getpid(), signal.SIGTERM)] * 2


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="open files of other processes are known by /proc")
def test_a_process_that_does_not_hold_the_record_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with driver_record(tmp_path), pytest.raises(StoreError, match="does not work on"):
            end_driver(replace(drivers(tmp_path)[0], pid=other.pid), tmp_path, within=0.2)
        assert other.poll() is None


def test_a_driver_of_another_machine_is_not_here() -> None:
    assert not Driver("a machine of no such name", 1, 0.0, None).here
