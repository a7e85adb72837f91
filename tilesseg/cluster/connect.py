"""Who works: from the `cluster` section of a job to an executor. The scheduler and the client are disposable.

One worker process per device, two tiles at a time in each, so that reading and writing overlap computing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tilesseg.cluster.executors import DaskExecutor, Executor, SerialExecutor, ThreadExecutor
from tilesseg.cluster.launch import SOON, started, wait_for_first
from tilesseg.cluster.launch_arguments import threads_per_worker
from tilesseg.cluster.local_workers import nannies, visible_gpus
from tilesseg.cluster.script_guard import refuse_unguarded_script
from tilesseg.errors import JobError
from tilesseg.models.engines.parallel_batches import choose_parallel_batches
from tilesseg.models.hardware import able, kind_of
from tilesseg.planning.cluster_options import HERE, bytes_of
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
    "reach",
    "refuse_unguarded_script",
    "threads_per_worker",
    "worker_count",
    "worker_memory",
]

T = TypeVar("T")

ANSWER_WITHIN = 10
"""Seconds that a scheduler has to answer."""
MEMORY_PER_WORKER = 4 * 2**30
"""Bytes of the machine's memory for each worker on a CPU, or there are fewer of them."""
MB = 1e6


def is_here(asked: Cluster) -> bool:
    """Whether this machine is the one that computes."""
    return asked.kind in HERE


def describe_machine(asked: Cluster) -> Machine:
    """What will compute, with every `auto` decided for the machine this runs on: ask a worker where they are elsewhere.

    `slots` is what the section says; who has an executor knows better.
    """
    device = kind_of(asked.device)
    workers, tiles = worker_count(asked, device), threads_per_worker(asked)
    here = is_here(asked)
    sharing = workers if here else _workers_on_this_host()
    at_a_time = tiles if here else _threads_of_this_worker(tiles)
    engine = asked.engine_threads
    if engine == "auto":
        engine = asked.cores or max(1, _cores() // sharing)
    return Machine(device, engine, workers * tiles, able(device), choose_parallel_batches(engine, at_a_time))


def ask_machine(executor: DaskExecutor, asked: Cluster) -> Machine:
    """What a worker elsewhere says of its machine; `slots` are those of all workers.

    Raises:
        JobError: tilesseg can be imported on no worker.
    """
    machine: Machine = ask_one(executor, describe_machine, asked)
    return replace(machine, slots=executor.slots)


def ask_one(executor: DaskExecutor, function: Callable[..., T], *args: Any) -> T:
    """What `function(*args)` answers on one of the workers that have tilesseg.

    A task for a worker without it would kill the worker and be waited for without end, so each is asked first.

    Raises:
        JobError: tilesseg can be imported on no worker.
    """
    answers = ask_workers(executor, available_cores)
    ready = [worker for worker, answer in answers.items() if isinstance(answer, int)]
    if not ready:
        worker, why = next(iter(answers.items()), ("at all", "it has left"))
        raise JobError(f"no worker can work: {worker} says {why}; install tilesseg where the workers run")
    answer: T = executor.client.submit(function, *args, pure=False, workers=ready[:1]).result()
    return answer


def _cores() -> int:
    """Cores this process may use, by affinity and by the quota of a container."""
    from dask.system import CPU_COUNT

    return min(available_cores(), int(CPU_COUNT))


def _this_worker() -> Worker | None:
    """The worker that this runs on, or None."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _threads_of_this_worker(otherwise: int) -> int:
    """Tiles that the worker on which this runs works on at the same time; `otherwise` where this is no worker."""
    worker = _this_worker()
    return otherwise if worker is None else int(worker.state.nthreads)


def _workers_on_this_host() -> int:
    """Worker processes that share this host with the one this runs on."""
    from distributed.comm.addressing import get_address_host
    from distributed.utils import sync

    worker = _this_worker()
    if worker is None:
        return 1
    host = get_address_host(worker.address)
    workers = sync(worker.loop, worker.scheduler.ncores)
    return max(1, sum(get_address_host(address) == host for address in workers))


def worker_count(asked: Cluster, device: str) -> int:
    """Worker processes asked for, at most. Here: one per GPU; else one for every four cores, one at least.

    On two cores one process of two engine threads is as fast as two of one (OpenVINO, patches of 2240 px: 1.97 and
    1.93 Mpx/s), and takes half the memory, which a larger patch puts to better use.
    """
    if asked.kind in ("serial", "threads"):
        return 1
    if asked.workers != "auto":
        return asked.workers
    if asked.adaptive:
        return asked.adaptive.maximum
    if not is_here(asked):
        return max(1, len(asked.hosts))
    if device == "cuda":
        return len(visible_gpus())
    from distributed.system import MEMORY_LIMIT

    return int(max(1, min(_cores() // 4, MEMORY_LIMIT // MEMORY_PER_WORKER)))


def cluster_name(asked: Cluster, device: str = "cpu") -> str:
    """For reports: `slurm, 8 workers × 2 threads`."""
    threads = threads_per_worker(asked)
    if asked.kind == "serial":
        return "serial"
    if asked.kind == "threads":
        return f"threads, {threads}"
    if asked.kind == "address":
        return f"address {asked.address}"
    if ":" in asked.kind and asked.workers == "auto" and not asked.adaptive:
        return asked.kind
    count = worker_count(asked, device)
    number = f"{asked.adaptive.minimum} to {count}" if asked.adaptive else str(count)
    each = f" × {threads} threads" if asked.kind != "gateway" and ":" not in asked.kind else ""
    return f"{asked.kind}, {number} workers{each}"


def worker_memory(asked: Cluster, device: str = "cpu") -> int | None:
    """Bytes that a worker process has: what the section says, or its share of this machine; None where nobody knows."""
    if asked.memory:
        return bytes_of(asked.memory)
    if not is_here(asked):
        return None
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT) // worker_count(asked, device)


def check_memory(asked: Cluster, *, needed_mb: float, device: str) -> None:
    """Refuse a job whose workers have too little memory.

    Args:
        asked: who works.
        needed_mb: what one worker process takes at its peak, in millions of bytes.
        device: that computes.

    Raises:
        JobError: with both amounts and what to do.
    """
    has = worker_memory(asked, device)
    if has is None or needed_mb * MB <= has:
        return
    if is_here(asked):
        share = f"the memory of this machine, shared by workers: {worker_count(asked, device)}"
        fewer = "fewer workers, " if worker_count(asked, device) > 1 else ""
    else:
        share, fewer = f"cluster.memory {asked.memory}", ""
    threads = threads_per_worker(asked)
    fewer += f"fewer threads than {threads}, " if threads > 1 else ""
    raise JobError(
        f"a worker process takes about {needed_mb:,.0f} MB and has {has / MB:,.0f} MB ({share}); "
        f"take {fewer}a smaller tiling.core or more memory"
    )


@contextmanager
def connect(
    asked: Cluster, device: str, *, logs: Path | None = None, say: Callable[[str], None] = lambda text: None
) -> Iterator[Executor]:
    """Start or reach the workers; those that were started end with the context.

    Args:
        asked: who works.
        device: `cpu` or `cuda`, for workers on this machine.
        logs: folder for what workers of a queue print; it is made.
        say: told, in this thread, that one waits for the first worker.

    Raises:
        JobError: a library is missing, the scheduler does not answer, workers cannot start, or none comes in time.
    """
    match asked.kind:
        case "serial":
            yield SerialExecutor()
        case "threads":
            yield ThreadExecutor(threads_per_worker(asked))
        case "local":
            refuse_unguarded_script()
            with nannies(asked, workers=worker_count(asked, device), device=device) as client:
                yield DaskExecutor(client)
        case "address":
            assert asked.address is not None  # the section has seen to it
            with reach(asked.address, patience=asked.patience or SOON, say=say) as client:
                yield DaskExecutor(client)
        case _:
            with started(asked, logs=logs, say=say) as client:
                yield DaskExecutor(client)


@contextmanager
def reach(address: str, *, patience: str = SOON, say: Callable[[str], None] = lambda text: None) -> Iterator[Client]:
    """Connect to a running scheduler that has workers, or will have them within `patience`.

    Raises:
        JobError: it does not answer, or no worker joins it.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=ANSWER_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(f"no Dask scheduler answers at {address} ({error}); start one, or take kind: local") from None
    with client:
        wait_for_first(client, who=f"the scheduler at {address}", patience=patience, say=say)
        yield client


def ask_workers(executor: Executor, function: Any, *args: Any) -> dict[str, Any]:
    """What `function(*args)` answers, or raises, on every worker, by address; here, where there are no workers."""
    if isinstance(executor, DaskExecutor):
        return dict(executor.client.run(function, *args, on_error="return"))
    return {"here": function(*args)}
