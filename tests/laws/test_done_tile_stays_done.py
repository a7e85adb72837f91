"""Law: whatever an attempt of an earlier run does late, mask and account are those of a quiet run.

An attempt that fails deletes nothing, a record of done goes before one of failed, and pixels without a record are 254.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.events import TileDone, TileFailed
from tilesseg.planning.job import Job, parse_job, parse_product
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.work_queue import TileItem
from tilesseg.run.worker import TileWork
from tilesseg.run.worker_state import Assignment
from tilesseg.run.write_products import export_run
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import FINISHED_FILE, Store

SHAPE, LATE = (300, 400), "r001-c002"
LATE_CORE = (slice(64, 128), slice(128, 192))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of many tiles whose scores are stored."""
    values = np.random.default_rng(3).integers(20, 250, (1, *SHAPE)).astype(np.uint8)
    data = {
        "scenes": str(write_scene(tmp_path / "scene.tif", values)),
        "model": str(write_bundle(tmp_path / "model", "Shades")),
        "tiling": {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4},
        "output": {"dir": str(tmp_path / "run"), "scores": True, "products": [{"format": "cog"}]},
        "cluster": {"kind": "serial"},
    }
    return parse_job(data, where="test")


def store_of(job: Job) -> Store:
    return RunDirectory(Path(job.output.dir)).scene("scene")


def product_of(job: Job) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """The written mask and its overviews."""
    with rasterio.open(store_of(job).folder / "scene.tif") as file:
        factors, mask = file.overviews(1), file.read(1)
        shapes = [(-(-file.height // factor), -(-file.width // factor)) for factor in factors]
        return mask, [file.read(1, out_shape=shape) for shape in shapes]


def older_attempt(job: Job) -> TileWork:
    """Work of a task that an earlier run left on its workers."""
    return TileWork(Assignment.of(RunDirectory(Path(job.output.dir)), first="scene", shared=False))


def forget(job: Job) -> None:
    """The run as it was before its last tile was done, with what an attempt has half written there."""
    store = store_of(job)
    planned = stored_scene_plan(store)
    assert planned is not None
    (store.folder / "done" / f"{LATE}.json").unlink()
    store.remove(FINISHED_FILE)
    core = planned.tiling.named(LATE).core
    for rows in store.core_rows(core, scores=len(store.score_classes)):
        rows.write(np.full((store.shard, core.width), 7, np.uint8))


@pytest.mark.parametrize("how", ["it fails", "its worker dies"])
def test_a_done_tile_stays_done_when_an_older_attempt_fails_late(job: Job, how: str, monkeypatch: Any) -> None:
    run_job(job, executor=SerialExecutor())
    quiet, work = product_of(job)[0], older_attempt(job)
    if how == "it fails":
        monkeypatch.setattr("tilesseg.run.worker._segment", broken)
        answer = work(TileItem("scene", LATE))
    else:
        answer = work.lost(TileItem("scene", LATE), "the worker process died")
    assert isinstance(answer, TileDone), "the ledger has the tile, and the answer says so"
    (scene,) = job_status(Path(job.output.dir)).scenes
    assert (scene.state, scene.done, scene.failed) == ("complete", scene.tiles, {})
    export_run(Path(job.output.dir), parse_product({"format": "cog"}, where="test"))
    np.testing.assert_array_equal(product_of(job)[0], quiet)
    assert run_job(job, executor=SerialExecutor()).exit_code == 0


def test_a_late_record_of_failure_beside_one_of_done_counts_for_nothing(job: Job) -> None:
    """Another process may write it between the look at the ledger and the record."""
    run_job(job, executor=SerialExecutor())
    store_of(job).mark_failed(TileFailed("scene", LATE, 4096, "late"))
    (scene,) = job_status(Path(job.output.dir)).scenes
    assert (scene.state, scene.failed) == ("complete", {}) and store_of(job).failed() == {}


def test_a_failed_tile_is_254_in_mask_overviews_and_scores_whatever_it_has_written(job: Job, monkeypatch: Any) -> None:
    run_job(job, executor=SerialExecutor())
    quiet, levels = product_of(job)
    forget(job)
    with monkeypatch.context() as patched:
        patched.setattr("tilesseg.run.worker._segment", broken)
        report = run_job(job, executor=SerialExecutor())
    assert report.exit_code == 3 and report.scenes[0].failed == {LATE: "ValueError: planted"}
    assert report.scenes[0].pixels["failed"] == 64 * 64
    mask, coarser = product_of(job)
    quiet_without = quiet.copy()
    quiet_without[LATE_CORE] = 254
    np.testing.assert_array_equal(mask, quiet_without)
    for number, level in enumerate(coarser, start=1):
        part = tuple(slice(place.start >> number, place.stop >> number) for place in LATE_CORE)
        assert (level[part] == 254).all() and (level == 254).sum() == level[part].size
    export_run(Path(job.output.dir), parse_product({"format": "scores-cog"}, where="test"))
    with rasterio.open(store_of(job).folder / "scene-scores.tif") as file:
        assert (file.read()[:, *LATE_CORE] == 254).all()
    assert (store_of(job).read(stored_core(job))[: store_of(job).shard] == 7).all(), "nothing is deleted"
    assert run_job(job, executor=SerialExecutor()).exit_code == 0
    healed, healed_levels = product_of(job)
    np.testing.assert_array_equal(healed, quiet)
    for one, other in zip(healed_levels, levels, strict=True):
        np.testing.assert_array_equal(one, other)


def stored_core(job: Job) -> Any:
    planned = stored_scene_plan(store_of(job))
    assert planned is not None
    return planned.tiling.named(LATE).core


def broken(*arguments: Any) -> None:
    raise ValueError("planted")
