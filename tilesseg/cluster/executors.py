"""Executors: a function is mapped over items in this process or in threads; on Dask workers by `dask_executor`.

`SerialExecutor` defines the meaning; every other executor must yield the same results. An executor knows nothing of
tiles: it yields results as they come. The function returns failures as values. An item whose worker process died has no
result, so the caller names a substitute.

Items may depend on results: an iterator whose next item depends on a running item yields `LATER`, and is continued
after the next result. So the tiles of a scene follow its planning, and no worker waits.
"""

from __future__ import annotations

import concurrent.futures
import enum
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import Final, Generic, Literal, Protocol, TypeVar

from tilesseg.atomic_write import fenced
from tilesseg.errors import Superseded
from tilesseg.process import DaemonThreads

LOOK_EVERY = 1.0
"""Seconds between two looks for items that are overdue."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Later(enum.Enum):
    LATER = "later"


LATER: Final = _Later.LATER
"""Substitute for an item: no item now, continue after the next result."""
Later = Literal[_Later.LATER]


class UnfitWorker(Exception):
    """Raised by a function in a worker process that cannot work at all: another worker has to do the item."""

    def __init__(self, reason: str, worker: str | None = None) -> None:
        super().__init__(reason, worker)
        self.reason, self.worker = reason, worker


class Executor(Protocol):
    """Mapping of a function over many items."""

    @property
    def slots(self) -> int:
        """Number of items that are computed at the same time."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results in the order in which they are ready; `lost` gives the result of an item that killed its worker."""


class SerialExecutor:
    """Executor that computes one item after the other, in this thread."""

    slots = 1

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results as of `Executor.map`; no item is ever lost."""
        for item in items:
            assert item is not LATER, "no item is running that the next one could depend on"
            yield function(item)


class ThreadExecutor:
    """Executor with threads of this process; reading and writing overlap computing.

    A thread cannot be stopped: one that hangs is abandoned, another thread takes its place, and what it would still
    publish is fenced off.
    """

    def __init__(self, threads: int) -> None:
        self.slots = threads
        self.overdue: Callable[[int], str] = lambda thread: ""
        """Function that gives the reason why the item of a thread, given by its identifier, is to be given up, or an
        empty text."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results as of `Executor.map`, with a bounded number of items in flight."""
        queue, pool = iter(items), DaemonThreads("tilesseg")
        running: dict[concurrent.futures.Future[Result], _Attempt[Item, Result]] = {}
        try:
            while True:
                for item in pull(queue, self.slots - len(running)):
                    attempt = _Attempt(function, item)
                    running[pool.submit(attempt)] = attempt
                if not running:
                    return
                ready, _ = concurrent.futures.wait(running, LOOK_EVERY, return_when="FIRST_COMPLETED")
                for future in ready:
                    del running[future]
                    yield future.result()
                for future, attempt in list(running.items()):
                    reason = self.overdue(attempt.thread)
                    if reason:
                        attempt.abandoned = True
                        del running[future]
                        yield lost(attempt.item, reason)
        finally:
            concurrent.futures.wait(running)
            pool.end()


class _Attempt(Generic[Item, Result]):
    """Attempt at an item in a thread, which publishes nothing more once it is abandoned."""

    def __init__(self, function: Callable[[Item], Result], item: Item) -> None:
        self.function, self.item = function, item
        self.thread = 0
        """Identifier of the thread; 0 before the attempt has begun."""
        self.abandoned = False

    def __call__(self) -> Result:
        self.thread = get_ident()
        with fenced(self._check):
            return self.function(self.item)

    def _check(self) -> None:
        if self.abandoned:
            raise Superseded(f"{self.item} was given up while this thread worked on it; it writes no more")


def worker_address(*, with_nanny: bool = False) -> str | None:
    """Address of the Dask worker that runs this function; None outside of workers.

    Args:
        with_nanny: whether None is returned, too, where no nanny would start the worker again.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return None
    return None if with_nanny and not worker.nanny else str(worker.address)


def pull(queue: Iterator[Item | Later], number: int) -> list[Item]:
    """Next items, at most `number`, as far as they are known now."""
    items: list[Item] = []
    while len(items) < number:
        item = next(queue, LATER)
        if item is LATER:
            break
        items.append(item)
    return items
