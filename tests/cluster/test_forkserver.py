"""Workers are forked from a server that is warm: in this process's present environment, and nothing is left of it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
from test_planned_model import label_job

from tilesseg.cluster import connect as cluster
from tilesseg.cluster import forkserver as warm
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.errors import TilessegError
from tilesseg.planning.cluster_options import Cluster
from tilesseg.run.run_job import run_job

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned"),
]


def server() -> int | None:
    """Its process id, while it runs."""
    pid: int | None = warm._SERVER._forkserver_pid
    return pid


LOOK = (
    "(lambda os, sys: (os.getppid(), dict(os.environ), "
    "*(name in sys.modules for name in ('tilesseg.run.worker', 'torch'))))"
)
"""Evaluated in a worker: a function of this file would have it import all that this file does."""


def answers(asked: Cluster) -> list[tuple[int, dict[str, str], bool, bool]]:
    with cluster.connect(asked, "cpu") as executor:
        assert isinstance(executor, DaskExecutor)
        return list(cluster.ask_workers(executor, eval, f"{LOOK}(__import__('os'), __import__('sys'))").values())


def test_workers_are_children_of_the_server_which_ends_with_them() -> None:
    asked = Cluster(workers=2, threads=1)
    warm.warm_up(asked)
    pid = server()
    assert pid is not None
    for parent, _, ready, torch in answers(asked):
        assert (parent, ready) == (pid, True)
        assert not torch, "what only some models need is not for all"
    assert server() is None and not Path(f"/proc/{pid}").exists()


def test_workers_have_the_environment_of_now_and_this_process_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEFORE", "1")
    asked = Cluster(workers=1, threads=1, environment={"MODELS": "here"})
    unset = [name for name in (*warm.SINGLE, "MODELS") if name not in os.environ]
    warm.warm_up(asked)
    assert all(name not in os.environ for name in unset)
    monkeypatch.setenv("BEFORE", "2")
    monkeypatch.setenv("LATER", "3")
    for _ in range(2):
        ((_, seen, _, _),) = answers(asked)
        assert (seen["BEFORE"], seen["LATER"], seen["MODELS"]) == ("2", "3", "here")
        assert seen["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")


def test_a_server_of_the_calling_program_is_left_alone() -> None:
    forkserver.set_forkserver_preload([])
    forkserver.ensure_running()
    pid = server()
    try:
        assert warm._environment is None
        ((parent, _, _, _),) = answers(Cluster(workers=1, threads=1))
        assert parent == os.getpid()
        assert server() == pid
    finally:
        warm._SERVER._stop()


def test_nothing_is_left_of_a_job_that_is_refused(tmp_path: Path) -> None:
    job = label_job(tmp_path, cluster={"kind": "local", "workers": 1}, engine="Broken")
    (tmp_path / "s0.tif").unlink()
    with pytest.raises(TilessegError):
        run_job(job)
    assert server() is None


def test_other_kinds_start_no_server() -> None:
    warm.warm_up(Cluster(kind="threads"))
    assert server() is None and not multiprocessing.active_children()
