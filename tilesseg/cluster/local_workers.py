"""Worker processes on this machine, each with a nanny and its own environment: one process for each GPU.

A script that starts processes from its top level is refused: each of the processes would run the script again.
"""

from __future__ import annotations

import ast
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.cluster.forkserver import forked
from tilesseg.cluster.launch_arguments import SCHEDULER, environment_of, threads_per_worker
from tilesseg.errors import JobError, cannot

if TYPE_CHECKING:
    from types import FrameType

    from distributed import Client

    from tilesseg.planning.cluster_options import Cluster


DASHBOARD_PORT = 8787
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Code that each worker runs first: Ctrl-C reaches every process of a terminal, but the client ends the workers."""


@contextmanager
def nannies(section: Cluster, *, workers: int, device: str) -> Iterator[Client]:
    """Start workers under nannies, and a scheduler in this process; all end with the context.

    Raises:
        JobError: the processes cannot start.
    """
    import dask
    from distributed import Client, Scheduler, SpecCluster, utils

    utils._forkserver_preload_set = True  # else Dask makes a server import packages that workers do not need
    head = {"host": "127.0.0.1", "port": 0, "dashboard_address": dashboard_address("127.0.0.1")}
    scheduler = {"cls": Scheduler, "options": head}
    with forked(section) as start, dask.config.set({**SCHEDULER, **start.config}):
        spec = nanny_specs(section, workers=workers, device=device, environment=start.environment)
        try:
            with warnings.catch_warnings():  # the port may be taken meanwhile; the printed link has the real port
                warnings.filterwarnings("ignore", message="Port .* is already in use")
                cluster = SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            raise JobError(cannot("start worker processes", error, "try cluster: {kind: threads}")) from None
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def nanny_specs(
    section: Cluster, *, workers: int, device: str, environment: Mapping[str, str] | None = None
) -> dict[int, dict[str, Any]]:
    """Workers for `SpecCluster`, by number; `environment` is set in each worker, below the section's own."""
    from distributed import Nanny

    options: dict[str, Any] = {
        "nthreads": threads_per_worker(section),
        "memory_limit": 0,
        "silence_logs": logging.CRITICAL,
        "preload": [DEAF],
    }
    if section.spill:
        options["local_directory"] = section.spill
    gpus = visible_gpus() if device == "cuda" else []
    everywhere = {**(environment or {}), **environment_of(section)}
    return {
        number: {"cls": Nanny, "options": {**options, "env": everywhere | _gpu(number, gpus)}}
        for number in range(workers)
    }


def _gpu(number: int, gpus: list[str]) -> dict[str, str]:
    """Environment that gives a process its GPU; more processes than GPUs share them."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def visible_gpus() -> list[str]:
    """GPUs that this process may use, by number or UUID: a queue may have given it two of eight."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def dashboard_address(host: str) -> str:
    """Address of the dashboard of a scheduler in this process: Dask's usual port, where it is free.

    distributed would look for a free port itself, but leaves a socket open and warns.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, DASHBOARD_PORT))
        except OSError:
            return f"{host}:0"
        return f"{host}:{DASHBOARD_PORT}"


def refuse_unguarded_script() -> None:
    """Refuse to start processes from the top level of a script.

    Raises:
        JobError: a statement at the top level starts them; with its line.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        at_top = frame.f_code.co_name == "<module>" and frame.f_globals is getattr(main, "__dict__", None)
        if at_top and path and Path(path).suffix == ".py" and not _guarded(Path(path), frame.f_lineno):
            raise JobError(
                f'{path}, line {frame.f_lineno}, starts worker processes outside `if __name__ == "__main__":`, and '
                "each of them would run the script again; move the call below that line"
            )
        frame = frame.f_back


def _guarded(path: Path, line: int) -> bool:
    """Whether the top-level statement at `line` is under a test of `__name__`."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            return isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)
    return False
