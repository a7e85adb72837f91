"""Connection to the workers: from the section `cluster` of a job to an executor. Scheduler and client are disposable.

There is one worker process per device, with two tiles at a time, so that reading and writing overlap computing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import Executor, SerialExecutor, ThreadExecutor
from tilesseg.cluster.launch import SOON, patience_of, quiet, started, wait_for_first
from tilesseg.cluster.launch_arguments import threads_per_worker
from tilesseg.cluster.local_workers import nannies, refuse_unguarded_script, visible_gpus
from tilesseg.errors import ClusterLost, JobError
from tilesseg.models.engines.batches import choose_parallel_batches
from tilesseg.models.hardware import able, kind_of
from tilesseg.planning.cluster_options import HERE, bytes_of, seconds_of
from tilesseg.planning.machine import Machine
from tilesseg.process import available_cores

if TYPE_CHECKING:
    from distributed import Client, Worker

    from tilesseg.planning.cluster_options import Cluster


__all__ = [
    "ask_machine",
    "ask_one",
    "ask_workers",
    "check_memory",
    "cluster_name",
    "connect",
    "describe_machine",
    "is_here",
    "may_restart",
    "reach",
    "refuse_unguarded_script",
    "threads_per_worker",
    "wait_for_scheduler",
    "worker_count",
    "worker_memory",
]

T = TypeVar("T")

ANSWER_WITHIN = 10
"""Seconds within which a scheduler has to answer."""
LISTENS_EVERY = 1.0
"""Seconds between two looks for a scheduler that has gone away."""
MEMORY_PER_WORKER = 4 * 2**30
"""Bytes of the machine's memory that each worker on a CPU should have; the number of workers follows from it."""
MB = 1e6


def is_here(section: Cluster) -> bool:
    """Whether the workers run on this machine."""
    return section.kind in HERE


def describe_machine(section: Cluster) -> Machine:
    """Machine that computes, with every `auto` decided for the machine that runs this function.

    For workers on other machines, run it on a worker: see `ask_machine`. `slots` are those of the section; an executor
    knows the real number.
    """
    device = kind_of(section.device)
    workers, tiles = worker_count(section, device), threads_per_worker(section)
    here = is_here(section)
    sharing = workers if here else _workers_on_this_host()
    at_a_time = tiles if here else _threads_of_this_worker(tiles)
    engine = section.engine_threads
    if engine == "auto":
        engine = section.cores or max(1, _cores() // sharing)
    return Machine(device, engine, workers * tiles, able(device), choose_parallel_batches(engine, at_a_time))


def ask_machine(executor: DaskExecutor, section: Cluster) -> Machine:
    """Machine of a worker on another machine; `slots` are those of all workers.

    Raises:
        JobError: no worker can import tilesseg.
    """
    machine: Machine = ask_one(executor, describe_machine, section)
    return replace(machine, slots=executor.slots)


def ask_one(executor: DaskExecutor, function: Callable[..., T], *args: Any) -> T:
    """Result of `function(*args)` on one of the workers that have tilesseg.

    A task would kill a worker without tilesseg and never end, so each worker is checked first.

    Raises:
        JobError: no worker can import tilesseg.
    """
    answers = ask_workers(executor, available_cores)
    ready = [worker for worker, answer in answers.items() if isinstance(answer, int)]
    if not ready:
        worker, problem = next(iter(answers.items()), ("the last one", "it has left"))
        raise JobError(f"no worker can work: {worker} reports {problem}; install tilesseg where the workers run")
    answer: T = executor.client.submit(function, *args, pure=False, workers=ready[:1]).result()
    return answer


def _cores() -> int:
    """Number of cores that this process may use, by affinity and by the quota of a container."""
    from dask.system import CPU_COUNT

    return min(available_cores(), int(CPU_COUNT))


def _this_worker() -> Worker | None:
    """Dask worker that runs this function; None outside of workers."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _threads_of_this_worker(otherwise: int) -> int:
    """Number of tiles that this worker computes at the same time; `otherwise` outside of workers."""
    worker = _this_worker()
    return otherwise if worker is None else int(worker.state.nthreads)


def _workers_on_this_host() -> int:
    """Number of worker processes on the host of this worker, itself included."""
    from distributed.comm.addressing import get_address_host
    from distributed.utils import sync

    worker = _this_worker()
    if worker is None:
        return 1
    host = get_address_host(worker.address)
    workers = sync(worker.loop, worker.scheduler.ncores)
    return max(1, sum(get_address_host(address) == host for address in workers))


def worker_count(section: Cluster, device: str) -> int:
    """Largest number of worker processes; `auto` on this machine: one per GPU, else one for every four cores.

    On two cores one process of two engine threads is as fast as two of one (OpenVINO, patches of 2240 px: 1.97 and
    1.93 Mpx/s), and takes half the memory, which a larger patch puts to better use.
    """
    if section.kind in ("serial", "threads"):
        return 1
    if section.workers != "auto":
        return section.workers
    if section.adaptive:
        return section.adaptive.maximum
    if not is_here(section):
        return max(1, len(section.hosts))
    if device == "cuda":
        return len(visible_gpus())
    from distributed.system import MEMORY_LIMIT

    return int(max(1, min(_cores() // 4, MEMORY_LIMIT // MEMORY_PER_WORKER)))


def cluster_name(section: Cluster, device: str = "cpu") -> str:
    """Name of the cluster for reports: `slurm, 8 workers × 2 threads`."""
    threads = threads_per_worker(section)
    if section.kind == "serial":
        return "serial"
    if section.kind == "threads":
        return f"threads, {threads}"
    if section.kind == "address":
        return f"address {section.address}"
    if ":" in section.kind and section.workers == "auto" and not section.adaptive:
        return section.kind
    count = worker_count(section, device)
    number = f"{section.adaptive.minimum} to {count}" if section.adaptive else str(count)
    each = f" × {threads} threads" if section.kind != "gateway" and ":" not in section.kind else ""
    return f"{section.kind}, {number} workers{each}"


def worker_memory(section: Cluster, device: str = "cpu") -> int | None:
    """Bytes of memory of a worker process: `cluster.memory`, else its share of this machine; None where unknown."""
    if section.memory:
        return bytes_of(section.memory)
    if not is_here(section):
        return None
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT) // worker_count(section, device)


def check_memory(section: Cluster, *, needed_mb: float, device: str) -> None:
    """Refuse a job whose workers have too little memory.

    Args:
        section: section `cluster` of the job.
        needed_mb: peak memory of one worker process, in millions of bytes.
        device: device that computes.

    Raises:
        JobError: the worker has less than it needs; with both amounts.
    """
    has = worker_memory(section, device)
    if has is None or needed_mb * MB <= has:
        return
    if is_here(section):
        share = f"the memory of this machine, shared by workers: {worker_count(section, device)}"
        fewer = "fewer workers, " if worker_count(section, device) > 1 else ""
    else:
        share, fewer = f"cluster.memory {section.memory}", ""
    threads = threads_per_worker(section)
    fewer += f"fewer threads than {threads}, " if threads > 1 else ""
    raise JobError(
        f"a worker process takes about {needed_mb:,.0f} MB and has {has / MB:,.0f} MB ({share}); "
        f"take {fewer}a smaller tiling.core or more memory"
    )


@contextmanager
def connect(
    section: Cluster, device: str, *, logs: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> Iterator[Executor]:
    """Start workers, or reach running workers; started workers end with the context.

    Args:
        section: section `cluster` of the job.
        device: `cpu` or `cuda`, for workers on this machine.
        logs: folder for the output of workers in a queue; it is made.
        say: called with a message, in this thread, while the run waits for the first worker.

    Raises:
        JobError: a library is missing, the scheduler does not answer, workers cannot start, or no worker comes in time.
    """
    match section.kind:
        case "serial":
            yield SerialExecutor()
        case "threads":
            yield ThreadExecutor(threads_per_worker(section))
        case "local":
            refuse_unguarded_script()
            with nannies(section, workers=worker_count(section, device), device=device) as client:
                yield DaskExecutor(client, who="the cluster of kind local", patience=seconds_of(SOON))
        case "address":
            assert section.address is not None  # checked by the section
            patience = section.patience or SOON
            with reach(section.address, patience=patience, say=say) as client:
                _suspect_at_once(client, say)
                yield DaskExecutor(client, who=f"the cluster at {section.address}", patience=seconds_of(patience))
        case _:
            refusals: list[str] = []
            with started(section, logs=logs, refusals=refusals, say=say) as client:
                if section.kind == "gateway":  # its scheduler does not hear of our configuration
                    _suspect_at_once(client, say)
                yield DaskExecutor(
                    client,
                    who=f"the cluster of kind {section.kind}",
                    patience=seconds_of(patience_of(section)),
                    why=lambda: refusals[-1] if refusals else "",
                )


def _suspect_at_once(client: Client, say: Callable[[str], None]) -> None:
    """Have a foreign scheduler return tasks at the first death of their worker, or say why it does not."""
    from tilesseg.cluster.suspect_plugin import suspect_at_once

    problem = suspect_at_once(client)
    if problem:
        say(problem)


@contextmanager
def reach(address: str, *, patience: str = SOON, say: Callable[[str], None] = lambda text: None) -> Iterator[Client]:
    """Connect to a running scheduler that has workers, or will have workers within `patience`.

    Raises:
        JobError: the scheduler does not answer, or no worker joins it.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=ANSWER_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(f"no Dask scheduler answers at {address} ({error}); start one, or take kind: local") from None
    with quiet("distributed.client"), client:
        wait_for_first(client, who=f"the scheduler at {address}", patience=patience, say=say)
        yield client


def may_restart(section: Cluster) -> bool:
    """Whether a run may start its cluster again, or reach its scheduler again, where it is lost."""
    return is_here(section) if section.restart == "auto" else section.restart


def wait_for_scheduler(section: Cluster) -> None:
    """Wait until a scheduler that tilesseg does not start takes connections again, as long as patience lasts.

    Raises:
        ClusterLost: the scheduler has not come back.
    """
    if section.kind != "address":
        return
    assert section.address is not None  # checked by the section
    patience = seconds_of(section.patience or SOON)
    until = time.monotonic() + patience
    while not _listens(section.address):
        if time.monotonic() > until:
            raise ClusterLost(
                f"the scheduler at {section.address} has not come back for {patience:,.0f} s, and what is done is "
                "kept; start one, and run again to go on"
            )
        time.sleep(LISTENS_EVERY)


def _listens(address: str) -> bool:
    """Whether something takes connections at the address of a scheduler."""
    from distributed.comm.addressing import get_address_host_port

    try:
        socket.create_connection(get_address_host_port(address), timeout=ANSWER_WITHIN).close()
    except OSError:
        return False
    return True


def ask_workers(executor: Executor, function: Any, *args: Any) -> dict[str, Any]:
    """Result or exception of `function(*args)` on every worker, by address; or in this process, without workers."""
    if isinstance(executor, DaskExecutor):
        return dict(executor.client.run(function, *args, on_error="return"))
    return {"here": function(*args)}
