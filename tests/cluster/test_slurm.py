"""A real SLURM: driver and workers as its jobs, killed in every way, and the mask is that of a local run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import slurm_server
import yaml
from fakes import spec_data
from slurm_server import Slurm, wait

from tilesseg.cluster.queue.schedulers import queue_name, submitted_jobs
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.store.driver_record import drivers

pytestmark = pytest.mark.cluster

SIZE = 1536
SUPPORT = Path(__file__).parents[1] / "support"
TILES = 100


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    why_not = slurm_server.missing()
    if why_not:
        pytest.skip(why_not)
    with slurm_server.slurm_server(tmp_path_factory.mktemp("slurm")) as server:
        yield server


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene, a model that takes its time, and the mask that a run without any queue gives."""
    path = tmp_path_factory.mktemp("jobs")
    rows = np.random.default_rng(0).integers(1, 12, (1, SIZE, SIZE)).astype(np.uint8)
    grid = utm_grid((SIZE, SIZE), resolution=10)
    write_image(path / "scene.tif", grid=grid, rows=[rows], names=["b1"], dtype="uint8")
    (path / "model").mkdir()
    patch = {"multiple": 16, "stride_multiple": 16, "preferred": 64}
    spec = spec_data("Slow", input_range=[0, 12], patch=patch, margin=16)
    (path / "model" / "model.yaml").write_text(yaml.safe_dump(spec))
    write_job(path, "local", kind="threads", threads=16)
    code, _, err = tilesseg("run", path / "local.yaml")
    assert code == 0, err
    return path


def write_job(folder: Path, run: str, **cluster: Any) -> Path:
    data = {
        "scenes": "scene.tif",
        "model": "./model",
        "tiling": {"core": 160, "blend": "crop", "batch": 1},
        "output": {"dir": run, "preview": False},
        "cluster": {"engine_threads": 1, **cluster},
    }
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def slurm_job(folder: Path, run: str, **cluster: Any) -> Path:
    """A job whose workers are jobs of SLURM."""
    driver = {"cores": 1, "memory": "1GiB"}
    asked = {"kind": "slurm", "workers": 2, "threads": 6, "cores": 2, "memory": "2GiB", "walltime": "00:10:00"}
    return write_job(folder, run, **{**asked, "driver": driver, **cluster})


def tilesseg(*arguments: str | Path, slurm: Slurm | None = None) -> tuple[int, str, str]:
    """A command in a process of its own, in the folder of its argument: files that nobody asked for are seen there."""
    environment = {
        **(slurm.environment if slurm else os.environ),
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]),
    }
    command = [sys.executable, "-m", "tilesseg", *map(str, arguments)]
    done = subprocess.run(
        command, text=True, capture_output=True, env=environment, cwd=Path(arguments[1]).parent, timeout=180
    )
    return done.returncode, done.stdout, done.stderr


def submitted(job: Path, slurm: Slurm, *options: str) -> Path:
    """Submit, and give the run directory."""
    code, out, err = tilesseg("submit", job, *options, slurm=slurm)
    assert code == 0, err
    run = job.with_suffix("")
    assert f"run directory: {run}" in out
    assert all(f"submitted job {one.id}" in out for one in submitted_jobs(run)[-1:])
    return run


def logs_of(run: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted((run / "logs").glob("*")))


def done_tiles(run: Path) -> int:
    return len(list(run.glob("scenes/scene/done/r*.json")))


def wait_for_tiles(run: Path, count: int, slurm: Slurm) -> None:
    wait_in(run, lambda: done_tiles(run) >= count, f"{count} tiles", slurm)


def wait_for_end(run: Path, slurm: Slurm) -> None:
    """Until none of the run's jobs is in the queue."""
    wait_in(run, lambda: not own_jobs(run, slurm), "the end of the run", slurm)


def wait_in(run: Path, until: Any, what: str, slurm: Slurm) -> None:
    try:
        wait(until, what, slurm, seconds=300)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{slurm.jobs()}\n{logs_of(run)}") from None


def own_jobs(run: Path, slurm: Slurm) -> list[str]:
    return [name for name in slurm.jobs().values() if name.startswith(queue_name(run))]


def workers(run: Path, slurm: Slurm) -> list[str]:
    """Ids of the jobs that are workers of a run."""
    return [job for job, name in slurm.jobs().items() if name == queue_name(run)]


def assert_as_local(run: Path, folder: Path) -> None:
    """The COG is the local run's, byte for byte, and the run says that nothing is missing."""
    assert (run / "summary.json").exists(), logs_of(run)
    (scene,) = json.loads((run / "summary.json").read_text())["scenes"]
    assert (scene["state"], scene["done"], scene["failed"]) == ("complete", TILES, {}), logs_of(run)
    found, expected = (next(one.glob("scenes/scene/*.tif")) for one in (run, folder / "local"))
    assert found.read_bytes() == expected.read_bytes()
    with rasterio.open(found) as file:
        assert len(np.unique(file.read())) == 3


def test_a_submitted_run_has_driver_and_workers_in_the_queue_and_gives_the_mask_of_a_local_one(
    slurm: Slurm, folder: Path
) -> None:
    run = submitted(slurm_job(folder, "whole"), slurm)
    wait_in(run, lambda: len(workers(run, slurm)) == 2, "two workers", slurm)
    assert f"{queue_name(run)}-driver" in slurm.jobs().values()
    wait_for_end(run, slurm)
    assert_as_local(run, folder)
    assert drivers(run) == []
    assert not list(folder.glob("slurm-*.out"))
    code, out, _ = tilesseg("logs", run)
    assert code == 0 and f"==> driver-{submitted_jobs(run)[0].id}.log <==" in out and "100/100 tiles" in out
    code, out, _ = tilesseg("logs", run, "--worker", queue_name(run), "--tail", "0")
    assert code == 0 and "Start Nanny" in out and "driver-" not in out


def test_a_run_that_loses_a_worker_to_the_queue_is_complete(slurm: Slurm, folder: Path) -> None:
    run = submitted(slurm_job(folder, "bereft 50%"), slurm)
    wait_for_tiles(run, 2, slurm)
    slurm.ask("scancel", workers(run, slurm)[0])
    wait_for_end(run, slurm)
    assert_as_local(run, folder)


def test_cancel_ends_driver_and_workers_and_what_is_done_is_kept(slurm: Slurm, folder: Path) -> None:
    job = slurm_job(folder, "cancelled", threads=2)
    run = submitted(job, slurm)
    wait_for_tiles(run, 2, slurm)
    code, _, err = tilesseg("submit", job, slurm=slurm)
    assert code == 1 and f"in the queue already, as job {submitted_jobs(run)[0].id}" in err
    code, out, err = tilesseg("cancel", run, slurm=slurm)
    assert code == 0, err
    assert f"ended job {submitted_jobs(run)[0].id} of the queue slurm" in out
    wait_for_end(run, slurm)
    kept = done_tiles(run)
    assert 2 <= kept < TILES
    code, _, err = tilesseg("cancel", run, slurm=slurm)
    assert code == 1 and "0 jobs in a queue and 0 drivers" in err
    submitted(slurm_job(folder, "cancelled"), slurm)
    wait_for_end(run, slurm)
    assert_as_local(run, folder)
    assert f"tiles to do: {TILES - kept}" in logs_of(run)


def shorten(job: str, slurm: Slurm) -> None:
    """Let the wall time of a job end in one or two minutes, which is as exact as SLURM is."""
    *_, minutes, _ = slurm.ask("squeue", "--noheader", f"--jobs={job}", "--format=%M").split(":")
    slurm.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={int(minutes) + 2}")


@pytest.mark.kill
def test_a_run_whose_wall_time_ends_goes_on_when_it_is_submitted_again(slurm: Slurm, folder: Path) -> None:
    job = slurm_job(folder, "short", workers=1, threads=1)
    run = submitted(job, slurm)
    wait_for_tiles(run, 2, slurm)
    (driver,) = submitted_jobs(run)
    shorten(driver.id, slurm)
    wait_for_end(run, slurm)
    kept = done_tiles(run)
    assert 0 < kept < TILES, logs_of(run)
    assert "interrupted: what is done is kept" in logs_of(run)
    slurm_job(folder, "short")
    submitted(job, slurm)
    wait_for_end(run, slurm)
    assert_as_local(run, folder)


def test_a_job_array_shares_the_tiles_and_its_last_job_finds_all_done(slurm: Slurm, folder: Path) -> None:
    run = submitted(slurm_job(folder, "shared by three"), slurm, "--array", "3")
    array, finish = submitted_jobs(run)
    assert (array.array, finish.array) == (3, None)
    wait_for_end(run, slurm)
    assert_as_local(run, folder)
    elements = sorted(path.name for path in (run / "logs").glob(f"driver-{array.id}_*.log"))
    assert elements == [f"driver-{array.id}_{n}.log" for n in (1, 2, 3)]


def test_what_an_array_has_left_is_done_by_its_last_job(slurm: Slurm, folder: Path) -> None:
    run = submitted(slurm_job(folder, "robbed"), slurm, "--array", "2")
    array, _ = submitted_jobs(run)
    wait_for_tiles(run, 2, slurm)
    slurm.ask("scancel", f"{array.id}_2")
    wait_for_end(run, slurm)
    assert_as_local(run, folder)


def test_a_job_waits_for_the_one_it_comes_after(slurm: Slurm, folder: Path) -> None:
    blocker = slurm.ask("sbatch", "--parsable", "--mem=10", "--output=/dev/null", "--wrap", "sleep 60")
    run = submitted(slurm_job(folder, "later"), slurm, "--after", blocker)
    time.sleep(3)
    mine = submitted_jobs(run)[0].id
    assert slurm.ask("squeue", "--noheader", f"--jobs={mine}", "--format=%T %r") == "PENDING Dependency"
    code, _, err = tilesseg("submit", slurm_job(folder, "later"), "--after", mine, slurm=slurm)
    assert code == 0, err
    assert len(own_jobs(run, slurm)) == 2
    code, out, err = tilesseg("cancel", run, slurm=slurm)
    assert code == 0 and out.count("ended job") == 2, err
    slurm.ask("scancel", blocker)


def test_a_tile_that_hangs_is_given_up_by_workers_of_the_queue(slurm: Slurm, tmp_path: Path) -> None:
    """It holds the interpreter of its worker, twice: with others, and alone."""
    rows = np.random.default_rng(0).integers(1, 12, (1, 640, 640)).astype(np.uint8)
    rows[0, 240, 400] = 14
    grid = utm_grid((640, 640), resolution=10)
    write_image(tmp_path / "scene.tif", grid=grid, rows=[rows], names=["b1"], dtype="uint8")
    (tmp_path / "model").mkdir()
    patch = {"multiple": 16, "stride_multiple": 16, "preferred": 64}
    spec = spec_data("Hangs", input_range=[0, 20], patch=patch, margin=16, classes=15)
    (tmp_path / "model" / "model.yaml").write_text(yaml.safe_dump(spec))
    job = slurm_job(tmp_path, "run", threads=1)
    job.write_text(job.read_text() + "faults: {tile_timeout: 5s}\n")
    code, out, err = tilesseg("run", job, slurm=slurm)
    assert (code, "15 of 16 tiles done" in out) == (3, True), err + logs_of(tmp_path / "run")
    assert "it hung, also when it ran alone: a tile without a step for 5 s is given up" in out + err
    assert list((tmp_path / "run" / "hung").glob("*.txt"))
