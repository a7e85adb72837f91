"""Law: what is not stored as its record says is found, never published as pixels, and done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import write_bundle, write_scene

from tilesseg.cli.main import run as tilesseg
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import StoreError, TilessegError
from tilesseg.planning.job import Job, parse_job, parse_product
from tilesseg.run.run_job import job_status, run_job
from tilesseg.run.verify_run import verify_run
from tilesseg.run.write_products import export_run
from tilesseg.store.generations import next_generation
from tilesseg.store.locks import held
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store

TILE, OF_TILE = "r001-c002", ("1", "2")
"""A tile, and the place of its shard in the mask: cores have one shard."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """A job with scores, and its finished run."""
    folder = tmp_path_factory.mktemp("whole")
    values = np.random.default_rng(5).integers(20, 250, (1, 300, 400)).astype(np.uint8)
    data = {
        "scenes": str(write_scene(folder / "scene.tif", values)),
        "model": str(write_bundle(folder / "model", "Shades")),
        "tiling": {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4},
        "output": {
            "dir": str(folder / "run"),
            "scores": True,
            "products": [{"format": "cog"}, {"format": "scores-cog"}],
        },
        "cluster": {"kind": "serial"},
    }
    job = parse_job(data, where="test")
    assert run_job(job, executor=SerialExecutor()).exit_code == 0
    return job, folder / "run"


@pytest.fixture
def job(whole: tuple[Job, Path], tmp_path: Path) -> Job:
    """The same job, with a copy of its run."""
    job, run = whole
    shutil.copytree(run, tmp_path / "run")
    for path in tmp_path.rglob("*.json"):
        path.write_text(path.read_text().replace(str(run), str(tmp_path / "run")))
    return job.model_copy(update={"output": job.output.model_copy(update={"dir": str(tmp_path / "run")})})


def store_of(job: Job) -> Store:
    return RunDirectory(Path(job.output.dir)).scene("scene")


def pixels_of(job: Job) -> dict[str, Any]:
    """Pixels of all products, with their overviews."""
    found = {}
    for path in sorted(store_of(job).folder.glob("*.tif")):
        with rasterio.open(path) as file:
            found[path.name] = (
                file.read().tobytes(),
                [
                    file.read(1, out_shape=(-(-file.height // factor), -(-file.width // factor))).tobytes()
                    for factor in file.overviews(1)
                ],
            )
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def older(path: Path) -> None:
    """Another shard of the array, as an older backup would hold it: whole, and not the one."""
    shutil.copyfile(path.with_name("0"), path)


def shard(job: Job, array: str) -> Path:
    return store_of(job).folder.joinpath(array, "c", *(("0",) if array == "scores.zarr" else ()), *OF_TILE)


HARMS: dict[str, Callable[[Path], None]] = {"flip": flip, "truncate": truncate, "delete": Path.unlink, "older": older}


@pytest.mark.parametrize("array", ["mask.zarr", "levels/0", "scores.zarr"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_shard_is_found_never_published_and_done_again(job: Job, harm: str, array: str) -> None:
    quiet, path = pixels_of(job), shard(job, array)
    HARMS[harm](path)
    for product in ("cog", "scores-cog"):
        try:
            export_run(Path(job.output.dir), parse_product({"format": product}, where="test"))
        except TilessegError as error:
            assert "\n" not in str(error)
    assert pixels_of(job) == quiet, "harmed pixels were published"
    found = verify_run(Path(job.output.dir))
    (scene,) = found.scenes
    assert found.exit_code == 3 and scene.again == (TILE,) and scene.verified == scene.tiles - 1
    assert [problem for problem in scene.problems if str(path.relative_to(store_of(job).folder)) in problem]
    report = run_job(job, executor=SerialExecutor())
    assert report.exit_code == 0 and pixels_of(job) == quiet
    assert verify_run(Path(job.output.dir)).problems == 0


@pytest.mark.parametrize("harm", ["truncate", "delete"])
def test_what_sizes_tell_is_known_without_verify(job: Job, harm: str) -> None:
    quiet = pixels_of(job)
    HARMS[harm](shard(job, "mask.zarr"))
    (scene,) = job_status(Path(job.output.dir)).scenes
    assert scene.state == "unfinished" and list(scene.altered) == [TILE] and scene.missing == 1
    assert any("not stored as recorded" in note for note in scene.notes)
    with pytest.raises(StoreError, match="1 of 35 tiles are still to do"):
        export_run(Path(job.output.dir), parse_product({"format": "cog"}, where="test"))
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


def test_a_run_that_meets_altered_bytes_at_its_end_writes_no_product_and_the_next_one_heals(job: Job) -> None:
    quiet = pixels_of(job)
    (store_of(job).folder / "scene.tif").unlink()
    flip(shard(job, "mask.zarr"))
    report = run_job(job, executor=SerialExecutor())
    (scene,) = report.scenes
    assert report.exit_code == 3 and scene.problem and f"tile {TILE} is not stored as recorded" in scene.problem
    assert not (store_of(job).folder / "scene.tif").exists()
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("{"), lambda path: path.write_text("{}")])
def test_a_lost_or_damaged_record_is_found(job: Job, harm: Callable[[Path], None]) -> None:
    quiet = pixels_of(job)
    harm(store_of(job).folder / "done" / f"{TILE}.json")
    (scene,) = verify_run(Path(job.output.dir)).scenes
    assert scene.again == (TILE,) and "its record is" in scene.problems[0]
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


def test_a_shard_that_no_record_knows_is_found(job: Job) -> None:
    """A late attempt may leave one where nothing needs to be stored."""
    quiet, path = pixels_of(job), store_of(job).folder / "done" / f"{TILE}.json"
    record = json.loads(path.read_text())
    record["stored"]["mask"] = "absent"
    path.write_text(json.dumps(record))
    (scene,) = verify_run(Path(job.output.dir)).scenes
    assert scene.again == (TILE,) and "knows of no such shard" in scene.problems[0]
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


@pytest.mark.parametrize("array", ["mask.zarr", "levels/0", "scores.zarr"])
def test_an_array_whose_metadata_are_damaged_is_made_anew(job: Job, array: str) -> None:
    quiet = pixels_of(job)
    (store_of(job).folder / array / "zarr.json").write_text("{")
    (scene,) = verify_run(Path(job.output.dir)).scenes
    assert len(scene.again) == scene.tiles
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


def test_a_product_that_was_moved_or_cut_is_written_again(job: Job) -> None:
    quiet, product = pixels_of(job), store_of(job).folder / "scene.tif"
    product.write_bytes(product.read_bytes()[:100])
    (scene,) = verify_run(Path(job.output.dir)).scenes
    assert not scene.again and "its size is 100" in scene.problems[0]
    product.unlink()
    assert run_job(job, executor=SerialExecutor()).exit_code == 0 and pixels_of(job) == quiet


def test_records_of_an_earlier_version_are_verified_as_far_as_they_go(job: Job) -> None:
    for path in (store_of(job).folder / "done").iterdir():
        record = json.loads(path.read_text())
        del record["stored"], record["generation"]
        path.write_text(json.dumps(record))
    (scene,) = verify_run(Path(job.output.dir)).scenes
    assert (scene.verified, scene.unchecked, scene.problems) == (0, 35, ())
    assert run_job(job, executor=SerialExecutor()).exit_code == 0


def test_nobody_verifies_what_somebody_works_on(job: Job) -> None:
    run = Path(job.output.dir)
    with held(run / "locks" / "run"), pytest.raises(StoreError, match="is being worked on by"):
        verify_run(run)


def test_verify_fences_what_an_older_execution_left(job: Job) -> None:
    old = next_generation(Path(job.output.dir))
    verify_run(Path(job.output.dir))
    with pytest.raises(TilessegError, match="replaced by a later one"):
        old.check()


def test_the_command_says_what_it_found_and_repairs(
    job: Job, whole: tuple[Job, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, quiet = job.output.dir, pixels_of(job)
    file = Path(run) / "job.yaml"
    file.write_text(file.read_text().replace(str(whole[1]), run))
    assert tilesseg(["verify", run]) == 0
    assert "scene: 35 of 35 tiles are stored as recorded" in capsys.readouterr().out
    flip(shard(job, "mask.zarr"))
    assert tilesseg(["verify", run, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["scenes"][0]["again"] == [TILE]
    flip(shard(job, "mask.zarr").with_name("1"))
    assert tilesseg(["verify", run]) == 3
    assert "1 problem; 1 tile is done again by: tilesseg run" in capsys.readouterr().out
    flip(shard(job, "mask.zarr").with_name("0"))
    assert tilesseg(["verify", run, "--repair"]) == 0 and pixels_of(job) == quiet
    assert tilesseg(["verify", run]) == 0
