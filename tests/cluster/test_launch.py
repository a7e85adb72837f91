"""Clusters elsewhere, really started: by a class's path, by ssh, and by a queue of one line of shell."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from ssh_server import ssh_server

from tilesseg.cluster import connect as cluster
from tilesseg.cluster import launch as deploy
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.errors import JobError
from tilesseg.planning.cluster_options import Cluster

SBATCH = """#!/bin/sh
test -e {folder}/closed && touch {folder}/refused && echo "sbatch: error: invalid partition: long" >&2 && exit 1
cp "$1" {folder}/script.$$
setsid sh {folder}/script.$$ >{folder}/log.$$ 2>&1 &
echo $! >>{folder}/jobs
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- -"$1"
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What dask-jobqueue needs of SLURM, for one machine: jobs start at once, as process groups."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return folder


def slurm(**changes: Any) -> Cluster:
    return Cluster(kind="slurm", **{"workers": 1, "threads": 2, "cores": 1, "memory": "2GiB", **changes})


def square(n: int) -> int:
    return n * n


def never_lost(n: int, reason: str) -> int:
    raise AssertionError(f"{n} was lost: {reason}")


def variables() -> dict[str, str]:
    return dict(os.environ)


def jobs(queue: Path) -> list[int]:
    return [int(line) for line in (queue / "jobs").read_text().split()]


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def until(holds: Any, *, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.cluster
def test_workers_of_a_queue_work_and_end_with_the_run(queue: Path, tmp_path: Path) -> None:
    asked = slurm(environment={"MODELS": "/data/my models"}, setup=["export SET_UP=yes"], spill=str(tmp_path / "spill"))
    with cluster.connect(asked, "cpu", logs=tmp_path / "logs") as executor:
        assert isinstance(executor, DaskExecutor)
        assert executor.slots == 2
        assert sorted(executor.map(square, range(20), lost=never_lost)) == [n * n for n in range(20)]
        (seen,) = cluster.ask_workers(executor, variables).values()
        assert executor.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 0
    assert (seen["MODELS"], seen["SET_UP"], seen["GDAL_CACHEMAX"]) == ("/data/my models", "yes", "64")
    (job,) = jobs(queue)
    until(lambda: not alive(job))


@pytest.mark.cluster
def test_a_worker_whose_job_ends_is_submitted_again(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    monkeypatch.setitem(deploy.ADAPTING, "interval", "200ms")
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
        cluster.connect(slurm(), "cpu") as executor,
    ):
        (first,) = jobs(queue)
        os.killpg(first, 9)
        until(lambda: len(jobs(queue)) == 2)
        assert list(executor.map(square, range(3), lost=never_lost)) == [0, 1, 4]
    until(lambda: not any(map(alive, jobs(queue))))
    assert len(jobs(queue)) == 2


@pytest.mark.cluster
def test_what_a_queue_says_is_the_refusal(queue: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (queue / "closed").touch()
    with (
        pytest.raises(JobError, match=r"^kind slurm cannot start a worker: sbatch: error: invalid partition: long"),
        cluster.connect(slurm(), "cpu"),
    ):
        pass
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.cluster
def test_without_its_queue_a_kind_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(JobError, match=r"^kind lsf cannot start a worker: .*bsub"),
        cluster.connect(slurm().model_copy(update={"kind": "lsf"}), "cpu"),
    ):
        pass


@pytest.mark.cluster
def test_a_queue_that_refuses_one_job_later_is_asked_again(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    monkeypatch.setitem(deploy.ADAPTING, "interval", "200ms")
    monkeypatch.setattr(deploy, "SUBMIT_AGAIN", (1.0, 30.0))
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms"}),
        cluster.connect(slurm(), "cpu") as executor,
    ):
        (first,) = jobs(queue)
        (queue / "closed").touch()
        os.killpg(first, 9)
        until(lambda: (queue / "refused").exists())
        (queue / "closed").unlink()
        until(lambda: len(jobs(queue)) == 2)
        assert list(executor.map(square, range(3), lost=never_lost)) == [0, 1, 4]


@pytest.mark.cluster
def test_an_adaptive_queue_has_more_workers_while_there_is_more_work(
    queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(n: int) -> int:
        time.sleep(0.5)
        return n

    monkeypatch.setitem(deploy.ADAPTING, "interval", "200ms")
    asked = slurm(workers="auto", threads=1, adaptive={"minimum": 1, "maximum": 2})
    with cluster.connect(asked, "cpu") as executor:
        assert len(jobs(queue)) == 1
        answers = []
        for answer in executor.map(slow, range(40), lost=never_lost):
            answers.append(answer)
            if len(jobs(queue)) == 2 and executor.client.nthreads().__len__() == 2:  # type: ignore[attr-defined]
                break
        assert len(jobs(queue)) == 2


@pytest.mark.cluster
def test_nobody_waits_longer_than_the_patience(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (queue / "sbatch").write_text("#!/bin/sh\necho Submitted batch job 99999999\n")
    monkeypatch.setattr(deploy, "TELL_AFTER", 0.5)
    heard: list[str] = []
    with (
        pytest.raises(JobError, match=r"^kind slurm has 0 workers after 2s; start workers, or set a longer cluster"),
        cluster.connect(slurm(patience="2s"), "cpu", say=heard.append),
    ):
        pass
    assert heard and heard[0].startswith("waiting for the first worker of kind slurm: ")


@pytest.mark.cluster
def test_workers_reached_by_ssh_work_and_end_with_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    with ssh_server() as way:
        head = {"dashboard_address": "127.0.0.1:0"}
        asked = Cluster(
            kind="ssh",
            hosts=("127.0.0.1", "127.0.0.1"),
            threads=2,
            gpus=1,
            memory="2GiB",
            environment={"MODELS": "there"},
            spill=str(tmp_path),
            options={"connect_options": way, "scheduler_options": head},
        )
        with cluster.connect(asked, "cpu") as executor:
            assert isinstance(executor, DaskExecutor)
            executor.client.wait_for_workers(2, timeout=60)
            assert sorted(executor.map(square, range(20), lost=never_lost)) == [n * n for n in range(20)]
            seen = list(cluster.ask_workers(executor, variables).values())
            workers = executor.client.scheduler_info()["workers"].values()
            assert {(one["nthreads"], one["memory_limit"]) for one in workers} == {(2, 2 * 2**30)}
            assert all(Path(one["local_directory"]).is_relative_to(tmp_path) for one in workers)
            assert executor.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 0
            processes = list(cluster.ask_workers(executor, os.getpid).values())
        assert sorted(one["CUDA_VISIBLE_DEVICES"] for one in seen) == ["0", "1"]
        assert {(one["MODELS"], one["GDAL_CACHEMAX"]) for one in seen} == {("there", "64")}
        until(lambda: not any(Path(f"/proc/{process}").exists() for process in processes))


@pytest.mark.cluster
def test_a_machine_that_does_not_let_us_in_is_refused_in_one_line() -> None:
    with ssh_server() as way:
        strange = asyncssh.generate_private_key("ssh-ed25519")
        asked = Cluster(kind="ssh", hosts=("127.0.0.1",), options={"connect_options": way | {"client_keys": [strange]}})
        with pytest.raises(JobError, match=r"^cluster of kind ssh cannot start: .*Permission denied"):  # noqa: SIM117
            with cluster.connect(asked, "cpu"):
                pass


@pytest.mark.cluster
def test_any_class_is_started_by_its_path_with_its_options() -> None:
    options = {"processes": False, "threads_per_worker": 3, "n_workers": 1, "dashboard_address": "127.0.0.1:0"}
    asked = Cluster(kind="distributed:LocalCluster", workers=2, options=options)
    with cluster.connect(asked, "cpu") as executor:
        assert isinstance(executor, DaskExecutor)
        executor.client.wait_for_workers(2, timeout=30)
        assert set(executor.client.nthreads().values()) == {3}
        assert sorted(executor.map(square, range(20), lost=never_lost)) == [n * n for n in range(20)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            Cluster(kind="nowhere_cluster:Local"),
            r"^cluster.kind nowhere_cluster:Local needs a library that is missing \(No module named ",
        ),
        (Cluster(kind="distributed:NoCluster"), "^cluster of kind distributed:NoCluster cannot start: .*NoCluster"),
        (
            Cluster(
                kind="distributed:LocalCluster",
                options={"processes": False, "dashboard_address": "127.0.0.1:0", "nonsense": 1},
            ),
            "^cluster of kind distributed:LocalCluster cannot start: .+",
        ),
    ],
)
def test_a_class_that_cannot_be_started_is_refused_in_one_line(asked: Cluster, said: str) -> None:
    with pytest.raises(JobError, match=said) as caught, cluster.connect(asked, "cpu"):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("library", "asked", "extra"),
    [
        ("dask_jobqueue", slurm(), "queues"),
        ("asyncssh", Cluster(kind="ssh", hosts=("a",)), "ssh"),
        ("dask_kubernetes", Cluster(kind="kubernetes", image="i", workers=1), "kubernetes"),
        ("dask_gateway", Cluster(kind="gateway", address="https://g", workers=1), "gateway"),
    ],
)
def test_a_missing_library_is_refused_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch, library: str, asked: Cluster, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "dask_kubernetes.operator", raising=False)
    with pytest.raises(JobError, match=rf"pip install 'tilesseg\[{extra}\]'$"), cluster.connect(asked, "cpu"):
        pass
