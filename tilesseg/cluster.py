"""Who works: from the `cluster` section of a job to an executor. The scheduler and the client are disposable.

One worker process per device, two tiles at a time in each, so that reading and writing overlap computing.
"""

from __future__ import annotations

import ast
import logging
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import JobError
from tilesseg.executors import DaskExecutor, Executor, SerialExecutor, ThreadExecutor
from tilesseg.models import available_cores
from tilesseg.plan import Machine

if TYPE_CHECKING:
    from types import FrameType

    from distributed import Client

    from tilesseg import job as jobs

DASHBOARD_PORT = 8787
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Run in each worker: Ctrl-C reaches every process of a terminal, and it is the client that ends the workers."""
ANSWER_WITHIN, JOIN_WITHIN = 10, 30
"""Seconds that a scheduler has to answer, and its first worker to join."""
WORKER_ENVIRONMENT = {"GDAL_CACHEMAX": "64"}
"""GDAL's default is 5 % of the machine's memory, in every process."""

MEMORY_PER_WORKER = 4 * 2**30
"""Bytes of the machine's memory for each worker on a CPU, or there are fewer of them."""


def describe_machine(asked: jobs.Cluster) -> Machine:
    """What will compute, with every `auto` decided for this machine."""
    from tilesseg.models.torch_engine import pick_device

    device = pick_device(asked.device).type
    workers = worker_count(asked, device)
    engine = asked.engine_threads if asked.engine_threads != "auto" else max(1, available_cores() // workers)
    return Machine(device, engine, workers * threads_per_worker(asked))


def worker_count(asked: jobs.Cluster, device: str) -> int:
    """Worker processes: one per GPU; else one per core up to four, then one for every four cores.

    On two cores, two processes of one engine thread are a quarter faster than one of two: what a network does between
    its layers runs on one thread. Each of them takes some 1.2 GB with the U-Net of the benchmarks.
    """
    if asked.kind in ("serial", "threads"):
        return 1
    if asked.workers != "auto":
        return asked.workers
    if device == "cuda":
        import torch

        return torch.cuda.device_count()
    from distributed.system import MEMORY_LIMIT

    return max(1, min(max(min(available_cores(), 4), available_cores() // 4), MEMORY_LIMIT // MEMORY_PER_WORKER))


def threads_per_worker(asked: jobs.Cluster) -> int:
    """Tiles at the same time in each worker."""
    if asked.kind == "serial":
        return 1
    return 2 if asked.threads == "auto" else asked.threads


@contextmanager
def connect(asked: jobs.Cluster, device: str) -> Iterator[Executor]:
    """Start or reach the workers; they end with the context.

    Raises:
        JobError: the scheduler does not answer, or worker processes cannot start.
    """
    match asked.kind:
        case "serial":
            yield SerialExecutor()
        case "threads":
            yield ThreadExecutor(threads_per_worker(asked))
        case "address":
            assert asked.address is not None  # the job has seen to it
            with reach(asked.address) as client:
                yield DaskExecutor(client)
        case "local":
            with _local(worker_count(asked, device), threads_per_worker(asked), device) as client:
                yield DaskExecutor(client)


@contextmanager
def reach(address: str) -> Iterator[Client]:
    """Connect to a running scheduler that has workers.

    Raises:
        JobError: it does not answer, or no worker joins it.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=ANSWER_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(f"no Dask scheduler answers at {address} ({error}); start one, or take kind: local") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=JOIN_WITHIN)
        except TimeoutError:
            raise JobError(f"the scheduler at {address} has 0 workers after {JOIN_WITHIN} s; start workers") from None
        yield client


@contextmanager
def _local(workers: int, threads: int, device: str) -> Iterator[Client]:
    """Nannies on this machine, each with its own environment."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    refuse_unguarded_script()
    options = {"nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL, "preload": [DEAF]}
    spec = {n: {"cls": Nanny, "options": {**options, "env": _environment(n, device)}} for n in range(workers)}
    dashboard = f"127.0.0.1:{DASHBOARD_PORT if _is_free(DASHBOARD_PORT) else 0}"
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": dashboard},
    }
    # A tile that kills its worker is blamed at once and runs again alone: not four workers for one tile.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        try:
            with warnings.catch_warnings():  # the port may be taken meanwhile; the link that is printed is the true one
                warnings.filterwarnings("ignore", message="Port .* is already in use")
                cluster = SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)
        except RuntimeError as error:
            raise JobError(f"worker processes cannot start ({error}); try cluster: {{kind: threads}}") from None
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


def _environment(worker: int, device: str) -> dict[str, str]:
    """One GPU each. Not run on a machine with GPUs."""
    return {**WORKER_ENVIRONMENT, **({"CUDA_VISIBLE_DEVICES": str(worker)} if device == "cuda" else {})}


def _is_free(port: int) -> bool:
    """Whether a port of this machine can be had; distributed finds out itself, but leaves a socket open then."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def refuse_unguarded_script() -> None:
    """Refuse to start processes from the top level of a script: each of them would run the script again.

    Raises:
        JobError: with the line to guard.
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


def ask_workers(executor: Executor, function: Any, *args: Any) -> dict[str, Any]:
    """What `function(*args)` answers, or raises, on every worker, by address; here, where there are no workers."""
    if isinstance(executor, DaskExecutor):
        return dict(executor.client.run(function, *args, on_error="return"))
    return {"here": function(*args)}
