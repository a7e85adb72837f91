"""Cancelling: the drivers of a run and the workers that they started are ended; what is done is kept.

A driver that is asked to end ends its workers itself. Those that are left, because it had no time, are found by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilesseg.cluster.queue.schedulers import Ordered, Queue, queue_name, queue_of
from tilesseg.cluster.queue.submitted_jobs import submitted_jobs
from tilesseg.errors import StoreError
from tilesseg.store.driver_record import Driver, drivers, end_driver

WITHIN = 60.0
"""Seconds that a driver has to end."""
LOOK_EVERY = 0.5


def cancel(run: Path) -> Iterator[str]:
    """End everything that works on a run, or waits to; say what, one line for each.

    Raises:
        StoreError: nothing works on it, or who does is on another machine or does not end.
        JobError: the queue it was submitted to cannot be asked from here.
    """
    if not run.is_dir():
        raise StoreError(f"there is no run in {run}; give the folder of a run")
    found = [f"job {job} of the queue {kind}" for kind, job in _cancel_submitted(run)]
    ids = {one.id for one in submitted_jobs(run)}
    pods = f"{queue_name(run)}-"  # of Kubernetes, which are their own machines and know no id, begin like this
    for driver in drivers(run):
        if driver.job not in ids and not (ids and driver.host.startswith(pods)):
            _end(driver, run)
            found.append(str(driver))
    if not found:
        raise StoreError(
            f"nothing works on {run}: 0 jobs in a queue, 0 drivers; tilesseg run or submit goes on with it"
        )
    yield from (f"ended {what}" for what in found)


def _end(driver: Driver, run: Path) -> None:
    """End a driver that no queue knows.

    Raises:
        StoreError: it is elsewhere, or goes on.
    """
    if not driver.here:
        raise StoreError(
            f"{run} is being worked on by {driver}, and this is another machine; run tilesseg cancel there"
        )
    if not end_driver(driver, run, within=WITHIN):
        raise StoreError(
            f"{driver} has not ended within {WITHIN:.0f} s after SIGTERM; look at it: kill -9 {driver.pid}"
        )


def _cancel_submitted(run: Path) -> Iterator[tuple[str, str]]:
    """End what was submitted: drivers, the last one first, since it may wait for the others; then their workers."""
    by_kind: dict[str, list[Ordered]] = {}
    for one in submitted_jobs(run):
        by_kind.setdefault(one.queue, []).append(one)
    for kind, jobs in by_kind.items():
        queue = queue_of(kind)
        ended = queue.waiting(jobs)[::-1]
        if ended:
            queue.cancel(ended)
            _wait_until_gone(jobs, queue, run)
        # A run may be known here by another path than where it was submitted, and its name follows from that.
        names = dict.fromkeys(queue_name(Path(one.script).parents[2]) for one in jobs)
        workers = [worker for name in names for worker in queue.named(name)]
        if workers:
            queue.cancel(workers)
        yield from ((kind, job) for job in (*ended, *workers))


def _wait_until_gone(jobs: Sequence[Ordered], queue: Queue, run: Path) -> None:
    """Give drivers the time to end their workers.

    Raises:
        StoreError: they stay.
    """
    end = time.monotonic() + WITHIN
    while left := queue.waiting(jobs):
        if time.monotonic() > end:
            raise StoreError(
                f"job {left[-1]} of {run} is in the queue {WITHIN:.0f} s after it was cancelled; try again"
            )
        time.sleep(LOOK_EVERY)
