"""Submitting a run: the driver itself becomes a job of the queue.

The run directory keeps `submit/<n>/job.yaml`, the job with absolute paths, and the script beside it; `submitted.json`
lists the jobs. Submitting again goes on with the run.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from tilesseg.cluster.queue.job_scripts import JobRequest
from tilesseg.cluster.queue.schedulers import (
    LOGS,
    Queue,
    SubmittedJob,
    queue_name,
    queue_of,
    remember,
    submitted_jobs,
    waiting_jobs,
)
from tilesseg.errors import StoreError, TilessegError
from tilesseg.planning.cluster_options import QUEUES as QUEUE_KINDS
from tilesseg.planning.cluster_options import Cluster, bytes_of
from tilesseg.planning.job import Job, anchored, read_job
from tilesseg.planning.product_checks import check_submission
from tilesseg.store.driver_record import drivers
from tilesseg.store.locks import held, holder
from tilesseg.store.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Submitted:
    """Outcome of a submission."""

    run: Path
    jobs: tuple[SubmittedJob, ...]
    """Jobs that the queue has accepted, in this order; none after `--dry-run`."""
    scripts: tuple[str, ...]


def submit(path: Path, *, array: int | None = None, after: str | None = None, dry_run: bool = False) -> Submitted:
    """Hand a job's driver, or a job array that shares its tiles, to the queue that `cluster` names.

    Args:
        path: the job file.
        array: number of elements of a job array that share the tiles, without a scheduler between them; a last job,
            which waits for them, finishes what they have left. None: one driver, whose workers are jobs of their own.
        after: id of a job that has to end before.
        dry_run: whether only the scripts are made, and nothing is written or submitted.

    Raises:
        TilessegError: the job cannot work, its kind has no queue, the queue's commands are missing or refuse the job,
            or the run is in the queue or being worked on.
    """
    job = anchored(read_job(path), Path.cwd())
    run = Path(os.path.abspath(job.output.dir))
    queue = queue_of(job.cluster.kind, used=not dry_run)
    check_submission(job)
    with nullcontext() if dry_run else _turn(run):
        if not dry_run:
            _refuse_twice(run, queue, job.cluster.kind, after=after)
        folder = run / "submit" / str(_next_number(run))
        requests = requests_of(job.cluster, folder / "job.yaml", run=run, array=array, after=after, beside=path.parent)
        scripts = tuple(queue.script(request) for request in requests)
        if dry_run:
            return Submitted(run, (), scripts)
        _write(job, folder, run=run, array=array)
        accepted: list[SubmittedJob] = []
        try:
            for request in requests:
                ready = replace(request, after=accepted[-1].id) if accepted else request
                accepted.append(_submit_one(ready, queue, job.cluster.kind, folder=folder))
                remember(run, accepted[-1])
        except TilessegError:
            if accepted:  # no array without the job that finishes what it leaves
                queue.cancel([job.id for job in accepted])
            raise
    return Submitted(run, tuple(accepted), tuple(Path(job.script).read_text(encoding="utf-8") for job in accepted))


@contextmanager
def _turn(run: Path) -> Iterator[None]:
    """Hold the right to submit the run, or two processes could submit it at the same time.

    Raises:
        StoreError: another process is submitting the run.
    """
    path = run / "locks" / "submit"
    with held(path) as got:
        if not got:
            raise StoreError(
                f"cannot submit {run}: {holder(path)} is submitting it; wait for it, and see tilesseg status {run}"
            )
        yield


def _refuse_twice(run: Path, queue: Queue, kind: str, *, after: str | None) -> None:
    """Refuse a run that is in a queue or being worked on; only the job `after` may be.

    Raises:
        StoreError: there is such a job or driver; with its name.
    """
    waiting = [job for job in waiting_jobs(run, queue, kind) if job != after]
    if waiting:
        raise StoreError(
            f"cannot submit {run}: it is in the queue already, as job {waiting[-1]}; wait for it, submit "
            f"--after it, or end it by tilesseg cancel {run}"
        )
    known_jobs = {job.id for job in submitted_jobs(run)}
    working = [driver for driver in drivers(run) if driver.job not in known_jobs]
    if working:
        raise StoreError(
            f"cannot submit {run}: {working[0]} is working on it; wait for it, or end it by tilesseg cancel {run}"
        )


def _next_number(run: Path) -> int:
    """Number of the next folder in `submit`."""
    taken = [int(path.name) for path in (run / "submit").glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


def _write(job: Job, folder: Path, *, run: Path, array: int | None) -> None:
    """Write the job for the driver; later changes of the user's file are for the next submission."""
    directory = RunDirectory.create(run)
    (directory.path / LOGS).mkdir(exist_ok=True)
    folder.mkdir(parents=True)
    cluster = element_cluster(job.cluster) if array else named_cluster(job.cluster, run)
    data = job.model_copy(update={"cluster": cluster}).model_dump(mode="json")
    (folder / "job.yaml").write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _submit_one(request: JobRequest, queue: Queue, kind: str, *, folder: Path) -> SubmittedJob:
    script = folder / f"{request.name.rpartition('-')[2]}.{queue.suffix}"
    script.write_text(queue.script(request), encoding="utf-8")
    return SubmittedJob(kind, queue.submit(script), str(script), time.time(), socket.gethostname(), request.array)


def requests_of(
    cluster: Cluster, job: Path, *, run: Path, array: int | None, after: str | None, beside: Path
) -> list[JobRequest]:
    """Jobs to submit: the driver; or the array, and the job that finishes what the array has left.

    Args:
        cluster: the section of the job.
        job: path of the job file for `tilesseg run`.
        run: the run directory.
        array: number of elements of the array, or None.
        after: id of a job that has to end before.
        beside: folder that the path of a manifest is relative to.
    """
    command = (sys.executable, "-m", "tilesseg", "run", str(job))
    request = JobRequest(f"{queue_name(run)}-driver", command, logs=run / LOGS, account=cluster.account, after=after)
    if array is None:
        return [_driver(request, cluster, beside)]
    elements = _array(request, cluster, array)
    return [elements, replace(elements, name=f"{queue_name(run)}-finish", array=None)]


def _driver(request: JobRequest, cluster: Cluster, beside: Path) -> JobRequest:
    driver = cluster.driver
    return replace(
        request,
        cores=driver.cores,
        memory=bytes_of(driver.memory),
        walltime=driver.walltime or cluster.walltime,
        queue=driver.queue or cluster.queue,
        directives=driver.directives,
        setup=cluster.setup,
        image=cluster.image,
        manifest=beside / driver.manifest if driver.manifest else None,
    )


def _array(request: JobRequest, cluster: Cluster, array: int) -> JobRequest:
    """Request for a job array, whose elements have the resources of a worker."""
    exports = tuple(f"export {key}={shlex.quote(value)}" for key, value in cluster.environment.items())
    return replace(
        request,
        name=f"{request.name.removesuffix('-driver')}-array",
        cores=cluster.cores or request.cores,
        memory=bytes_of(cluster.memory) if cluster.memory else request.memory,
        gpus=cluster.gpus,
        walltime=cluster.walltime,
        queue=cluster.queue,
        directives=cluster.directives,
        setup=(*cluster.setup, *exports),
        array=array,
    )


def element_cluster(cluster: Cluster) -> Cluster:
    """Workers of an element of a job array: threads of one process."""
    return Cluster(
        kind="threads", threads=cluster.threads, engine_threads=cluster.engine_threads, device=cluster.device
    )


def named_cluster(cluster: Cluster, run: Path) -> Cluster:
    """Section `cluster` whose workers have the run's name in the queue, unless the job names them."""
    if cluster.kind not in QUEUE_KINDS:
        return cluster
    return cluster.model_copy(update={"options": {"job_name": queue_name(run), **cluster.options}})
