"""The scripts that queues get: what is asked of a queue, in the words of each.

That of SLURM has been run; those of PBS and Kubernetes are written by their documentation.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tilesseg.errors import JobError
from tilesseg.planning.cluster_options import clock, seconds_of

WARNING = 120
"""Seconds before its wall time at which SLURM asks a driver to end; a quarter of a wall time that is short."""


@dataclass(frozen=True, slots=True)
class Order:
    """A job of a queue: a command, and what it needs."""

    name: str
    command: tuple[str, ...]
    logs: Path
    """Folder of the file that the command's output goes to."""
    cores: int = 1
    memory: int = 2**30
    """In bytes."""
    gpus: int = 0
    walltime: str | None = None
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    array: int | None = None
    """Number of elements of a job array; each gets `--part i/n`."""
    after: str | None = None
    """Job that has to end before."""
    image: str | None = None
    manifest: Path | None = None
    """`kubernetes`: the Job that becomes the script."""


def slurm_script(order: Order) -> str:
    """For sbatch."""
    element = "%A_%a" if order.array else "%j"
    lines = [
        f"--job-name={order.name}",
        f"--output={shlex.quote(f'{order.logs}/driver-'.replace('%', '%%') + f'{element}.log')}",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={order.cores}",
        f"--mem={-(-order.memory // 2**20)}M",
        *_given("--time={}", order.walltime),
        f"--signal=B:TERM@{_warning(order.walltime)}",
        "--requeue",
        "--export=ALL",
        *_given("--partition={}", order.queue),
        *_given("--account={}", order.account),
        *_given("--gres=gpu:{}", order.gpus),
        *_given("--array=1-{}", order.array),
        *_given("--dependency=afterany:{}", order.after),
        *order.directives,
    ]
    return _shell("#SBATCH", lines, order, _command(order, "SLURM_ARRAY_TASK_ID"))


def pbs_script(order: Order) -> str:
    """For qsub."""
    gpus = f":ngpus={order.gpus}" if order.gpus else ""
    lines = [
        f"-N {order.name}",
        "-j oe",
        "-o /dev/null",
        f"-l select=1:ncpus={order.cores}:mem={-(-order.memory // 2**20)}mb{gpus}",
        *_given("-l walltime={}", order.walltime and clock(seconds_of(order.walltime))),
        "-r y",
        "-V",
        *_given("-q {}", order.queue),
        *_given("-A {}", order.account),
        *_given("-J 1-{}", order.array),
        *_given("-W depend=afterany:{}", order.after),
        *order.directives,
    ]
    # PBS shows a job's output when it has ended; a file that is written meanwhile can be read meanwhile.
    log = f'exec >>{shlex.quote(f"{order.logs}/driver-")}"$PBS_JOBID".log 2>&1'
    return _shell("#PBS", lines, order, log, _command(order, "PBS_ARRAY_INDEX"))


def kubernetes_manifest(order: Order) -> str:
    """The user's own Job, since volumes and accounts are different everywhere, with name, image, command and amounts.

    Raises:
        JobError: there is none, it is no Job, or an array is asked for, or to wait for another one.
    """
    if order.array:
        raise JobError(f"--array {order.array} is for slurm and pbs, and cluster.kind is kubernetes; leave it out")
    if order.after:
        raise JobError(f"--after {order.after} is for slurm and pbs, and cluster.kind is kubernetes; leave it out")
    if order.manifest is None:
        raise JobError(
            "cluster.kind is kubernetes and cluster.driver names no manifest; name the file of a Job of yours"
        )
    try:
        data = yaml.safe_load(order.manifest.read_text(encoding="utf-8"))
        container = data["spec"]["template"]["spec"]["containers"][0]
        data["metadata"]["name"] = order.name
    except OSError as error:
        raise JobError(f"no manifest at {order.manifest}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise JobError(f"{order.manifest} has no spec.template.spec.containers with one in it; give a Job") from None
    amounts = {"cpu": str(order.cores), "memory": str(order.memory)}
    container.pop("args", None)
    container.update(
        image=order.image,
        command=["python", *order.command[1:]],
        resources={"requests": amounts, "limits": {"memory": amounts["memory"]}},
    )
    return yaml.safe_dump(data, sort_keys=False)


def _shell(directive: str, lines: Sequence[str], order: Order, *commands: str) -> str:
    """A script of bash: directives, setup, commands."""
    return "\n".join(["#!/bin/bash", *(f"{directive} {line}" for line in lines), *order.setup, *commands, ""])


def _command(order: Order, element: str) -> str:
    """Replaces the shell, so that a signal for the job reaches it."""
    part = f' --part "${element}/{order.array}"' if order.array else ""
    return f"exec {shlex.join(order.command)}{part}"


def _given(text: str, value: object) -> list[str]:
    return [text.format(value)] if value else []


def _warning(walltime: str | None) -> int:
    return WARNING if walltime is None else min(WARNING, int(seconds_of(walltime)) // 4)
