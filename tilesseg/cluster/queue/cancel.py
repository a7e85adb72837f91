"""Cancelling: the drivers of a run and their workers are ended; what is done is kept.

A driver that receives SIGTERM ends its workers itself. Workers that outlive it are identified by their name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilesseg.cluster.queue.schedulers import Queue, SubmittedJob, queue_name, queue_of, submitted_jobs
from tilesseg.errors import StoreError
from tilesseg.store.driver_record import Driver, drivers, end_driver

WITHIN = 60.0
"""Seconds within which a driver has to end."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the queue."""


def cancel(run: Path) -> Iterator[str]:
    """End all jobs and drivers of a run, and yield a line for each.

    Raises:
        StoreError: nothing works on the run, or a driver is on another machine or does not end.
        JobError: the queue of a job cannot be reached from here.
    """
    if not run.is_dir():
        raise StoreError(f"there is no folder {run}; give the folder of a run")
    ended = [f"job {job} of the queue {kind}" for kind, job in _cancel_submitted(run)]
    ids = {job.id for job in submitted_jobs(run)}
    pods = f"{queue_name(run)}-"  # names of pods, which are machines of their own and know no job id, begin like this
    for driver in drivers(run):
        if driver.job not in ids and not (ids and driver.host.startswith(pods)):
            _end(driver, run)
            ended.append(str(driver))
    if not ended:
        raise StoreError(f"cannot cancel {run}: it has 0 jobs in a queue and 0 drivers; run or submit its job to go on")
    yield from (f"ended {what}" for what in ended)


def _end(driver: Driver, run: Path) -> None:
    """End a driver that is not in a queue.

    Raises:
        StoreError: the driver is on another machine, or does not end.
    """
    if not driver.here:
        raise StoreError(
            f"cannot end {driver}, which works on {run}: this is another machine; run tilesseg cancel there"
        )
    if not end_driver(driver, run, within=WITHIN):
        raise StoreError(
            f"cannot end {driver}: it still runs {WITHIN:.0f} s after SIGTERM; end it by kill -9 {driver.pid}"
        )


def _cancel_submitted(run: Path) -> Iterator[tuple[str, str]]:
    """End submitted jobs: drivers, the last first, since it may wait for the others; then their workers."""
    by_kind: dict[str, list[SubmittedJob]] = {}
    for job in submitted_jobs(run):
        by_kind.setdefault(job.queue, []).append(job)
    for kind, jobs in by_kind.items():
        queue = queue_of(kind)
        ended = queue.waiting(jobs)[::-1]
        if ended:
            queue.cancel(ended)
            _wait_until_gone(jobs, queue, run)
        # The run may have had another path where it was submitted, and its name in the queue follows from that path.
        names = dict.fromkeys(queue_name(Path(job.script).parents[2]) for job in jobs)
        workers = [worker for name in names for worker in queue.named(name)]
        if workers:
            queue.cancel(workers)
        yield from ((kind, job) for job in (*ended, *workers))


def _wait_until_gone(jobs: Sequence[SubmittedJob], queue: Queue, run: Path) -> None:
    """Wait while drivers end their workers.

    Raises:
        StoreError: a driver is still in the queue.
    """
    end = time.monotonic() + WITHIN
    while left := queue.waiting(jobs):
        if time.monotonic() > end:
            raise StoreError(
                f"cannot cancel job {left[-1]} of {run}: it is still in the queue after {WITHIN:.0f} s; try again"
            )
        time.sleep(LOOK_EVERY)
