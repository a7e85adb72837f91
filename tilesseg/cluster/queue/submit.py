"""Submitting a run: the driver itself becomes a job of the queue, and whoever submitted it may go home.

What is submitted is kept in the run directory: `submit/<n>/job.yaml`, the job with absolute paths, and the script
beside it; `submitted.json` lists the jobs. Submitting again goes on with the run.
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

from tilesseg.cluster.queue.job_scripts import Order
from tilesseg.cluster.queue.schedulers import Ordered, Queue, queue_name, queue_of
from tilesseg.cluster.queue.submitted_jobs import LOGS, remember, submitted_jobs, waiting_jobs
from tilesseg.errors import StoreError, TilessegError
from tilesseg.planning.cluster_options import QUEUES as QUEUE_KINDS
from tilesseg.planning.cluster_options import Cluster, bytes_of
from tilesseg.planning.job import Job, anchored, read_job
from tilesseg.planning.product_checks import check
from tilesseg.store.driver_record import drivers
from tilesseg.store.locks import held, holder
from tilesseg.store.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Submitted:
    """What came of it."""

    run: Path
    jobs: tuple[Ordered, ...]
    """What the queue has taken, in this order; none where it was a trial."""
    scripts: tuple[str, ...]


def submit(path: Path, *, array: int | None = None, after: str | None = None, dry_run: bool = False) -> Submitted:
    """Hand a job's driver, or a job array that shares its tiles, to the queue that `cluster` names.

    Args:
        path: the job file.
        array: number of elements of a job array that share the tiles, without a scheduler between them; a last job,
            which waits for them, finishes what they have left. None: one driver, whose workers are jobs of their own.
        after: id of a job that has to end before.
        dry_run: make the scripts, and write and submit nothing.

    Raises:
        TilessegError: the job cannot work, this kind has no queue, its commands are not here, it refuses, or the run
            is in the queue or being worked on.
    """
    job = anchored(read_job(path), Path.cwd())
    run = Path(os.path.abspath(job.output.dir))
    queue = queue_of(job.cluster.kind, used=not dry_run)
    check(job)
    with nullcontext() if dry_run else _turn(run):
        if not dry_run:
            _refuse_twice(run, queue, job.cluster.kind, after=after)
        folder = run / "submit" / str(_next_number(run))
        orders = orders_of(job.cluster, folder / "job.yaml", run=run, array=array, after=after, beside=path.parent)
        scripts = tuple(queue.script(order) for order in orders)
        if dry_run:
            return Submitted(run, (), scripts)
        _write(job, folder, run=run, array=array)
        taken: list[Ordered] = []
        try:
            for order in orders:
                ready = replace(order, after=taken[-1].id) if taken else order
                taken.append(_hand_in(ready, queue, job.cluster.kind, folder=folder))
                remember(run, taken[-1])
        except TilessegError:
            if taken:  # no array without the job that finishes what it leaves
                queue.cancel([one.id for one in taken])
            raise
    return Submitted(run, tuple(taken), tuple(Path(one.script).read_text(encoding="utf-8") for one in taken))


@contextmanager
def _turn(run: Path) -> Iterator[None]:
    """Nobody else submits the run meanwhile, or both would find it free.

    Raises:
        StoreError: somebody does.
    """
    path = run / "locks" / "submit"
    with held(path) as got:
        if not got:
            raise StoreError(f"{run} is being submitted by {holder(path)}; wait for it: tilesseg status {run}")
        yield


def _refuse_twice(run: Path, queue: Queue, kind: str, *, after: str | None) -> None:
    """Refuse a run that somebody works on, or will; that which it is to come after may.

    Raises:
        StoreError: with who it is.
    """
    waiting = [one for one in waiting_jobs(run, queue, kind) if one != after]
    if waiting:
        raise StoreError(
            f"{run} is in the queue already, as job {waiting[-1]}; wait for it, let this one come --after it, or end "
            f"it: tilesseg cancel {run}"
        )
    known_jobs = {one.id for one in submitted_jobs(run)}
    working = [one for one in drivers(run) if one.job not in known_jobs]
    if working:
        raise StoreError(f"{run} is being worked on by {working[0]}; wait for it, or end it: tilesseg cancel {run}")


def _next_number(run: Path) -> int:
    """Of the folder for what is submitted next."""
    taken = [int(path.name) for path in (run / "submit").glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


def _write(job: Job, folder: Path, *, run: Path, array: int | None) -> None:
    """The job as it is now, for the driver: what the user changes in his file meanwhile is for the next time."""
    directory = RunDirectory.create(run)
    (directory.path / LOGS).mkdir(exist_ok=True)
    folder.mkdir(parents=True)
    cluster = element_cluster(job.cluster) if array else named_cluster(job.cluster, run)
    data = job.model_copy(update={"cluster": cluster}).model_dump(mode="json")
    (folder / "job.yaml").write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _hand_in(order: Order, queue: Queue, kind: str, *, folder: Path) -> Ordered:
    script = folder / f"{order.name.rpartition('-')[2]}.{queue.suffix}"
    script.write_text(queue.script(order), encoding="utf-8")
    return Ordered(kind, queue.submit(script), str(script), time.time(), socket.gethostname(), order.array)


def orders_of(
    cluster: Cluster, job: Path, *, run: Path, array: int | None, after: str | None, beside: Path
) -> list[Order]:
    """What the queue is asked for: the driver; or the array, and the job that finishes what the array has left.

    Args:
        cluster: the section of the job.
        job: the file that `tilesseg run` gets.
        run: the run directory.
        array: number of elements of the array, or None.
        after: id of a job that has to end before.
        beside: folder that the path of a manifest is seen from.
    """
    command = (sys.executable, "-m", "tilesseg", "run", str(job))
    order = Order(f"{queue_name(run)}-driver", command, logs=run / LOGS, account=cluster.account, after=after)
    if array is None:
        return [_driver(order, cluster, beside)]
    elements = _array(order, cluster, array)
    return [elements, replace(elements, name=f"{queue_name(run)}-finish", array=None)]


def _driver(order: Order, cluster: Cluster, beside: Path) -> Order:
    driver = cluster.driver
    return replace(
        order,
        cores=driver.cores,
        memory=bytes_of(driver.memory),
        walltime=driver.walltime or cluster.walltime,
        queue=driver.queue or cluster.queue,
        directives=driver.directives,
        setup=cluster.setup,
        image=cluster.image,
        manifest=beside / driver.manifest if driver.manifest else None,
    )


def _array(order: Order, cluster: Cluster, array: int) -> Order:
    """Elements that need what a worker needs."""
    exports = tuple(f"export {key}={shlex.quote(value)}" for key, value in cluster.environment.items())
    return replace(
        order,
        name=f"{order.name.removesuffix('-driver')}-array",
        cores=cluster.cores or order.cores,
        memory=bytes_of(cluster.memory) if cluster.memory else order.memory,
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
