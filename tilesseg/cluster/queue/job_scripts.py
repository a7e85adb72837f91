"""Scripts of jobs for SLURM, PBS and Kubernetes, made from the same requirements.

The script for SLURM has been tested; those for PBS and Kubernetes follow their documentation.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tilesseg.errors import JobError, cannot
from tilesseg.planning.cluster_options import clock, seconds_of

WARNING = 120
"""Seconds before its wall time at which SLURM sends SIGTERM to a driver; at most a quarter of the wall time."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """Requested job of a queue: a command, and its resources."""

    name: str
    command: tuple[str, ...]
    logs: Path
    """Folder for the file with the command's output."""
    cores: int = 1
    memory: int = 2**30
    """Bytes of memory."""
    gpus: int = 0
    walltime: str | None = None
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    array: int | None = None
    """Number of elements of a job array; each gets `--part i/n`."""
    after: str | None = None
    """Id of a job that has to end before."""
    image: str | None = None
    manifest: Path | None = None
    """File of the Job that becomes the script (`kubernetes`)."""


def slurm_script(request: JobRequest) -> str:
    """Script for sbatch."""
    element = "%A_%a" if request.array else "%j"
    lines = [
        f"--job-name={request.name}",
        f"--output={shlex.quote(f'{request.logs}/driver-'.replace('%', '%%') + f'{element}.log')}",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.cores}",
        f"--mem={-(-request.memory // 2**20)}M",
        *_given("--time={}", request.walltime),
        f"--signal=B:TERM@{_warning(request.walltime)}",
        "--requeue",
        "--export=ALL",
        *_given("--partition={}", request.queue),
        *_given("--account={}", request.account),
        *_given("--gres=gpu:{}", request.gpus),
        *_given("--array=1-{}", request.array),
        *_given("--dependency=afterany:{}", request.after),
        *request.directives,
    ]
    return _shell("#SBATCH", lines, request, _command(request, "SLURM_ARRAY_TASK_ID"))


def pbs_script(request: JobRequest) -> str:
    """Script for qsub."""
    gpus = f":ngpus={request.gpus}" if request.gpus else ""
    lines = [
        f"-N {request.name}",
        "-j oe",
        "-o /dev/null",
        f"-l select=1:ncpus={request.cores}:mem={-(-request.memory // 2**20)}mb{gpus}",
        *_given("-l walltime={}", request.walltime and clock(seconds_of(request.walltime))),
        "-r y",
        "-V",
        *_given("-q {}", request.queue),
        *_given("-A {}", request.account),
        *_given("-J 1-{}", request.array),
        *_given("-W depend=afterany:{}", request.after),
        *request.directives,
    ]
    # PBS shows a job's output only after its end; this file can be read while the job runs.
    log = f'exec >>{shlex.quote(f"{request.logs}/driver-")}"$PBS_JOBID".log 2>&1'
    return _shell("#PBS", lines, request, log, _command(request, "PBS_ARRAY_INDEX"))


def kubernetes_manifest(request: JobRequest) -> str:
    """User's own Job with name, image, command and resources; volumes and accounts differ everywhere.

    Raises:
        JobError: the file is missing or no Job, or the request is an array or has to wait for another job.
    """
    if request.array:
        raise JobError(f"--array {request.array} is for slurm and pbs, and cluster.kind is kubernetes; leave it out")
    if request.after:
        raise JobError(f"--after {request.after} is for slurm and pbs, and cluster.kind is kubernetes; leave it out")
    if request.manifest is None:
        raise JobError("cluster.kind is kubernetes, and cluster.driver has no manifest; set it to the file of a Job")
    try:
        data = yaml.safe_load(request.manifest.read_text(encoding="utf-8"))
        container = data["spec"]["template"]["spec"]["containers"][0]
        data["metadata"]["name"] = request.name
    except OSError as error:
        raise JobError(cannot(f"read the manifest {request.manifest}", error, "give its path")) from None
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        raise JobError(
            f"{request.manifest} is not a Job: spec.template.spec.containers has no container; give the file of a Job"
        ) from None
    amounts = {"cpu": str(request.cores), "memory": str(request.memory)}
    container.pop("args", None)
    container.update(
        image=request.image,
        command=["python", *request.command[1:]],
        resources={"requests": amounts, "limits": {"memory": amounts["memory"]}},
    )
    return yaml.safe_dump(data, sort_keys=False)


def _shell(directive: str, lines: Sequence[str], request: JobRequest, *commands: str) -> str:
    """Bash script of directives, setup and commands."""
    return "\n".join(["#!/bin/bash", *(f"{directive} {line}" for line in lines), *request.setup, *commands, ""])


def _command(request: JobRequest, element: str) -> str:
    """Command that replaces the shell, so that signals for the job reach it."""
    part = f' --part "${element}/{request.array}"' if request.array else ""
    return f"exec {shlex.join(request.command)}{part}"


def _given(text: str, value: object) -> list[str]:
    return [text.format(value)] if value else []


def _warning(walltime: str | None) -> int:
    return WARNING if walltime is None else min(WARNING, int(seconds_of(walltime)) // 4)
