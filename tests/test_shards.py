"""Several processes share a run without a scheduler: the ledger is where they meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, write_bundle, write_scene

from tilesseg.errors import JobError, StoreError
from tilesseg.events import Event, ProductWritten, TileDone
from tilesseg.executors import SerialExecutor
from tilesseg.job import Job, parse_job
from tilesseg.locks import held, holder
from tilesseg.plan import Machine
from tilesseg.preparation import prepare
from tilesseg.run import job_status, run_job
from tilesseg.shards import Shard, parse_shard

TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}
TESTS = Path(__file__).parent


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", "Positional")


@pytest.fixture
def scenes(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(5)
    shapes = [(200, 300), (64, 64), (130, 500)]
    return [
        str(write_scene(tmp_path / f"s{n}.tif", rng.integers(20, 250, (1, *shape)).astype(np.uint8), blockysize=16))
        for n, shape in enumerate(shapes)
    ]


def ask(scenes: Any, bundle: Path, folder: Path, **changes: Any) -> Job:
    return parse_job(job_data(scenes, bundle, folder, **{"tiling": TILING, **changes}), where="test")


def share(job: Job, number: int, of: int) -> list[Event]:
    events: list[Event] = []
    report = run_job(job, executor=SerialExecutor(), listeners=[events.append], shard=Shard(number, of))
    assert report.exit_code == 0
    return events


def tiles(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.scene, event.tile) for event in events if isinstance(event, TileDone)]


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: rasterio.open(path).read().tobytes() for path in sorted(folder.glob("scenes/*/*.tif"))}


@pytest.mark.parametrize("of", [1, 2, 5, 40])
@pytest.mark.parametrize("stage", ["never", "always"])
def test_shards_do_every_tile_once_and_give_the_mask_of_one_process(
    scenes: list[str], bundle: Path, tmp_path: Path, of: int, stage: str
) -> None:
    run_job(ask(scenes, bundle, tmp_path / "whole"), executor=SerialExecutor())
    job = ask(scenes, bundle, tmp_path / "run", input={"stage": stage})
    events = [event for number in range(1, of + 1) for event in share(job, number, of)]
    assert set(Counter(tiles(events)).values()) == {1} and len(tiles(events)) == 20 + 1 + 24
    assert masks(tmp_path / "run") == masks(tmp_path / "whole") and len(masks(tmp_path / "run")) == 3
    assert job_status(tmp_path / "run").exit_code == 0
    written = [event.path for event in events if isinstance(event, ProductWritten)]
    assert len(written) == len(set(written)), "each product is written once, by whoever does a scene's last tile"
    assert not list((tmp_path / "run").rglob("staged"))


def test_the_first_shard_makes_the_plan_and_the_others_take_it(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job = ask(scenes, bundle, tmp_path / "run", tiling={**TILING, "core": "auto"})
    share(job, 1, 2)
    before = (tmp_path / "run" / "plan.json").read_bytes()

    class More(SerialExecutor):
        slots = 7

    run_job(job, executor=More(), shard=Shard(2, 2))
    assert (tmp_path / "run" / "plan.json").read_bytes() == before
    assert job_status(tmp_path / "run").exit_code == 0


def test_what_a_lost_shard_leaves_an_ordinary_run_finishes(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job = ask(scenes, bundle, tmp_path / "run")
    done = [tile for number in (1, 3) for tile in tiles(share(job, number, 3))]
    assert job_status(tmp_path / "run").exit_code == 3
    events: list[Event] = []
    assert run_job(job, executor=SerialExecutor(), listeners=[events.append]).exit_code == 0
    assert not set(done) & set(tiles(events)) and len(done) + len(tiles(events)) == 45


def test_a_run_is_held_by_one_process_or_by_its_shards(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job, machine = ask(scenes, bundle, tmp_path / "run"), Machine("cpu", 1, 1)
    with prepare(job, machine), pytest.raises(StoreError, match=rf"is being worked on by .*:{os.getpid()};"):
        run_job(job, executor=SerialExecutor())
    with prepare(job, machine, shard=Shard(1, 2)):
        share(job, 2, 2)
        with pytest.raises(StoreError, match=r"shard 1/2 of .* is being worked on by"):
            share(job, 1, 2)
        with pytest.raises(StoreError, match="is being worked on by"):
            run_job(job, executor=SerialExecutor())
    assert run_job(job, executor=SerialExecutor()).exit_code == 0


def test_a_lock_is_let_go_by_a_process_that_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom tilesseg.locks import held\n"
        "with held(pathlib.Path(sys.argv[1])) as got:\n    print(got, flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "True\n"
        with held(tmp_path / "lock") as got:
            assert not got
        assert holder(tmp_path / "lock").endswith(f":{other.pid}")
        other.kill()
    with held(tmp_path / "lock") as got:
        assert got


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "a/b", "-1/3", ""])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="1/8"):
        parse_shard(text)


@pytest.mark.kill
def test_shards_in_processes_of_their_own_one_of_them_killed(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow", "Slow")
    run_job(ask(scenes, slow, tmp_path / "whole"), executor=SerialExecutor())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_data(scenes, slow, tmp_path / "run", tiling=TILING)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tilesseg", "run", str(tmp_path / "job.yaml"), "--shard", f"{number}/3"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    running = [start(number) for number in (1, 2, 3)]
    done = tmp_path / "run" / "scenes"
    deadline = time.monotonic() + 60
    while len(list(done.glob("*/done/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    running[1].send_signal(signal.SIGKILL)
    assert [process.wait(timeout=120) for process in running] == [0, -signal.SIGKILL, 0]
    with start(2) as again:
        assert again.wait(timeout=120) == 0
    assert masks(tmp_path / "run") == masks(tmp_path / "whole") and len(masks(tmp_path / "run")) == 3
