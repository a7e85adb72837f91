"""Every executor gives what the serial one gives; a real cluster loses one item, not its neighbours, to a bad one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.own_scheduler import OwnScheduler
from tilesseg.atomic_write import published
from tilesseg.cluster import connect as cluster
from tilesseg.cluster import dask_executor, executors
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import Executor, SerialExecutor, ThreadExecutor, UnfitWorker, worker_address
from tilesseg.errors import ClusterLost, JobError
from tilesseg.planning.cluster_options import Cluster


@pytest.fixture
def own_scheduler(tmp_path: Path) -> Iterator[OwnScheduler]:
    with OwnScheduler(tmp_path / "dask") as running:
        yield running


def square(n: int) -> int:
    return n * n


def die_at_13(n: int) -> int:
    if n == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def environment(name: str) -> str | None:
    return os.environ.get(name)


def refuse_on(unfit: str, n: int) -> int:
    worker = worker_address()
    if worker == unfit:
        raise UnfitWorker("bad", worker)
    time.sleep(0.2)
    return n


def never_lost(n: int, reason: str) -> int:
    raise AssertionError(f"{n} was lost: {reason}")


@pytest.fixture(params=["serial", "threads", pytest.param("dask", marks=pytest.mark.cluster)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kind = {"serial": "serial", "threads": "threads", "dask": "local"}[request.param]
    with cluster.connect(Cluster(kind=kind, workers=2, threads=2), "cpu") as executor:  # type: ignore[arg-type]
        yield executor


def test_every_item_is_answered_once(executor: Executor) -> None:
    assert sorted(executor.map(square, range(50), lost=never_lost)) == [n * n for n in range(50)]


def test_no_items_are_no_results(executor: Executor) -> None:
    assert list(executor.map(square, [], lost=never_lost)) == []


def test_an_error_of_ours_is_raised_not_swallowed(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        list(executor.map(lambda n: 1 // n, [1, 0], lost=never_lost))


def test_items_are_taken_only_as_fast_as_they_are_done() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    for executor in (SerialExecutor(), ThreadExecutor(3)):
        taken.clear()
        results = executor.map(square, items(), lost=never_lost)
        next(iter(results))
        assert len(taken) <= 6


def test_threads_work_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def meet(n: int) -> int:
        barrier.wait()
        return n

    assert sorted(ThreadExecutor(2).map(meet, range(4), lost=never_lost)) == [0, 1, 2, 3]


def test_leaving_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    results = ThreadExecutor(4).map(lambda n: time.sleep(0.01), range(1000), lost=lambda n, reason: None)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_thread_that_is_overdue_is_abandoned_and_publishes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "LOOK_EVERY", 0.05)
    go_on, ended, hanging = threading.Event(), threading.Event(), list[int]()

    def write(n: int) -> int:
        try:
            if n == 1:
                hanging.append(threading.get_ident())
                assert go_on.wait(30)
            with published(tmp_path / str(n)) as path:
                path.touch()
            return n
        finally:
            if n == 1:
                ended.set()

    executor = ThreadExecutor(1)
    executor.overdue = lambda thread: "hung" if thread in hanging else ""
    assert list(executor.map(write, range(4), lost=lambda n, reason: (n, reason))) == [0, (1, "hung"), 2, 3]
    go_on.set()
    assert ended.wait(30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2", "3"]


@pytest.mark.cluster
@pytest.mark.kill
def test_an_item_that_kills_its_worker_is_lost_alone() -> None:
    with cluster.connect(Cluster(workers=2, threads=2), "cpu") as executor:
        lost: list[int] = []

        def answer(n: int, reason: str) -> int:
            lost.append(n)
            return -n

        results = sorted(executor.map(die_at_13, range(40), lost=answer))
    assert lost == [13]
    assert results == sorted([-13, *(n for n in range(40) if n != 13)])


@pytest.mark.cluster
@pytest.mark.kill
def test_answers_that_die_with_their_worker_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker dies after it has finished an item and before anybody has fetched the answer."""
    killed: list[int] = []
    fetch = dask_executor._Tasks._fetch

    def unlucky(tasks: Any, futures: list[Any]) -> dict[Any, Any]:
        for future in futures[: not killed]:
            client = tasks.executor.client
            (holder,) = client.who_has([future])[future.key]
            killed.append(client.run(os.getpid, workers=[holder])[holder])
            os.kill(killed[0], signal.SIGKILL)
            deadline = time.monotonic() + 30
            while future.status == "finished" and time.monotonic() < deadline:
                time.sleep(0.01)
            assert future.status == "lost"
        return fetch(tasks, futures)

    with cluster.connect(Cluster(kind="local", workers=2, threads=1), "cpu") as executor:
        monkeypatch.setattr(dask_executor._Tasks, "_fetch", unlucky)
        assert sorted(executor.map(square, [3], lost=never_lost)) == [9]
    assert killed


@pytest.mark.cluster
def test_a_running_scheduler_is_reached_by_its_address() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as running,
        cluster.connect(Cluster(kind="address", address=running.scheduler_address), "cpu") as executor,
    ):
        assert isinstance(executor, DaskExecutor)
        assert sorted(executor.map(square, range(9), lost=never_lost)) == [n * n for n in range(9)]


def test_a_scheduler_that_does_not_answer_has_gone_away() -> None:
    class Gone:
        def nthreads(self, **options: float) -> dict[str, int]:
            raise OSError("Timed out trying to connect")

    with pytest.raises(ClusterLost, match=r"has gone away \(Timed out trying to connect\), .*; run again to go on"):
        _ = DaskExecutor(Gone()).slots  # type: ignore[arg-type]


@pytest.mark.cluster
def test_work_goes_on_with_new_workers_when_a_bad_one_is_all_that_is_left() -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as running,
        Client(running, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        unfit, able = sorted(client.nthreads())
        executor.leave_out(unfit, "bad")
        results = executor.map(partial(refuse_on, unfit), range(8), lost=never_lost)
        found = [next(results)]
        client.retire_workers([able])
        running.scale(3)
        assert sorted([*found, *results]) == list(range(8))


@pytest.mark.cluster
def test_worker_processes_get_their_own_environment() -> None:
    with cluster.connect(Cluster(workers=1, threads=1), "cpu") as executor:
        assert list(executor.map(environment, ["GDAL_CACHEMAX"], lost=lambda n, reason: reason)) == ["64"]


@pytest.mark.cluster
def test_a_run_without_any_worker_ends_after_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr(dask_executor, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(dask_executor, "TELL_EVERY", 0.5)
    said: list[str] = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as running,
        Client(running, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client, who="kind slurm", patience=2.0, why=lambda: "the queue is drained")
        executor.say = said.append
        results = executor.map(wait_then_square, range(8), lost=never_lost)
        assert next(results) == 0
        running.scale(0)
        with pytest.raises(ClusterLost, match=r"kind slurm has had no worker for 2 s \(the queue is drained\)"):
            list(results)
    assert len(said) >= 2
    assert "has no worker (the queue is drained): waiting for 0 s so far, at most 2 s" in said[0]


def wait_then_square(n: int) -> int:
    time.sleep(0.5)
    return n * n


@pytest.mark.cluster
@pytest.mark.kill
def test_a_run_whose_last_worker_died_with_its_results_ends_after_its_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are finished, so that Dask would compute them again, and no worker is left for that."""
    monkeypatch.setattr(dask_executor, "LOOK_EVERY", 0.2)
    fetch = dask_executor._Tasks._fetch
    with (
        OwnScheduler(tmp_path / "own", threads=1) as running,
        cluster.connect(Cluster(kind="address", address=running.address), "cpu") as executor,
    ):
        assert isinstance(executor, DaskExecutor)
        executor.patience = 2.0

        def unlucky(tasks: Any, futures: list[Any]) -> dict[Any, Any]:
            if futures:
                running.kill_nannies()
            return fetch(tasks, futures)

        monkeypatch.setattr(dask_executor._Tasks, "_fetch", unlucky)
        with pytest.raises(ClusterLost, match="has had no worker for 2 s"):
            list(executor.map(square, range(8), lost=never_lost))


@pytest.mark.cluster
def test_workers_that_come_within_the_patience_do_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr(dask_executor, "LOOK_EVERY", 0.2)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as running,
        Client(running, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client, patience=60)
        results = executor.map(wait_then_square, range(5), lost=never_lost)
        found = [next(results)]
        running.scale(0)
        threading.Timer(1.5, running.scale, [1]).start()
        assert sorted([*found, *results]) == [n * n for n in range(5)]


@pytest.mark.cluster
@pytest.mark.kill
def test_a_scheduler_that_is_killed_ends_a_run_with_one_sentence(own_scheduler: OwnScheduler) -> None:
    with cluster.connect(Cluster(kind="address", address=own_scheduler.address), "cpu") as executor:
        results = executor.map(wait_then_square, range(50), lost=never_lost)
        next(results)
        own_scheduler.kill_scheduler()
        with pytest.raises(ClusterLost, match=r"cluster at tcp.* has gone away .*; run again to go on"):
            list(results)


@pytest.mark.cluster
@pytest.mark.kill
def test_a_scheduler_of_somebody_else_gives_a_bad_item_to_no_third_worker(
    own_scheduler: OwnScheduler, tmp_path: Path
) -> None:
    lost: list[int] = []

    def answer(n: int, reason: str) -> int:
        lost.append(n)
        return n

    with cluster.connect(Cluster(kind="address", address=own_scheduler.address), "cpu") as executor:
        results = sorted(executor.map(partial(die_and_count, tmp_path), range(40), lost=answer))
    assert (lost, results) == ([13], list(range(40)))
    assert len(list(tmp_path.glob("[0-9]*"))) == 2  # with others, and alone


def die_and_count(folder: Path, n: int) -> int:
    if n == 13:
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def meet_the_other(folder: Path, n: int) -> int:
    """Kill the worker, unless this process has been started after a death; then wait for the other suspect."""
    (folder / f"{n}-{os.getpid()}").touch()
    if len(list(folder.glob("*"))) <= 2:
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len({path.name.split("-")[0] for path in folder.glob("alone*")} | {f"alone{n}"}) < 2:
        (folder / f"alone{n}-").touch()
        assert time.monotonic() < deadline, "the other suspect does not run at the same time"
        time.sleep(0.05)
    (folder / f"alone{n}-").touch()
    return n


@pytest.mark.cluster
@pytest.mark.kill
def test_suspects_run_alone_on_several_workers_at_the_same_time(tmp_path: Path) -> None:
    with cluster.connect(Cluster(workers=2, threads=1), "cpu") as executor:
        assert sorted(executor.map(partial(meet_the_other, tmp_path), [1, 2], lost=never_lost)) == [1, 2]


@pytest.mark.cluster
def test_tasks_that_somebody_else_cancels_are_no_lost_scheduler() -> None:
    from distributed import Client, Future, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as running,
        Client(running, set_as_default=False) as client,
        Client(running, set_as_default=False) as other,
    ):
        results = DaskExecutor(client).map(wait_then_square, range(50), lost=never_lost)
        next(results)
        keys = [key for keys in client.processing().values() for key in keys]
        other.cancel([Future(key, other) for key in keys], force=True)
        with pytest.raises(JobError, match="were cancelled on the scheduler") as found:
            list(results)
    assert not isinstance(found.value, ClusterLost)
