"""The arguments of the cluster classes, made from the section `cluster`: arithmetic only, so that they can be tested.

A worker is one process with a nanny, whatever starts it: one job of a queue, one pod, one entry of `hosts`.
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
"""GDAL's default is 5 % of the machine's memory, in every process."""
ALLOWED_FAILURES, MESSAGES_KEPT = 0, 100
"""A tile that kills its worker is blamed at once and runs again alone: not four workers for one tile."""
SCHEDULER = {
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    # Each connection to a worker remembers its last messages with the tasks in them: 2 MB a worker with Dask's 1,000.
    "distributed.admin.low-level-log-length": MESSAGES_KEPT,
}
"""How the schedulers that we start are configured."""
STAGGER = 0.5
"""Of the time between lifetime and wall time: workers that came together do not leave together."""


def threads_per_worker(asked: Cluster) -> int:
    """Tiles at the same time in each worker."""
    if asked.kind == "serial":
        return 1
    return 2 if asked.threads == "auto" else asked.threads


def environment_of(asked: Cluster) -> dict[str, str]:
    """What is set in every worker: ours, then the user's, who may have tuned glibc for all processes."""
    tuned = {name: os.environ[name] for name in HUGE_PAGES if name in os.environ}
    return {**WORKER_ENVIRONMENT, **tuned, **asked.environment}


def arguments_of(asked: Cluster, *, logs: Path | None = None) -> dict[str, Any]:
    """The keyword arguments for the cluster class of a kind, `options` included.

    Args:
        asked: the section; `options` extends what is a list or a mapping, and replaces the rest.
        logs: folder for what the workers of a queue print; None for the queue's own.
    """
    if asked.kind in QUEUES:
        return _joined(_queue(asked, logs), asked.options)
    recipe = {"ssh": _ssh, "kubernetes": _kubernetes}.get(asked.kind)
    return _joined(recipe(asked) if recipe else {}, asked.options)


def _joined(derived: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Both, where a list goes on, a mapping is joined, and anything else is the user's."""
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


def _queue(asked: Cluster, logs: Path | None) -> dict[str, Any]:
    """For a class of dask-jobqueue; one process in each job."""
    assert asked.cores is not None and asked.memory is not None  # the section has seen to it
    arguments = {
        "cores": asked.cores,
        "memory": asked.memory,
        "processes": 1,
        "nanny": True,
        "python": shlex.quote(sys.executable),
        "worker_extra_args": _worker_arguments(asked),
        "job_script_prologue": [*asked.setup, *_exports(asked)],
        "job_extra_directives": [*_gpu_directives(asked), *_log_directives(asked, logs), *asked.directives],
        "job_name": "tilesseg",
        "queue": asked.queue,
        "account" if asked.kind in ("slurm", "pbs") else "project": asked.account,
        "walltime": _walltime(asked),
        "local_directory": asked.spill and shlex.quote(asked.spill),
        "log_directory": _plain_folder(logs),
        "resource_spec": _resource_spec(asked),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def _worker_arguments(asked: Cluster) -> list[str]:
    """The last `--nthreads` counts: dask-jobqueue makes a thread of every core, and the network wants the others."""
    arguments = ["--nthreads", str(threads_per_worker(asked))]
    if asked.lifetime:
        lifetime = seconds_of(asked.lifetime)
        spare = seconds_of(asked.walltime) - lifetime if asked.walltime else 0.1 * lifetime
        arguments += ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{STAGGER * spare:.0f}s"]
    return arguments


def _exports(asked: Cluster) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in environment_of(asked).items()]


def _gpu_directives(asked: Cluster) -> list[str]:
    if not asked.gpus:
        return []
    return {"slurm": ["--gres=gpu:1"], "lsf": ['-gpu "num=1"']}.get(asked.kind, [])


def _plain_folder(logs: Path | None) -> str | None:
    """A folder for logs that dask-jobqueue can write into a script as it is; with a space it would be two words."""
    return str(logs) if logs is not None and re.fullmatch(r"[\w@+=:,./-]+", str(logs)) else None


def _log_directives(asked: Cluster, logs: Path | None) -> list[str]:
    """Where any other folder is, as SLURM reads it; other queues keep the logs at their own place then."""
    if logs is None or _plain_folder(logs) or asked.kind != "slurm":
        return []
    stem = f"{logs}/tilesseg-".replace("%", "%%")
    return [f"--error={shlex.quote(stem + '%J.err')}", f"--output={shlex.quote(stem + '%J.out')}"]


def _resource_spec(asked: Cluster) -> str | None:
    """PBS books GPUs beside cores and memory; the others have directives for them."""
    if asked.kind != "pbs" or not asked.gpus:
        return None
    return f"select=1:ncpus={asked.cores}:mem={-(-bytes_of(asked.memory or '') // 2**20)}MB:ngpus=1"


def _walltime(asked: Cluster) -> str | None:
    """LSF counts hours and minutes, the others seconds too."""
    if asked.walltime is None:
        return None
    seconds = seconds_of(asked.walltime)
    return clock(seconds + 59)[:-3] if asked.kind == "lsf" else clock(seconds)


def _ssh(asked: Cluster) -> dict[str, Any]:
    """For `distributed.SSHCluster`, but for its hosts."""
    worker = {
        "nthreads": threads_per_worker(asked),
        "memory_limit": bytes_of(asked.memory) if asked.memory else 0,
        "env": environment_of(asked),
    }
    return {
        "worker_class": "distributed.Nanny",
        "worker_options": worker | ({"local_directory": asked.spill} if asked.spill else {}),
        "scheduler_options": {"port": 0, "dashboard_address": ":8787"},
        "connect_options": {},
        "remote_python": shlex.quote(sys.executable),
    }


def _kubernetes(asked: Cluster) -> dict[str, Any]:
    """For `dask_kubernetes.operator.KubeCluster`. A GPU is asked for by the workers alone: see `start`."""
    amounts: dict[str, str] = {}
    if asked.cores:
        amounts["cpu"] = str(asked.cores)
    if asked.memory:
        amounts["memory"] = str(bytes_of(asked.memory))
    gpu = {"nvidia.com/gpu": "1"} if asked.gpus else {}
    command = ["dask", "worker", "--nthreads", str(threads_per_worker(asked))]
    return {
        "image": asked.image,
        "n_workers": 0 if asked.adaptive else asked.workers,
        "resources": {"requests": amounts, "limits": amounts | gpu},
        "env": environment_of(asked) | _scheduler_environment(asked),
        "worker_command": [*command, *(["--local-directory", asked.spill] if asked.spill else [])],
        "quiet": True,
    }


def _scheduler_environment(asked: Cluster) -> dict[str, str]:
    """Dask's settings for a scheduler that is not in this process. The operator scales down through its API."""
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(ALLOWED_FAILURES)}
    if asked.adaptive:
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
"""Dask's own, and the one through which workers are retired."""
