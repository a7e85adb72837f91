"""Jobs that were submitted for a run: `submitted.json` in its directory, oldest first; and those still in the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tilesseg.cluster.queue.schedulers import Queue, SubmittedJob
from tilesseg.errors import StoreError
from tilesseg.store.ledger import read_json, write_json

FILE = "submitted.json"
LOGS = "logs"
"""Folder of a run for the output of its driver and workers."""


def submitted_jobs(run: Path) -> list[SubmittedJob]:
    """Jobs that were ever submitted for a run.

    Raises:
        StoreError: the list is damaged.
    """
    path = run / FILE
    try:
        return [SubmittedJob(**fields) for fields in read_json(path) or ()]
    except TypeError as error:
        raise StoreError(f"{path} is damaged ({error}); delete it once nothing of the run is in the queue") from None


def remember(run: Path, job: SubmittedJob) -> None:
    """Add a job to the submitted jobs of a run."""
    jobs: Sequence[SubmittedJob] = [*submitted_jobs(run), job]
    write_json(run / FILE, [asdict(job) for job in jobs])


def waiting_jobs(run: Path, queue: Queue, kind: str) -> list[str]:
    """Ids of the run's jobs that wait or run."""
    own = [job for job in submitted_jobs(run) if job.queue == kind]
    return queue.waiting(own) if own else []
