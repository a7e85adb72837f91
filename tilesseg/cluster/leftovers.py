"""Leftovers of a run's earlier executions on the workers of a scheduler: tasks that still hold threads.

Dask takes back what has not begun when a client leaves, and cannot stop a thread. No tile waits for such a thread: it
has some seconds to end, then its worker is restarted by the nanny. A worker without a nanny, or with tasks of others,
is left out. A worker that does not answer, because a task holds the interpreter, is left out too: nobody knows whose
task that is.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client, Worker

    from tilesseg.cluster.dask_executor import DaskExecutor

ENDS_WITHIN = 10.0
"""Seconds in which a worker has to answer, and in which a task of an earlier execution may end by itself."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the workers that are held."""
RESTARTS_WITHIN = 60.0
"""Seconds in which a nanny has to start a worker again."""


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of a worker that are computing, and what they compute."""

    total: int
    older: tuple[str, ...] = ()
    """Names of the tasks of earlier executions, one for each thread that they hold."""
    others: int = 0
    """Number of threads that compute anything else."""

    @property
    def held(self) -> bool:
        """Whether no thread is free for a tile, and earlier executions are the reason."""
        return bool(self.older) and len(self.older) + self.others >= self.total


def threads_of(run: str, current: str, dask_worker: Worker | None = None) -> Threads:
    """Threads of the Dask worker that runs this function.

    Args:
        run: name of the run in the names of tasks, by which those of its earlier executions are known.
        current: name of the present execution, whose tasks hold threads rightly.
        dask_worker: the worker; Dask fills it in.
    """
    assert dask_worker is not None
    computing = list(dask_worker.active_threads.values())
    older = tuple(_said(key) for key in computing if _is_older(key, run, current))
    return Threads(dask_worker.state.nthreads, older, len(computing) - len(older))


def free_workers(executor: DaskExecutor, run: str, current: str, *, patience: float = ENDS_WITHIN) -> None:
    """Cancel the tasks of a run's earlier executions, and free the threads that they hold.

    Args:
        executor: executor of the present execution; it says which workers were restarted, and leaves out those that
            stay held.
        run: name of the run in the names of tasks.
        current: name of the present execution in the names of tasks.
        patience: seconds in which a worker has to answer, and a task may end by itself.

    Raises:
        ClusterLost: the scheduler does not answer.
        JobError: no worker is left.
    """
    client = executor.client
    with executor.reaching():
        _cancel(client, run, current)
        until, waited = time.monotonic() + patience, list(client.nthreads())
    while True:
        answers = _ask(client, waited, run, current, patience)
        held = {address: threads for address, threads in answers.items() if threads is None or threads.held}
        if not held or time.monotonic() > until:
            break
        waited = list(held)
        time.sleep(LOOK_EVERY)
    for address, threads in held.items():
        if threads is None:
            executor.leave_out(address, f"it has not answered for {patience:g} s (a task holds the interpreter?)")
            continue
        problem = "tasks of others run there, too" if threads.others else _restart(client, address)
        what = f"a task of an earlier execution holds its thread: {threads.older[0]}"
        if problem:
            executor.leave_out(address, f"{what}; {problem}")
        else:
            executor.say(f"worker {address} was restarted: {what}")


def _cancel(client: Client, run: str, current: str) -> None:
    """Cancel the tasks of earlier executions that workers have; others find at their beginning that they are late."""
    from distributed import Future

    older = {key for keys in client.processing().values() for key in keys if _is_older(key, run, current)}
    client.cancel([Future(key, client) for key in older], force=True)


def _ask(client: Client, addresses: list[str], run: str, current: str, seconds: float) -> dict[str, Threads | None]:
    """Threads of workers, by address; None of one that does not answer. Those that have left are left out."""

    async def ask(address: str) -> Threads | None:
        question = client.run(threads_of, run, current, workers=[address], on_error="return")
        try:
            answer = (await asyncio.wait_for(question, seconds)).get(address)
        except (TimeoutError, OSError):
            return None
        # ^ an error: of a worker that has left, or has another version, which its proof finds
        return answer if isinstance(answer, Threads) else Threads(0)

    async def ask_all() -> list[Threads | None]:
        return await asyncio.gather(*map(ask, addresses))

    answers: list[Threads | None] = client.sync(ask_all)
    return dict(zip(addresses, answers, strict=True))


def _restart(client: Client, address: str) -> str:
    """Have the nanny start a worker again; returns the reason for which it cannot, or an empty text."""
    try:
        state: str = client.restart_workers([address], timeout=RESTARTS_WITHIN, raise_for_error=False)[address]
    except (ValueError, KeyError, OSError) as error:
        return "it has no nanny that could restart it" if isinstance(error, ValueError) else f"it has left ({error})"
    return "" if state == "OK" else f"its nanny could not restart it ({state})"


def _is_older(key: Any, run: str, current: str) -> bool:
    """Whether a task is of an earlier execution; its key begins with `segment-` or so, the run and the execution."""
    name = str(key[0]) if isinstance(key, tuple) and key else str(key)
    return f"-{run}-" in name and current not in name


def _said(key: Any) -> str:
    """Name of a task in a sentence: `segment scene r001-c002`."""
    kind, *parts = key
    return " ".join([str(kind).split("-")[0], *map(str, parts[:-1])])
