"""Law: every run ends by itself, or soon after it is asked to, whatever its tiles, workers and scheduler do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import yaml
from test_kill import children_of, finished, gone, tilesseg, wait_for_tiles, write_job

from benchmarks.own_scheduler import OwnScheduler
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.raster.window import Window
from tilesseg.store.run_directory import RunDirectory

pytestmark = [pytest.mark.kill, pytest.mark.cluster]

SIZE, CORE = 1536, 288
KINDS = {12: "not finite", **{value: reason for value, (reason, _) in fakes.Poison.kinds.items()}}
DEADLY = [value for value, reason in KINDS.items() if reason == "died"]


def write_scene(folder: Path, poison: dict[tuple[int, int], int]) -> None:
    """A scene of 36 tiles with a bad pixel in the middle of some, by row and column of the tile."""
    rows = np.random.default_rng(0).integers(0, 3, (1, SIZE, SIZE)).astype(np.uint8)
    for (row, column), value in poison.items():
        rows[0, row * CORE + CORE // 2, column * CORE + CORE // 2] = value
    grid = utm_grid((SIZE, SIZE), resolution=10)
    write_image(folder / "scene.tif", grid=grid, rows=[rows], names=["b1"], dtype="uint8")


def with_cluster(job: Path, **section: Any) -> Path:
    data = yaml.safe_load(job.read_text())
    data["cluster"] = section
    job.write_text(yaml.safe_dump(data))
    return job


def with_faults(job: Path, **section: Any) -> Path:
    data = yaml.safe_load(job.read_text())
    data["faults"] = section
    job.write_text(yaml.safe_dump(data))
    return job


@pytest.fixture(params=["local", "address"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path, strikes: Path) -> Iterator[dict[str, Any]]:
    """Two workers: of the run's own, or of somebody else's scheduler."""
    if request.param == "local":
        yield {"kind": "local", "workers": 2, "threads": 1, "engine_threads": 1}
        return
    with OwnScheduler(tmp_path / "dask", workers=2, threads=1) as running:
        yield {"kind": "address", "address": running.address, "engine_threads": 1}


@pytest.fixture
def strikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "strikes"
    folder.mkdir()
    monkeypatch.setenv(fakes.STRIKES, str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(fakes.__file__).parent), *sys.path]))
    return folder


def test_poison_of_every_kind_costs_itself_only(tmp_path: Path, strikes: Path, cluster: dict[str, Any]) -> None:
    tiles = {(n // 3 * 2, n % 3 * 2): value for n, value in enumerate(KINDS)}
    write_scene(tmp_path, tiles)
    code, out, err = finished("run", with_cluster(write_job(tmp_path, engine="Poison"), **cluster))
    assert (code, f"{36 - len(KINDS)} of 36 tiles done" in out) == (3, True), err
    failed = RunDirectory(tmp_path / "run").scene("scene").failed()
    names = {f"r{row:03}-c{column:03}": value for (row, column), value in tiles.items()}
    assert failed.keys() == names.keys()
    for name, record in failed.items():
        assert KINDS[names[name]] in record.reason, (name, record.reason)
    struck = Counter(int(path.name.split("-")[0]) for path in strikes.iterdir())
    assert all(1 <= struck[value] <= 2 for value in DEADLY), struck  # with others, unless they died first, and alone
    assert all(number == 1 for value, number in struck.items() if value not in DEADLY)
    mask = RunDirectory(tmp_path / "run").scene("scene").read(Window(0, 0, SIZE, SIZE))
    assert np.count_nonzero(mask == 254) == len(KINDS) * CORE * CORE


@pytest.mark.parametrize(
    ("poison", "section"),
    [
        (13, {"kind": "local", "workers": 2, "threads": 1}),
        (14, {"kind": "local", "workers": 1, "threads": 1}),  # before anything else has run on its worker
        (13, {"kind": "threads", "threads": 2}),
    ],
)
def test_a_tile_that_hangs_is_given_up_and_the_others_are_done(
    tmp_path: Path, strikes: Path, poison: int, section: dict[str, Any]
) -> None:
    write_scene(tmp_path, {(0, 0): poison})
    job = with_cluster(write_job(tmp_path, engine="Hangs"), **section, engine_threads=1)
    code, out, err = finished("run", with_faults(job, tile_timeout="3s"))
    assert (code, "35 of 36 tiles done" in out) == (3, True), err
    ((name, record),) = RunDirectory(tmp_path / "run").scene("scene").failed().items()
    assert name == "r000-c000"
    assert "it hung, " in record.reason
    assert "a tile without a step for 3 s is given up (faults.tile_timeout 3s)" in record.reason
    traces = list((tmp_path / "run" / "hung").glob("*.txt"))
    if section["kind"] == "local":
        assert traces
        assert all("in predict" in path.read_text() for path in traces)
    mask = RunDirectory(tmp_path / "run").scene("scene").read(Window(0, 0, SIZE, SIZE))
    assert np.count_nonzero(mask == 254) == CORE * CORE


def test_a_tile_that_hangs_on_a_scheduler_of_somebody_else_is_given_up(tmp_path: Path, strikes: Path) -> None:
    write_scene(tmp_path, {(2, 2): 14})
    with OwnScheduler(tmp_path / "dask", threads=2) as running:
        job = with_cluster(write_job(tmp_path, engine="Hangs"), kind="address", address=running.address)
        code, out, err = finished("run", with_faults(job, tile_timeout="3s"))
    assert (code, "35 of 36 tiles done" in out) == (3, True), err
    assert "it hung, also when it ran alone" in err


def test_slow_tiles_that_make_steps_are_not_given_up(tmp_path: Path, strikes: Path) -> None:
    write_scene(tmp_path, {})
    job = with_cluster(write_job(tmp_path, engine="Slow"), kind="local", workers=1, threads=1)
    code, out, err = finished("run", with_faults(job, tile_timeout="5s"))
    assert (code, "36 of 36 tiles done" in out) == (0, True), err
    assert not (tmp_path / "run" / "hung").exists()


def test_a_killed_scheduler_ends_the_run_with_code_4_and_the_next_run_goes_on(tmp_path: Path, strikes: Path) -> None:
    write_scene(tmp_path, {})
    with OwnScheduler(tmp_path / "dask", threads=1) as running:
        job = with_cluster(write_job(tmp_path, engine="Slow"), kind="address", address=running.address)
        process = tilesseg("run", job)
        wait_for_tiles(tmp_path / "run", 4, process)
        running.kill_scheduler()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert f"error: the Dask scheduler of the cluster at {running.address} has gone away (" in err
    assert "run again to go on" in err.splitlines()[-1]
    assert "Traceback" not in err
    code, out, err = finished("run", with_cluster(job, kind="threads", threads=2))
    assert (code, "36 of 36 tiles done" in out) == (0, True), err


def test_a_scheduler_that_comes_back_goes_on_where_the_job_wants_that(tmp_path: Path, strikes: Path) -> None:
    write_scene(tmp_path, {})
    with OwnScheduler(tmp_path / "dask", threads=1) as running:
        there = {"kind": "address", "address": running.address, "restart": True}
        process = tilesseg("run", with_cluster(write_job(tmp_path, engine="Slow"), **there))
        wait_for_tiles(tmp_path / "run", 4, process)
        running.kill_scheduler()
        time.sleep(2)
        running.start()
        out, err = process.communicate(timeout=180)
    assert (process.returncode, "36 of 36 tiles done" in out) == (0, True), err
    assert "the run goes on by itself" in err
    assert "Traceback" not in err


def test_without_workers_a_run_ends_after_its_patience_with_code_4(tmp_path: Path, strikes: Path) -> None:
    write_scene(tmp_path, {})
    with OwnScheduler(tmp_path / "dask", threads=1) as running:
        there = {"kind": "address", "address": running.address, "patience": "3s"}
        process = tilesseg("run", with_cluster(write_job(tmp_path, engine="Slow"), **there))
        wait_for_tiles(tmp_path / "run", 4, process)
        running.kill_nannies()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert "has had no worker for" in err.splitlines()[-1]
    assert "Traceback" not in err


class Heard(threading.Thread):
    """Lines of a process on stderr, with the time at which they came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.process, self.lines = process, list[tuple[float, str]]()
        self.start()

    def run(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line.rstrip()))
        self.process.stderr.close()

    def at(self, start: str) -> float:
        """Time at which a line came that begins so."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            times = [at for at, line in self.lines if line.startswith(start)]
            if times:
                return times[0]
            time.sleep(0.02)
        raise AssertionError((start, self.lines))


@pytest.mark.parametrize(
    ("kind", "poison", "how"),
    [("local", 14, "once"), ("local", 14, "twice"), ("local", 13, "SIGTERM"), ("threads", 13, "once")],
)
def test_a_run_whose_workers_hang_ends_soon_after_it_is_asked_to(
    tmp_path: Path, kind: str, poison: int, how: str
) -> None:
    write_scene(tmp_path, {(0, 1): poison})
    job = with_cluster(write_job(tmp_path, engine="Hangs"), kind=kind, workers=1, threads=1)
    process = tilesseg("run", job, start_new_session=True)
    heard = Heard(process)
    assert process.stdout is not None
    process.stdout.close()
    wait_for_tiles(tmp_path / "run", 1, process)
    time.sleep(1)
    workers, asked = children_of(process.pid), time.monotonic()
    process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)
    assert heard.at("stopping: ") - asked < 5  # a second, on a machine that is not busy
    if how == "twice":
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    took = time.monotonic() - asked
    assert took < (10 if how == "twice" else 30)  # ten seconds, on a machine that is not busy
    assert heard.at("interrupted: ") > asked
    heard.join(30)
    assert not any("Traceback" in line for _, line in heard.lines), heard.lines
    assert gone(workers, within=30)
