"""A thread that a task of an earlier execution holds keeps no tile waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from tilesseg.cluster import leftovers
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.leftovers import Threads, free_workers
from tilesseg.errors import JobError

pytestmark = pytest.mark.cluster

RUN, CURRENT = "0123abcd", "0123abcd-ffffff"
OLDER = ("segment-0123abcd-eeeeee", "scene", "r001-c002", 5)


@pytest.fixture
def running() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as running:
        yield running


def left_behind(running: LocalCluster, seconds: float, key: tuple[str | int, ...] = OLDER) -> None:
    """A client has submitted a task, and has gone when the task had begun."""
    with Client(running, set_as_default=False) as client:
        future = client.submit(time.sleep, seconds, key=key)
        deadline = time.monotonic() + 30
        while not any(client.processing().values()) or _computing(client) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert future.status == "pending"


def _computing(client: Client) -> int:
    return sum(len(threads.older) + threads.others for threads in _threads(client))


def _threads(client: Client) -> list[Threads]:
    return list(client.run(leftovers.threads_of, RUN, CURRENT).values())


def freed(running: LocalCluster, **options: float) -> list[str]:
    """Messages of freeing the workers; a task runs on them afterwards, soon."""
    said: list[str] = []
    with Client(running, set_as_default=False) as client:
        executor = DaskExecutor(client)
        executor.say = said.append
        free_workers(executor, RUN, CURRENT, **options)
        assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3
    return said


def test_a_worker_that_an_older_execution_holds_is_restarted(running: LocalCluster) -> None:
    left_behind(running, 600)
    (said,) = freed(running, patience=1)
    assert said.startswith("worker tcp://127.0.0.1:")
    assert said.endswith("was restarted: a task of an earlier execution holds its thread: segment scene r001-c002")


def test_a_task_that_ends_soon_costs_no_restart(running: LocalCluster) -> None:
    left_behind(running, 1)
    assert freed(running, patience=30) == []


def test_nothing_of_others_is_touched(running: LocalCluster) -> None:
    """Neither a task of another run nor a task of the present execution is cancelled or restarted."""
    for key in (("segment-99999999-eeeeee", "scene", "r001-c002", 5), (f"segment-{CURRENT}", "scene", "r001-c002", 6)):
        left_behind(running, 3, key)
        assert freed(running, patience=1) == []


def test_tasks_whose_client_lives_are_cancelled(running: LocalCluster) -> None:
    with Client(running, set_as_default=False) as older:
        futures = [older.submit(time.sleep, 2, key=(*OLDER[:-1], n)) for n in range(2)]
        while sum(map(len, older.processing().values())) < 2:
            time.sleep(0.05)
        freed(running, patience=30)
        assert futures[-1].status == "cancelled"


def test_a_worker_without_a_nanny_is_left_out() -> None:
    from distributed import Scheduler, SpecCluster, Worker

    worker = {"cls": Worker, "options": {"nthreads": 1}}
    head = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}}
    with (
        SpecCluster(workers={0: worker, 1: worker}, scheduler=head) as running,
        Client(running, set_as_default=False) as client,
    ):
        first = next(iter(client.nthreads()))
        held = client.submit(time.sleep, 5, key=OLDER, workers=[first])
        while not any(threads.older for threads in _threads(client)):
            time.sleep(0.05)
        executor, said = DaskExecutor(client), list[str]()
        executor.say = said.append
        leftovers._cancel(client, RUN, CURRENT)
        free_workers(executor, RUN, CURRENT, patience=1)
        assert len(said) == 1
        assert f"worker {first} is left out: a task of an earlier execution holds its thread" in said[0]
        assert "it has no nanny that could restart it" in said[0]
        with pytest.raises(JobError, match="gone"):
            executor.leave_out(next(iter(set(client.nthreads()) - {first})), "gone")
        del held
