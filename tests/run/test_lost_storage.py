"""A run directory that is lost during a run costs no tile: one sentence with the cause, and the next run goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene

from tilesseg.errors import JobError, RunDirectoryLost, StoreError, TilessegError
from tilesseg.events import Event, TileDone, TileFailed
from tilesseg.planning.job import Job, parse_job
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

SHAPE = (300, 400)
TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}
KINDS: list[Any] = [
    {"kind": "serial"},
    {"kind": "threads", "threads": 2},
    pytest.param({"kind": "local", "workers": 1, "threads": 1}, marks=pytest.mark.cluster),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def job_in(tmp_path: Path, run: Path, cluster: dict[str, Any]) -> Job:
    image = tmp_path / "scene.tif"
    if not image.exists():
        write_scene(image, np.random.default_rng(3).integers(20, 250, (1, *SHAPE)).astype(np.uint8))
    model = write_bundle(tmp_path / "model", "Shades")
    return parse_job({**job_data(str(image), model, run, tiling=TILING), "cluster": cluster}, where="test")


def mask_of(job: Job) -> bytes:
    return RunDirectory(Path(job.output.dir)).scene("scene").read(Window(0, 0, *SHAPE)).tobytes()


def lost_after(job: Job, tiles: int, lose: Callable[[], None]) -> TilessegError:
    """Error of a run whose directory is lost after some tiles; none of them fails."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, TileDone) and sum(isinstance(one, TileDone) for one in events) == tiles:
            lose()

    with pytest.raises((StoreError, JobError)) as caught:
        run_job(job, listeners=[listen])
    assert not any(isinstance(event, TileFailed) for event in events)
    assert "\n" not in str(caught.value)
    assert job.output.dir in str(caught.value)
    return caught.value


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("cluster", KINDS)
def test_a_disk_that_is_full_ends_the_run_and_the_next_goes_on(
    tmp_path: Path, small_disk: Path, cluster: dict[str, Any]
) -> None:
    quiet, job = job_in(tmp_path, tmp_path / "quiet", {"kind": "serial"}), job_in(tmp_path, small_disk / "run", cluster)
    run_job(quiet)

    error = lost_after(job, 3, lambda: fill(small_disk))
    assert "No space left on device; make room" in str(error)
    (small_disk / "filling").unlink()
    assert not RunDirectory(small_disk / "run").scene("scene").failed()
    assert run_job(job).exit_code == 0
    assert mask_of(job) == mask_of(quiet)


@pytest.mark.parametrize("cluster", KINDS)
def test_a_run_directory_that_is_removed_ends_the_run_and_does_not_come_back(
    tmp_path: Path, cluster: dict[str, Any]
) -> None:
    job = job_in(tmp_path, tmp_path / "run", cluster)
    lost_after(job, 3, lambda: (tmp_path / "run").rename(tmp_path / "removed"))  # in one step, as nothing is written
    assert not (tmp_path / "run").exists()
    assert run_job(job).exit_code == 0


@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT, errno.ESTALE, errno.EIO])
def test_a_read_only_disk_a_quota_and_a_stale_handle_are_told_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    job = job_in(tmp_path, tmp_path / "run", {"kind": "serial"})
    broken: list[bool] = []
    write = Path.write_bytes

    def fail(path: Path, data: bytes) -> int:
        if broken and str(tmp_path / "run") in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail)
    error = lost_after(job, 3, lambda: broken.append(True))
    assert isinstance(error, RunDirectoryLost)
    assert f"cannot write {tmp_path / 'run'}: {os.strerror(number)}; " in str(error)
    monkeypatch.undo()
    assert run_job(job).exit_code == 0


def test_an_error_of_the_image_is_no_loss_of_the_run_directory(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    stale = OSError(errno.ESTALE, "Stale file handle", "/images/scene.tif")
    run.refuse_if_lost(stale, wrote=True)
    run.refuse_if_lost(ValueError("not a number"), wrote=True)
    run.refuse_if_lost(OSError(errno.ENOSPC, "No space left on device"), wrote=False)  # of a product elsewhere
    shutil.rmtree(run.path)
    with pytest.raises(RunDirectoryLost, match="No such file or directory; bring it back, and run again"):
        run.refuse_if_lost(stale, wrote=True)


WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.parametrize(
    ("forbid", "mode", "commands"),
    [
        (".", 0o000, ["run", "plan", "status", "report", "export", "verify"]),
        ("plan.json", 0o000, ["run", "plan", "status", "report", "export", "verify"]),
        ("scenes", 0o000, ["run", "status", "report", "export", "verify"]),
        ("scenes/scene/done", 0o000, ["run", "status", "report", "export", "verify"]),
        (".", 0o555, ["run"]),
    ],
)
def test_a_path_without_permission_is_called_so_by_every_command(
    tmp_path: Path, forbid: str, mode: int, commands: list[str]
) -> None:
    import yaml

    if WITHOUT_RIGHTS and not shutil.which("setpriv"):
        pytest.skip("root may do anything, and there is no setpriv")
    job, run = job_in(tmp_path, tmp_path / "run", {"kind": "serial"}), tmp_path / "run"
    run_job(job)
    record = next((run / "scenes/scene/done").glob("*.json"))
    record.unlink()  # or there would be nothing to write
    (run / "scenes/scene/finished.json").unlink()
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json")))
    path = run / forbid
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        for command in commands:
            arguments = [command, str(file if command in ("run", "plan") else run)]
            arguments += ["--format", "cog", "--out", str(tmp_path / "x.tif")] if command == "export" else []
            done = subprocess.run(
                [*WITHOUT_RIGHTS, sys.executable, "-m", "tilesseg", *arguments],
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            said = done.stderr.splitlines()
            assert done.returncode == 1, (command, done.stderr)
            assert len([line for line in said if line.startswith("error: ")]) == 1, (command, said)
            assert "ermission" in said[-1], (command, said)
            assert "Traceback" not in done.stderr, (command, done.stderr)
    finally:
        path.chmod(before)
