"""Queues that a run can be submitted to, and their commands.

A queue is a row of `QUEUES`. SLURM has been tested; PBS and Kubernetes follow their documentation. The file
`submitted.json` in a run directory lists the jobs that were submitted for the run, oldest first.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tilesseg.cluster.queue.job_scripts import JobRequest, kubernetes_manifest, pbs_script, slurm_script
from tilesseg.errors import JobError, StoreError
from tilesseg.store.ledger import read_json, write_json

SUBMITTED = "submitted.json"
LOGS = "logs"
"""Folder of a run for the output of its driver and workers."""
PATIENCE = 60
"""Seconds within which a command of a queue has to end."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """Job that a queue has accepted."""

    queue: str
    """Kind of the queue."""
    id: str
    script: str
    time: float
    """Time of submission, in seconds since 1970."""
    host: str
    """Machine that submitted the job."""
    array: int | None = None
    """Number of elements of a job array."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Commands of one kind of queue."""

    programs: tuple[str, ...]
    """Programs that have to be on PATH."""
    suffix: str
    """Suffix of the script's name."""
    script: Callable[[JobRequest], str]
    submit: Callable[[Path], str]
    """Function that submits a script and returns the job's id."""
    waiting: Callable[[Sequence[SubmittedJob]], list[str]]
    """Function from jobs to the ids of those jobs that wait or run."""
    named: Callable[[str], list[str]]
    """Function from a name to the ids of this user's jobs of that name that wait or run."""
    cancel: Callable[[Sequence[str]], None]


def queue_name(run: Path) -> str:
    """Name of the jobs of a run's workers in the queue: `tilesseg-1a2b3c4d`."""
    return f"tilesseg-{hashlib.sha256(os.path.abspath(run).encode()).hexdigest()[:8]}"


def queue_of(kind: str, *, used: bool = True) -> Queue:
    """Queue of a kind of cluster. Its commands have to be on PATH, unless `used` is false.

    Raises:
        JobError: this kind has no queue, or its commands are not on PATH.
    """
    queue = QUEUES.get(kind)
    if queue is None:
        raise JobError(
            f"cannot submit a job whose cluster.kind is {kind}: submit knows the queues of {', '.join(QUEUES)}; use "
            "tilesseg run JOB"
        )
    for program in queue.programs if used else ():
        if shutil.which(program) is None:
            raise JobError(
                f"cannot reach the queue of cluster.kind {kind}: there is no command {program} on PATH; use a machine "
                "that has it, such as a login node"
            )
    return queue


def _ask(*command: str) -> str:
    """Output of a command of a queue.

    Raises:
        JobError: the command fails; with its message.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise JobError(
            f"cannot reach the queue: there is no command {command[0]} on PATH; use a machine that has it"
        ) from None
    except subprocess.TimeoutExpired:
        raise JobError(
            f"cannot reach the queue: {command[0]} has not answered within {PATIENCE} s; try again later"
        ) from None
    if done.returncode:
        output = " ".join((done.stderr or done.stdout).split())
        raise JobError(
            f"cannot run {shlex.join(command)}: it ended with code {done.returncode}: {output}; remove the cause "
            "and try again"
        )
    return done.stdout.strip()


def _slurm_submit(script: Path) -> str:
    return _ask("sbatch", "--parsable", str(script)).partition(";")[0]


def _slurm_waiting(jobs: Sequence[SubmittedJob]) -> list[str]:
    """Ids of the jobs in the queue whose script is the run's too: a SLURM that was set up anew gives old ids again."""
    lines = _ask("squeue", "--me", "--noheader", "--format=%F %o").splitlines()
    there = {(job, script) for job, _, script in (line.strip().partition(" ") for line in lines)}
    return [job.id for job in jobs if (job.id, job.script) in there]


def _slurm_named(name: str) -> list[str]:
    return list(dict.fromkeys(_ask("squeue", "--me", "--noheader", f"--name={name}", "--format=%F").split()))


def _slurm_cancel(ids: Sequence[str]) -> None:
    _ask("scancel", "--quiet", *ids)


def _pbs_waiting(jobs: Sequence[SubmittedJob]) -> list[str]:
    there = set(_ask("qselect", "-u", getpass.getuser()).split())
    return [job.id for job in jobs if job.id in there]


def _pbs_cancel(ids: Sequence[str]) -> None:
    _ask("qdel", *ids)


def _kubernetes_submit(script: Path) -> str:
    """Submit a Job, after deleting an ended Job of the same name, whose content cannot be changed."""
    _ask("kubectl", "delete", "-f", str(script), "--ignore-not-found")
    return _ask("kubectl", "apply", "-f", str(script), "-o", "name")


def _kubernetes_waiting(jobs: Sequence[SubmittedJob]) -> list[str]:
    def active(job: SubmittedJob) -> str:
        return _ask("kubectl", "get", "-f", job.script, "--ignore-not-found", "-o", "jsonpath={.status.active}")

    return [job.script for job in jobs if active(job)]


def _kubernetes_cancel(scripts: Sequence[str]) -> None:
    for script in scripts:
        _ask("kubectl", "delete", "-f", script, "--ignore-not-found", "--wait=false")


QUEUES = {
    "slurm": Queue(
        ("sbatch", "squeue", "scancel"),
        "sh",
        slurm_script,
        _slurm_submit,
        _slurm_waiting,
        _slurm_named,
        _slurm_cancel,
    ),
    "pbs": Queue(
        ("qsub", "qselect", "qdel"),
        "sh",
        pbs_script,
        lambda script: _ask("qsub", str(script)),
        _pbs_waiting,
        lambda name: _ask("qselect", "-N", name).split(),
        _pbs_cancel,
    ),
    "kubernetes": Queue(
        ("kubectl",),
        "yaml",
        kubernetes_manifest,
        _kubernetes_submit,
        _kubernetes_waiting,
        lambda name: [],
        _kubernetes_cancel,
    ),
}
"""Queue by kind of cluster."""


def submitted_jobs(run: Path) -> list[SubmittedJob]:
    """Jobs that were ever submitted for a run.

    Raises:
        StoreError: the list is damaged.
    """
    path = run / SUBMITTED
    try:
        return [SubmittedJob(**fields) for fields in read_json(path) or ()]
    except TypeError as error:
        raise StoreError(f"{path} is damaged ({error}); delete it once nothing of the run is in the queue") from None


def remember(run: Path, job: SubmittedJob) -> None:
    """Add a job to the submitted jobs of a run."""
    jobs: Sequence[SubmittedJob] = [*submitted_jobs(run), job]
    write_json(run / SUBMITTED, [asdict(job) for job in jobs])


def waiting_jobs(run: Path, queue: Queue, kind: str) -> list[str]:
    """Ids of the run's jobs that wait or run."""
    own = [job for job in submitted_jobs(run) if job.queue == kind]
    return queue.waiting(own) if own else []
