"""Every executor gives what the serial one gives; a real cluster loses one item, not its neighbours, to a bad one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import (
    DaskExecutor,
    Executor,
    SerialExecutor,
    ThreadExecutor,
    UnfitWorker,
    worker_address,
)
from tilesseg.errors import JobError
from tilesseg.planning.cluster_options import Cluster


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
    import distributed

    killed: list[int] = []

    class Unlucky(distributed.as_completed):  # type: ignore[misc]
        def __next__(self) -> distributed.Future:
            future = super().__next__()
            if not killed:
                (holder,) = client.who_has([future])[future.key]
                killed.append(client.run(os.getpid, workers=[holder])[holder])
                os.kill(killed[0], signal.SIGKILL)
                deadline = time.monotonic() + 30
                while future.status == "finished" and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert future.status == "lost"
            return future

    with cluster.connect(Cluster(kind="local", workers=2, threads=1), "cpu") as executor:
        assert isinstance(executor, DaskExecutor)
        client = executor.client
        monkeypatch.setattr(distributed, "as_completed", Unlucky)
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
        def nthreads(self) -> dict[str, int]:
            raise OSError("Timed out trying to connect")

    with pytest.raises(JobError, match="has gone away"):
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
