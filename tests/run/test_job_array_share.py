"""Several processes share a run without a scheduler: the ledger is where they meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, write_bundle, write_scene

from tilesseg.cli.main import run
from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, StoreError
from tilesseg.events import Event, ProductWritten, TileDone, TileFailed
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.scene_list import Scene
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import open_run_directory, stored_scene_plan
from tilesseg.run.finish_scene import finish_scene, still_finished
from tilesseg.run.job_array_share import ArrayShare, parse_share
from tilesseg.run.prepare_run import prepare
from tilesseg.run.run_job import job_status, run_job
from tilesseg.store.locks import held, holder

TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}
SUPPORT = Path(__file__).parents[1] / "support"


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
    report = run_job(job, executor=SerialExecutor(), listeners=[events.append], share=ArrayShare(number, of))
    assert report.exit_code == 0
    return events


class More(SerialExecutor):
    """Another machine."""

    slots = 7


def tiles(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.scene, event.tile) for event in events if isinstance(event, TileDone)]


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: rasterio.open(path).read().tobytes() for path in sorted(folder.glob("scenes/*/*.tif"))}


@pytest.mark.parametrize("of", [1, 2, 5, 40])
@pytest.mark.parametrize("stage", ["never", "always"])
def test_shares_do_every_tile_once_and_give_the_mask_of_one_process(
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


def test_the_first_share_makes_the_plan_and_the_others_take_it(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job = ask(scenes, bundle, tmp_path / "run", tiling={**TILING, "core": "auto"})
    share(job, 1, 2)
    before = (tmp_path / "run" / "plan.json").read_bytes()
    run_job(job, executor=More(), share=ArrayShare(2, 2))
    assert (tmp_path / "run" / "plan.json").read_bytes() == before
    assert job_status(tmp_path / "run").exit_code == 0


def test_shares_that_begin_at_the_same_moment_share_one_plan_and_one_copy(
    scenes: list[str], bundle: Path, tmp_path: Path
) -> None:
    run_job(ask(scenes[:1], bundle, tmp_path / "whole"), executor=SerialExecutor())
    for attempt in range(4):
        folder, at_once = tmp_path / f"run{attempt}", threading.Barrier(6)
        job = ask(scenes[:1], bundle, folder, input={"stage": "always"})

        def begin(number: int, job: Job = job, at_once: threading.Barrier = at_once) -> list[Event]:
            at_once.wait()
            return share(job, number, 6)

        with ThreadPoolExecutor(6) as threads:
            events = [event for found in threads.map(begin, range(1, 7)) for event in found]
        assert set(Counter(tiles(events)).values()) == {1} and len(tiles(events)) == 20
        assert masks(folder) == masks(tmp_path / "whole")
        assert not list(folder.rglob("staged")) and job_status(folder).exit_code == 0


def test_a_share_takes_the_plan_of_those_that_work_even_where_no_tile_is_done_yet(
    scenes: list[str], bundle: Path, tmp_path: Path
) -> None:
    job = ask(scenes[:1], bundle, tmp_path / "run", tiling={**TILING, "core": "auto"})
    with prepare(job, Machine("cpu", 1, 1), share=ArrayShare(1, 2)) as ready:
        assert run_job(job, executor=More(), share=ArrayShare(2, 2)).exit_code == 0
        assert open_run_directory(tmp_path / "run")[1].compute.slots == ready.plan.compute.slots == 1
    share(job, 1, 2)
    assert job_status(tmp_path / "run").exit_code == 0


def test_a_plan_by_which_nobody_works_and_nothing_is_done_binds_no_share(
    scenes: list[str], bundle: Path, tmp_path: Path
) -> None:
    """`tilesseg plan` on the login node decides nothing for the machines that compute."""
    with prepare(ask(scenes, bundle, tmp_path / "run"), Machine("cpu", 1, 1)):
        pass
    job = ask(scenes, bundle, tmp_path / "run", tiling={**TILING, "overlap": 16})
    assert run_job(job, executor=More(), share=ArrayShare(1, 1)).exit_code == 0
    assert open_run_directory(tmp_path / "run")[1].compute.slots == 7
    with pytest.raises(StoreError, match="overlap was 16 and is 8 now"):
        share(ask(scenes, bundle, tmp_path / "run"), 1, 1)


def test_a_scene_may_be_called_as_the_locks_of_the_run_are(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    names = ("run", "shard-1-of-2", "scenes")
    job = ask([{"image": scenes[1], "name": name} for name in names], bundle, tmp_path / "run")
    for number in (1, 2):
        share(job, number, 2)
    assert {scene.state for scene in job_status(tmp_path / "run").scenes} == {"complete"}


def test_a_tile_that_is_done_while_products_are_written_is_not_taken_to_be_in_them(
    scenes: list[str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process tries a tile again that failed once, and another one thinks that all have been tried."""
    job = ask(scenes[0], bundle, tmp_path / "run")
    run_job(job, executor=SerialExecutor())
    run, plan = open_run_directory(tmp_path / "run")
    store = run.scene("s0")
    planned, record = stored_scene_plan(store), store.folder / "done" / "r000-c000.json"
    assert planned is not None
    scene_run = SceneRun(store, plan, planned)
    text = record.read_text()
    record.unlink()
    store.mark_failed(TileFailed("s0", "r000-c000", 64 * 64, "out of luck"))

    def write(*_: Any, **__: Any) -> Iterator[ProductWritten]:
        yield ProductWritten("s0", str(tmp_path / "mask.tif"), 0.0)
        record.write_text(text)
        (store.folder / "failed" / "r000-c000.json").unlink()

    monkeypatch.setattr("tilesseg.run.finish_scene.write_products", write)
    ended = finish_scene(scene_run, job.output, executor=SerialExecutor(), threads=1)
    assert ended.state == "failed tiles" and still_finished(scene_run, job.output) is None


@pytest.mark.cluster
def test_shares_with_workers_of_their_own_write_no_product_before_the_last_tile(
    scenes: list[str], bundle: Path, tmp_path: Path
) -> None:
    run_job(ask(scenes[0], bundle, tmp_path / "whole"), executor=SerialExecutor())
    job = ask(scenes[0], bundle, tmp_path / "run", input={"stage": "always"})
    with cluster.connect(Cluster(workers=1, threads=2), "cpu") as executor:
        assert run_job(job, executor=executor, share=ArrayShare(1, 2)).exit_code == 0
        assert not list((tmp_path / "run").rglob("*.tif")) and list((tmp_path / "run").rglob("staged"))
        assert run_job(job, executor=executor, share=ArrayShare(2, 2)).exit_code == 0
    assert masks(tmp_path / "run") == masks(tmp_path / "whole")
    assert not list((tmp_path / "run").rglob("staged"))


def test_shares_go_through_a_job_together_each_beginning_with_another_scene() -> None:
    named = [Scene(f"s{n}", (f"s{n}",)) for n in range(11)]
    orders = [[scene.name for scene in ArrayShare(number, 4).turned(named)] for number in range(1, 5)]
    assert orders[0] == [scene.name for scene in named] and len({order[0] for order in orders}) == 4
    for order in orders:
        assert sorted(order) == sorted(orders[0])
        assert all(abs(place - int(name[1:])) < 4 for place, name in enumerate(order)), "the important ones come first"


def test_what_a_lost_share_leaves_an_ordinary_run_finishes(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job = ask(scenes, bundle, tmp_path / "run")
    done = [tile for number in (1, 3) for tile in tiles(share(job, number, 3))]
    assert job_status(tmp_path / "run").exit_code == 3
    events: list[Event] = []
    assert run_job(job, executor=SerialExecutor(), listeners=[events.append]).exit_code == 0
    assert not set(done) & set(tiles(events)) and len(done) + len(tiles(events)) == 45


def test_a_run_is_held_by_one_process_or_by_its_shares(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    job, machine = ask(scenes, bundle, tmp_path / "run"), Machine("cpu", 1, 1)
    with prepare(job, machine), pytest.raises(StoreError, match=rf"is being worked on by .*:{os.getpid()};"):
        run_job(job, executor=SerialExecutor())
    with prepare(job, machine, share=ArrayShare(1, 2)):
        share(job, 2, 2)
        with pytest.raises(StoreError, match=r"part 1/2 of .* is being worked on by"):
            share(job, 1, 2)
        with pytest.raises(StoreError, match="is being worked on by"):
            run_job(job, executor=SerialExecutor())
    assert run_job(job, executor=SerialExecutor()).exit_code == 0


@pytest.mark.parametrize("of", [None, 1])
def test_parts_of_a_run_are_locked_where_shares_work_on_it(bundle: Path, tmp_path: Path, of: int | None) -> None:
    scene = write_scene(tmp_path / "s.tif", np.ones((1, 64, 64), np.uint8))
    part = ArrayShare(1, of) if of else None
    run_job(ask(scene, bundle, tmp_path / "run"), executor=SerialExecutor(), share=part)
    locks = sorted(path.name for path in (tmp_path / "run").glob("locks/scenes/s/*"))
    assert locks == (["plan", "products"] if of else [])


def test_a_lock_is_let_go_by_a_process_that_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\nfrom tilesseg.store.locks import held\n"
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
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="1/8"):
        parse_share(text)


@pytest.mark.parametrize("option", ["--part", "--shard"])
def test_the_former_name_of_the_option_does_the_same(
    option: str, scenes: list[str], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_data(scenes[0], bundle, tmp_path / "run", tiling=TILING)))
    for number in (1, 2):
        assert run(["run", str(tmp_path / "job.yaml"), option, f"{number}/2"]) == 0
        done = len(list((tmp_path / "run").rglob("done/*.json")))
        assert done == (10, 20)[number - 1], capsys.readouterr()
    assert run(["run", str(tmp_path / "job.yaml"), option, "3/2"]) == 1
    assert "error: --part 3/2 is not I/N" in capsys.readouterr().err


@pytest.mark.kill
def test_shares_in_processes_of_their_own_one_of_them_killed(scenes: list[str], bundle: Path, tmp_path: Path) -> None:
    slow = write_bundle(tmp_path / "slow", "Slow")
    run_job(ask(scenes, slow, tmp_path / "whole"), executor=SerialExecutor())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_data(scenes, slow, tmp_path / "run", tiling=TILING)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tilesseg", "run", str(tmp_path / "job.yaml"), "--part", f"{number}/3"]
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
