"""Nothing is lost when something dies: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import spec_data

from benchmarks.harness import role
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.raster.window import Window
from tilesseg.store.run_directory import RunDirectory

pytestmark = [pytest.mark.kill, pytest.mark.cluster]

SIZE = 1536
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of 36 tiles with a slow model, on one worker process."""
    rows = np.random.default_rng(0).integers(1, 12, (1, SIZE, SIZE)).astype(np.uint8)
    write_image(
        tmp_path / "scene.tif", grid=utm_grid((SIZE, SIZE), resolution=10), rows=[rows], names=["b1"], dtype="uint8"
    )
    return write_job(tmp_path, engine="Slow")


def write_job(folder: Path, *, engine: str, workers: int = 1, run: str = "run", **tiling: Any) -> Path:
    model = folder / engine.lower()
    model.mkdir(exist_ok=True)
    patch = {"multiple": 16, "stride_multiple": 16, "preferred": 128}
    (model / "model.yaml").write_text(
        yaml.safe_dump(spec_data(engine, input_range=[0, 12], patch=patch, margin=16, classes=3))
    )
    path = folder / f"{run}.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "scenes": "scene.tif",
                "model": engine.lower(),
                "tiling": {"core": 288, "blend": "crop", **tiling},
                "output": {"dir": run, "preview": False},
                "cluster": {"workers": workers, "threads": 1, "engine_threads": 1},
            }
        )
    )
    return path


def tilesseg(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    command = [sys.executable, "-m", "tilesseg", *map(str, arguments)]
    return subprocess.Popen(
        command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **options
    )


def finished(*arguments: str | Path) -> tuple[int, str, str]:
    process = tilesseg(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_tiles(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    done = run / "scenes" / "scene" / "done"
    deadline = time.monotonic() + 60
    while not done.is_dir() or len(list(done.glob("r*.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mask_bytes(run: Path) -> bytes:
    store = RunDirectory(run).scene("scene")
    return store.read(Window(0, 0, *store.shape)).tobytes()


def tiles_done_in_last_carrying_out(run: Path) -> int:
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    last = len(events) - 1 - events[::-1].index("run_started")
    return events[last:].count("tile_done")


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if int(fields["PPid"]) == pid:
            child = int(fields["Pid"])
            found += [child, *children_of(child)]
    return found


def gone(pids: list[int], within: float) -> bool:
    deadline = time.monotonic() + within
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_killed_after_k_of_n_the_next_run_does_the_rest_and_the_mask_is_the_same(job: Path, tmp_path: Path) -> None:
    process = tilesseg("run", job)
    wait_for_tiles(tmp_path / "run", 14, process)
    workers = children_of(process.pid)
    process.kill()
    process.communicate()
    assert gone(workers, within=60), "worker processes outlive their client"
    done = len(list((tmp_path / "run/scenes/scene/done").glob("r*.json")))
    assert 14 <= done < 36
    assert not list((tmp_path / "run").rglob("*.tif"))

    code, out, err = finished("run", job)
    assert (code, tiles_done_in_last_carrying_out(tmp_path / "run")) == (0, 36 - done), err
    assert "36 of 36 tiles done" in out

    code, _, err = finished("run", write_job(tmp_path, engine="Slow", run="whole"))
    assert code == 0, err
    assert mask_bytes(tmp_path / "run") == mask_bytes(tmp_path / "whole")
    assert (tmp_path / "run/scenes/scene/scene.tif").exists()

    code, out, err = finished("run", write_job(tmp_path, engine="Slow", blend="gaussian", overlap=32))
    assert (code, out) == (1, "")
    assert "tiling.blend was crop and is gaussian now" in err
    assert "tiling.overlap was auto and is 32 now" in err
    assert err.count("\n") == 1


def test_interrupted_it_ends_with_130_and_says_how_to_go_on(job: Path, tmp_path: Path) -> None:
    process = tilesseg("run", job, start_new_session=True)
    wait_for_tiles(tmp_path / "run", 3, process)
    workers = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process gets it
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in err
    assert gone(workers, within=60)
    code, out, err = finished("run", job)
    assert (code, "36 of 36 tiles done" in out) == (0, True), err


def test_a_tile_that_kills_its_worker_is_listed_and_the_others_are_done(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (1, SIZE, SIZE)).astype(np.uint8)
    rows[0, 700, 700] = 13
    write_image(
        tmp_path / "scene.tif", grid=utm_grid((SIZE, SIZE), resolution=10), rows=[rows], names=["b1"], dtype="uint8"
    )
    code, out, err = finished("run", write_job(tmp_path, engine="Deadly", workers=2))
    assert code == 3, err
    assert "35 of 36 tiles done" in out
    store = RunDirectory(tmp_path / "run").scene("scene")
    assert list(store.failed()) == ["r002-c002"]
    assert "died" in store.failed()["r002-c002"].reason
    mask = store.read(Window(0, 0, *store.shape))
    failed = np.zeros_like(mask, bool)
    failed[576:864, 576:864] = True
    assert (mask[failed] == 254).all()
    assert (mask[~failed] == rows[0][~failed]).all()


def test_a_worker_killed_in_the_middle_costs_nothing(job: Path, tmp_path: Path) -> None:
    process = tilesseg("run", write_job(tmp_path, engine="Slow", workers=2))
    wait_for_tiles(tmp_path / "run", 5, process)
    workers = [pid for pid in children_of(process.pid) if role(pid) == "worker"]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, "36 of 36 tiles done" in out) == (0, True), err


def test_the_server_that_workers_are_forked_from_killed_in_the_middle_costs_nothing(job: Path, tmp_path: Path) -> None:
    process = tilesseg("run", write_job(tmp_path, engine="Slow", workers=2))
    wait_for_tiles(tmp_path / "run", 5, process)
    others = children_of(process.pid)
    server = next(
        pid for pid in others if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes() and role(pid) == "other"
    )
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, "36 of 36 tiles done" in out) == (0, True), err
    assert gone(others, within=10)
