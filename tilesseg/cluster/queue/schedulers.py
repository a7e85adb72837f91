"""The queues that a run can be submitted to, and the commands they know.

A queue is a row of `QUEUES`. SLURM has been run; PBS and Kubernetes are written by their documentation.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilesseg.cluster.queue.job_scripts import Order, kubernetes_manifest, pbs_script, slurm_script
from tilesseg.errors import JobError

PATIENCE = 60
"""Seconds that a command of a queue has to answer."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """A job that a queue has taken."""

    queue: str
    """Kind of the queue."""
    id: str
    script: str
    time: float
    """When, in seconds since 1970."""
    host: str
    """Where it was submitted."""
    array: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """How one kind of queue is spoken to."""

    programs: tuple[str, ...]
    """What has to be on PATH."""
    suffix: str
    """Of the script's name."""
    script: Callable[[Order], str]
    submit: Callable[[Path], str]
    """Hands a script in; gives the job's id."""
    waiting: Callable[[Sequence[Ordered]], list[str]]
    """Ids of those jobs that wait or run."""
    named: Callable[[str], list[str]]
    """Ids of this user's jobs of a name, that wait or run."""
    cancel: Callable[[Sequence[str]], None]


def queue_name(run: Path) -> str:
    """What the jobs of a run's workers are called, so that they can be found: `tilesseg-1a2b3c4d`."""
    return f"tilesseg-{hashlib.sha256(os.path.abspath(run).encode()).hexdigest()[:8]}"


def queue_of(kind: str, *, used: bool = True) -> Queue:
    """The queue of a kind of cluster, if its commands are here, or will not be used.

    Raises:
        JobError: this kind has no queue, or its commands are not on PATH.
    """
    queue = QUEUES.get(kind)
    if queue is None:
        raise JobError(
            f"cluster.kind is {kind}, and submit knows the queues of {', '.join(QUEUES)}; carry the job out here: "
            "tilesseg run JOB"
        )
    for program in queue.programs if used else ():
        if shutil.which(program) is None:
            raise JobError(f"cluster.kind is {kind}, and there is no command {program} on PATH; go where there is one")
    return queue


def _ask(*command: str) -> str:
    """What a command of a queue prints.

    Raises:
        JobError: it fails, with what it says.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise JobError(f"there is no command {command[0]} on PATH; go where the queue is") from None
    except subprocess.TimeoutExpired:
        raise JobError(f"{command[0]} has not answered within {PATIENCE} s; try again when the queue does") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise JobError(f"{shlex.join(command)} ended with code {done.returncode}: {said}")
    return done.stdout.strip()


def _slurm_submit(script: Path) -> str:
    return _ask("sbatch", "--parsable", str(script)).partition(";")[0]


def _slurm_waiting(ordered: Sequence[Ordered]) -> list[str]:
    """Their scripts must be the run's, too: a SLURM that was set up anew gives old numbers to other jobs."""
    lines = _ask("squeue", "--me", "--noheader", "--format=%F %o").splitlines()
    there = {(job, script) for job, _, script in (line.strip().partition(" ") for line in lines)}
    return [one.id for one in ordered if (one.id, one.script) in there]


def _slurm_named(name: str) -> list[str]:
    return list(dict.fromkeys(_ask("squeue", "--me", "--noheader", f"--name={name}", "--format=%F").split()))


def _slurm_cancel(ids: Sequence[str]) -> None:
    _ask("scancel", "--quiet", *ids)


def _pbs_waiting(ordered: Sequence[Ordered]) -> list[str]:
    there = set(_ask("qselect", "-u", getpass.getuser()).split())
    return [one.id for one in ordered if one.id in there]


def _pbs_cancel(ids: Sequence[str]) -> None:
    _ask("qdel", *ids)


def _kubernetes_submit(script: Path) -> str:
    """One that has ended has the same name, and what it consists of cannot be changed."""
    _ask("kubectl", "delete", "-f", str(script), "--ignore-not-found")
    return _ask("kubectl", "apply", "-f", str(script), "-o", "name")


def _kubernetes_waiting(ordered: Sequence[Ordered]) -> list[str]:
    def active(one: Ordered) -> str:
        return _ask("kubectl", "get", "-f", one.script, "--ignore-not-found", "-o", "jsonpath={.status.active}")

    return [one.script for one in ordered if active(one)]


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
"""By kind of cluster."""
