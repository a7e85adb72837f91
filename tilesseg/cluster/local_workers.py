"""Worker processes on this machine, each with a nanny and an environment of its own: one process for each GPU."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tilesseg.cluster.forkserver import forked
from tilesseg.cluster.launch_arguments import SCHEDULER, environment_of, threads_per_worker
from tilesseg.errors import JobError

if TYPE_CHECKING:
    from distributed import Client

    from tilesseg.planning.cluster_options import Cluster


DASHBOARD_PORT = 8787
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Run in each worker: Ctrl-C reaches every process of a terminal, and it is the client that ends the workers."""


@contextmanager
def nannies(asked: Cluster, *, workers: int, device: str) -> Iterator[Client]:
    """Start workers under nannies, and a scheduler in this process; they end with the context.

    Raises:
        JobError: the processes cannot start.
    """
    import dask
    from distributed import Client, Scheduler, SpecCluster, utils

    utils._forkserver_preload_set = True  # else Dask has a server import packages that workers do not need, and does so
    head = {"host": "127.0.0.1", "port": 0, "dashboard_address": dashboard_address("127.0.0.1")}
    scheduler = {"cls": Scheduler, "options": head}
    with forked(asked) as start, dask.config.set({**SCHEDULER, **start.config}):
        spec = nanny_specs(asked, workers=workers, device=device, environment=start.environment)
        try:
            with warnings.catch_warnings():  # the port may be taken meanwhile; the link that is printed is the true one
                warnings.filterwarnings("ignore", message="Port .* is already in use")
                cluster = SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            raise JobError(f"worker processes cannot start ({error}); try cluster: {{kind: threads}}") from None
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def nanny_specs(
    asked: Cluster, *, workers: int, device: str, environment: Mapping[str, str] | None = None
) -> dict[int, dict[str, Any]]:
    """What `SpecCluster` starts, by number; `environment` is set in each worker, below what the section says."""
    from distributed import Nanny

    options: dict[str, Any] = {
        "nthreads": threads_per_worker(asked),
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "preload": [DEAF],
    }
    if asked.spill:
        options["local_directory"] = asked.spill
    gpus = visible_gpus() if device == "cuda" else []
    everywhere = {**(environment or {}), **environment_of(asked)}
    return {
        number: {"cls": Nanny, "options": {**options, "env": everywhere | _gpu(number, gpus)}}
        for number in range(workers)
    }


def _gpu(number: int, gpus: list[str]) -> dict[str, str]:
    """One GPU for each process; where there are more processes, they share."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA names them: a queue may have given it two of eight, by number or UUID."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def dashboard_address(host: str) -> str:
    """Where the dashboard of a scheduler in this process is: at Dask's usual port, where that is free.

    distributed finds out itself, but leaves a socket open and warns.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, DASHBOARD_PORT))
        except OSError:
            return f"{host}:0"
        return f"{host}:{DASHBOARD_PORT}"
