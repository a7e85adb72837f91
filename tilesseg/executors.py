"""Who does the work. `SerialExecutor` defines the meaning; every other executor must give what it gives.

An executor knows nothing of tiles: it maps a function over items and yields results as they come. The function
answers failures as values. An item whose worker process died has no answer, so the caller says what stands for it.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from distributed import Client, Future

GONE = "the Dask scheduler has gone away; what is done is kept: run again to go on"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function over many items."""

    @property
    def slots(self) -> int:
        """Items worked on at the same time."""

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results in the order in which they are ready; `lost` answers for an item that killed its worker."""


class SerialExecutor:
    """One after the other, in this thread."""

    slots = 1

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """As `Executor.map`; nothing is ever lost without this process."""
        return map(function, items)


class ThreadExecutor:
    """A few threads of this process; reading and writing overlap computing."""

    def __init__(self, threads: int) -> None:
        self.slots = threads

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """As `Executor.map`, with a bounded number of items in flight."""
        queue = iter(items)
        with concurrent.futures.ThreadPoolExecutor(self.slots, "tilesseg") as pool:
            running = {pool.submit(function, item) for item in islice(queue, self.slots)}
            try:
                while running:
                    ready, running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                    running |= {pool.submit(function, item) for item in islice(queue, len(ready))}
                    for future in ready:
                        yield future.result()
            finally:
                for future in running:
                    future.cancel()


class DaskExecutor:
    """The workers of a Dask cluster, fed through a bounded window: only coordinates go out.

    A window of about twice the threads keeps every worker busy and bounds what one dying worker can take with it.
    No `resources=`: it switches the scheduler's queuing off (distributed #9164).
    """

    def __init__(self, client: Client, *, workers: tuple[str, ...] | None = None) -> None:
        """Use a connected client.

        Args:
            client: connected to the scheduler.
            workers: addresses that may be used; None means all, also those that join later.
        """
        self.client, self._workers = client, workers

    @property
    def slots(self) -> int:
        threads: dict[str, int] = self.client.nthreads(workers=list(self._workers) if self._workers else None)
        return max(1, sum(threads.values()))

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """As `Executor.map`. Items whose worker died run again alone, so that the blame is certain."""
        suspects: list[Item] = []
        queue = iter(items)
        yield from self._window(function, queue, suspects)
        for item in suspects:
            blamed: list[Item] = []
            yield from self._window(function, iter([item]), blamed)
            for culprit in blamed:
                yield lost(culprit, "its worker process died, also when the tile ran alone (out of memory?)")

    def _window(
        self, function: Callable[[Item], Result], queue: Iterator[Item], suspects: list[Item]
    ) -> Iterator[Result]:
        from distributed import KilledWorker, as_completed

        items = {future.key: (item, future) for item, future in self._submit(function, islice(queue, 2 * self.slots))}
        ready = as_completed([future for _, future in items.values()], loop=self.client.loop)
        try:
            for future in ready:
                item, _ = items.pop(future.key)
                try:
                    # A worker that dies takes answers with it that nobody has fetched yet: those are computed again,
                    # and this waits for them.
                    answer = future.result()
                except KilledWorker:
                    suspects.append(item)
                except CancelledError:
                    raise JobError(GONE) from None
                else:
                    yield answer
                future.release()
                for more, started in self._submit(function, islice(queue, 1)):
                    items[started.key] = (more, started)
                    ready.add(started)
        finally:
            if self.client.status == "running":
                self.client.cancel([future for _, future in items.values()])

    def _submit(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Future[Any]]]:
        for item in items:
            if self.client.status != "running":
                raise JobError(GONE)
            yield item, self.client.submit(function, item, pure=False, workers=self._workers)
