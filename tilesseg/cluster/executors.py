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
from typing import Final, Literal, Protocol, TypeVar

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
    """Executor with threads of this process; reading and writing overlap computing."""

    def __init__(self, threads: int) -> None:
        self.slots = threads

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results as of `Executor.map`, with a bounded number of items in flight."""
        queue = iter(items)
        with concurrent.futures.ThreadPoolExecutor(self.slots, "tilesseg") as pool:
            running = {pool.submit(function, item) for item in pull(queue, self.slots)}
            try:
                while running:
                    ready, running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                    for future in ready:
                        yield future.result()
                    running |= {pool.submit(function, item) for item in pull(queue, self.slots - len(running))}
            finally:
                for future in running:
                    future.cancel()


def worker_address() -> str | None:
    """Address of the Dask worker that runs this function; None outside of workers."""
    from distributed import get_worker

    try:
        address: str = get_worker().address
    except ValueError:
        return None
    return address


def pull(queue: Iterator[Item | Later], number: int) -> list[Item]:
    """Next items, at most `number`, as far as they are known now."""
    items: list[Item] = []
    while len(items) < number:
        item = next(queue, LATER)
        if item is LATER:
            break
        items.append(item)
    return items
