"""Arguments of the cluster classes, made from the section `cluster`: arithmetic only, so that tests can check them.

A worker is one process with a nanny, however it starts: as a job of a queue, as a pod, as an entry of `hosts`.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.planning.cluster_options import QUEUES, bytes_of, clock, seconds_of
from tilesseg.process import HUGE_PAGES

if TYPE_CHECKING:
    from tilesseg.planning.cluster_options import Cluster


WORKER_ENVIRONMENT = {"GDAL_CACHEMAX": "64", **HUGE_PAGES}
"""Environment variables of every worker. GDAL's own cache would be 5 % of the machine's memory, in every process."""
ALLOWED_FAILURES, MESSAGES_KEPT = 0, 100
"""Settings of schedulers. With Dask's default, a tile that kills its worker would be given to three further workers;
with 0 the executor runs it again alone."""
SCHEDULER = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    # Each connection to a worker keeps its last messages with the tasks in them: 2 MB a worker with Dask's 1,000.
    "distributed.admin.low-level-log-length": MESSAGES_KEPT,
}
"""Configuration of schedulers that we start."""
STAGGER = 0.5
"""Share of the time between lifetime and wall time over which the ends of workers are spread."""


def threads_per_worker(section: Cluster) -> int:
    """Number of tiles that a worker computes at the same time."""
    if section.kind == "serial":
        return 1
    return 2 if section.threads == "auto" else section.threads


def environment_of(section: Cluster) -> dict[str, str]:
    """Environment variables of every worker: ours, replaced by the user's (glibc may be tuned for all processes)."""
    tuned = {name: os.environ[name] for name in HUGE_PAGES if name in os.environ}
    return {**WORKER_ENVIRONMENT, **tuned, **section.environment}


def arguments_of(section: Cluster, *, logs: Path | None = None) -> dict[str, Any]:
    """Keyword arguments for the cluster class of a kind, `options` included.

    Args:
        section: section `cluster`; its `options` extend lists and mappings, and replace other values.
        logs: folder for the output of workers in a queue; None for the queue's own.
    """
    if section.kind in QUEUES:
        return _joined(_queue(section, logs), section.options)
    recipe = {"ssh": _ssh, "kubernetes": _kubernetes}.get(section.kind)
    return _joined(recipe(section) if recipe else {}, section.options)


def _joined(derived: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Our arguments with the user's: lists and mappings are joined, other values are the user's."""
    joined = dict(derived)
    for key, value in given.items():
        ours = derived.get(key)
        if isinstance(ours, list) and isinstance(value, list):
            joined[key] = [*ours, *value]
        elif isinstance(ours, dict) and isinstance(value, dict):
            joined[key] = _joined(ours, value)
        else:
            joined[key] = value
    return joined


def _queue(section: Cluster, logs: Path | None) -> dict[str, Any]:
    """Arguments for a class of dask-jobqueue; each job has one process."""
    assert section.cores is not None and section.memory is not None  # the section has seen to it
    arguments = {
        "cores": section.cores,
        "memory": section.memory,
        "processes": 1,
        "nanny": True,
        "python": shlex.quote(sys.executable),
        "worker_extra_args": _worker_arguments(section),
        "job_script_prologue": [*section.setup, *_exports(section)],
        "job_extra_directives": [*_gpu_directives(section), *_log_directives(section, logs), *section.directives],
        "job_name": "tilesseg",
        "queue": section.queue,
        "account" if section.kind in ("slurm", "pbs") else "project": section.account,
        "walltime": _walltime(section),
        "local_directory": section.spill and shlex.quote(section.spill),
        "log_directory": _plain_folder(logs),
        "resource_spec": _resource_spec(section),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _worker_arguments(section: Cluster) -> list[str]:
    """Arguments of `dask worker`, after those of dask-jobqueue, whose `--nthreads` (all cores) they replace."""
    arguments = ["--nthreads", str(threads_per_worker(section))]
    if section.lifetime:
        lifetime = seconds_of(section.lifetime)
        spare = seconds_of(section.walltime) - lifetime if section.walltime else 0.1 * lifetime
        arguments += ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{STAGGER * spare:.0f}s"]
    return arguments


def _exports(section: Cluster) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in environment_of(section).items()]


def _gpu_directives(section: Cluster) -> list[str]:
    if not section.gpus:
        return []
    return {"slurm": ["--gres=gpu:1"], "lsf": ['-gpu "num=1"']}.get(section.kind, [])


def _plain_folder(logs: Path | None) -> str | None:
    """Folder for logs, if dask-jobqueue can write it into a script unquoted; a space would make two words of it."""
    return str(logs) if logs is not None and re.fullmatch(r"[\w@+=:,./-]+", str(logs)) else None


def _log_directives(section: Cluster, logs: Path | None) -> list[str]:
    """Directives that name any other folder to SLURM; other queues keep the logs at their own place then."""
    if logs is None or _plain_folder(logs) or section.kind != "slurm":
        return []
    stem = f"{logs}/tilesseg-".replace("%", "%%")
    return [f"--error={shlex.quote(stem + '%J.err')}", f"--output={shlex.quote(stem + '%J.out')}"]


def _resource_spec(section: Cluster) -> str | None:
    """Resources of a job of PBS with GPUs; other queues have directives for GPUs."""
    if section.kind != "pbs" or not section.gpus:
        return None
    return f"select=1:ncpus={section.cores}:mem={-(-bytes_of(section.memory or '') // 2**20)}MB:ngpus=1"


def _walltime(section: Cluster) -> str | None:
    """Wall time as the queue reads it: hours and minutes for LSF, with seconds for others."""
    if section.walltime is None:
        return None
    seconds = seconds_of(section.walltime)
    return clock(seconds + 59)[:-3] if section.kind == "lsf" else clock(seconds)


def _ssh(section: Cluster) -> dict[str, Any]:
    """Arguments for `distributed.SSHCluster`, without its hosts."""
    worker = {
        "nthreads": threads_per_worker(section),
        "memory_limit": bytes_of(section.memory) if section.memory else 0,
        "env": environment_of(section),
    }
    return {
        "worker_class": "distributed.Nanny",
        "worker_options": worker | ({"local_directory": section.spill} if section.spill else {}),
        "scheduler_options": {"port": 0, "dashboard_address": ":8787"},
        "connect_options": {},
        "remote_python": shlex.quote(sys.executable),
    }


def _kubernetes(section: Cluster) -> dict[str, Any]:
    """Arguments for `dask_kubernetes.operator.KubeCluster`. Only workers request GPUs, see `launch`."""
    amounts: dict[str, str] = {}
    if section.cores:
        amounts["cpu"] = str(section.cores)
    if section.memory:
        amounts["memory"] = str(bytes_of(section.memory))
    gpu = {"nvidia.com/gpu": "1"} if section.gpus else {}
    command = ["dask", "worker", "--nthreads", str(threads_per_worker(section))]
    return {
        "image": section.image,
        "n_workers": 0 if section.adaptive else section.workers,
        "resources": {"requests": amounts, "limits": amounts | gpu},
        "env": environment_of(section) | _scheduler_environment(section),
        "worker_command": [*command, *(["--local-directory", section.spill] if section.spill else [])],
        "quiet": True,
    }


def _scheduler_environment(section: Cluster) -> dict[str, str]:
    """Dask's settings for a scheduler in another process. The operator scales down through the scheduler's API."""
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(ALLOWED_FAILURES)}
    if section.adaptive:
        settings["DASK_DISTRIBUTED__SCHEDULER__UNKNOWN_TASK_DURATION"] = "1m"
        settings["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"] = repr(list(ROUTES))
    return settings


ROUTES = (
    "distributed.http.scheduler.prometheus",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.statics",
    "distributed.http.scheduler.api",
)
"""Dask's own routes, and the API that retires workers."""
