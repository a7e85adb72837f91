"""Executors: a function is mapped over items in this process, in threads or on Dask workers.

`SerialExecutor` defines the meaning; every other executor must yield the same results. An executor knows nothing of
tiles: it yields results as they come. The function returns failures as values. An item whose worker process died has no
result, so the caller names a substitute.

Items may depend on results: an iterator whose next item depends on a running item yields `LATER`, and is continued
after the next result. So the tiles of a scene follow its planning, and no worker waits.
"""

from __future__ import annotations

import concurrent.futures
import enum
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from tilesseg.errors import JobError

if TYPE_CHECKING:
    from distributed import Client, Future


GONE = "the Dask scheduler has gone away, and what is done is kept; run again to go on"
DIED = "its worker process died, also when the tile ran alone (out of memory, or its device failed?)"
LOOK_EVERY = 5.0
"""Seconds between two counts of the workers."""
PAUSE = 1.0
"""Seconds until an item is submitted again where no worker is able to work."""

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
            running = {pool.submit(function, item) for item in _pull(queue, self.slots)}
            try:
                while running:
                    ready, running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                    for future in ready:
                        yield future.result()
                    running |= {pool.submit(function, item) for item in _pull(queue, self.slots - len(running))}
            finally:
                for future in running:
                    future.cancel()


class DaskExecutor:
    """Executor with the workers of a Dask cluster, fed through a bounded window; only coordinates are sent.

    A window of about twice the threads keeps every worker busy and bounds the loss when a worker dies; its size follows
    the workers as they come and go. No `resources=`: it switches the scheduler's queuing off (distributed #9164).
    """

    def __init__(self, client: Client, *, left_out: Callable[[str, str], None] = lambda worker, reason: None) -> None:
        """Use a connected client.

        Args:
            client: client that is connected to the scheduler.
            left_out: called with the address of a worker that joined during the run and cannot work, and the reason.
        """
        self.client, self.left_out = client, left_out
        self._unfit: dict[str, str] = {}
        self._slots, self._looked = 1, float("-inf")

    def leave_out(self, worker: str, reason: str) -> None:
        """Submit nothing more to a worker.

        Raises:
            JobError: no other worker is left.
        """
        self._unfit[worker], self._looked = reason, float("-inf")
        if not self._able():
            raise JobError(reason)

    @property
    def slots(self) -> int:
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._slots, self._looked = max(1, sum(self._able().values())), time.monotonic()
        return self._slots

    def _able(self) -> dict[str, int]:
        """Number of threads of each worker that is able to work, by address.

        Raises:
            JobError: the scheduler does not answer.
        """
        try:
            threads: dict[str, int] = self.client.nthreads()
        except (OSError, AttributeError):  # AttributeError: the client has closed its connection meanwhile
            raise JobError(GONE) from None
        return {worker: number for worker, number in threads.items() if worker not in self._unfit}

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results as of `Executor.map`. Items whose worker died run again alone, to identify the item at fault."""
        queue, suspects = iter(items), list[Item]()
        while True:
            answers = 0
            for answer in self._window(function, queue, suspects):
                answers += 1
                yield answer
            if not suspects and not answers:
                return
            for item in suspects:
                blamed: list[Item] = []
                yield from self._window(function, iter([item]), blamed)
                for culprit in blamed:
                    yield lost(culprit, DIED)
            suspects.clear()

    def _window(
        self, function: Callable[[Item], Result], queue: Iterator[Item | Later], suspects: list[Item]
    ) -> Iterator[Result]:
        from distributed import KilledWorker, as_completed

        under_way: dict[Any, tuple[Item, Future[Any]]] = {}
        ready = as_completed(loop=self.client.loop)
        again = _pull(queue, 2 * self.slots)
        try:
            while again or under_way:
                for item, future in zip(again, self._submit(function, again), strict=True):
                    under_way[future.key] = item, future
                    ready.add(future)
                again = []
                batch = ready.next_batch()
                fetched = self._fetch(batch)
                for future in batch:
                    item, _ = under_way.pop(future.key)
                    try:
                        answer = fetched[future.key] if future.key in fetched else future.result()
                    except KilledWorker:
                        suspects.append(item)
                    except UnfitWorker as error:
                        self._report(error)
                        again.append(item)
                    except CancelledError:
                        raise JobError(GONE) from None
                    else:
                        yield answer
                    future.release()
                again += _pull(queue, 2 * self.slots - len(under_way) - len(again))
        finally:
            if self.client.status == "running":
                self.client.cancel([future for _, future in under_way.values()])

    def _fetch(self, futures: list[Future[Any]]) -> dict[Any, Any]:
        """Results of the finished tasks, fetched in one message; a message for each would dominate the driver's time.

        Results that a dying worker had not yet delivered are computed again by Dask, and awaited here. A task without a
        result raises its own error.
        """
        fine = {future.key: future for future in futures if future.status == "finished"}
        answers = self.client.gather(fine, errors="skip") if fine else {}
        return {key: answer for key, answer in answers.items() if fine[key].status not in ("error", "cancelled")}

    def _report(self, error: UnfitWorker) -> None:
        if error.worker is not None and error.worker not in self._unfit:
            self.leave_out(error.worker, error.reason)
            self.left_out(error.worker, error.reason)
        elif not self._able():
            time.sleep(PAUSE)

    def _submit(self, function: Callable[[Item], Result], items: list[Item]) -> list[Future[Any]]:
        """Futures of items, submitted in one message."""
        if not items:
            return []
        if self.client.status != "running":
            raise JobError(GONE)
        workers = list(self._able()) or None if self._unfit else None
        keys = [_key(function, item) for item in items]
        others = workers is not None  # or nothing could run once the present workers have left
        futures: list[Future[Any]] = self.client.map(
            function, items, key=keys, pure=False, workers=workers, allow_other_workers=others
        )
        return futures


def worker_address() -> str | None:
    """Address of the Dask worker that runs this function; None outside of workers."""
    from distributed import get_worker

    try:
        address: str = get_worker().address
    except ValueError:
        return None
    return address


def _pull(queue: Iterator[Item | Later], number: int) -> list[Item]:
    """Next items, at most `number`, as far as they are known now."""
    items: list[Item] = []
    while len(items) < number:
        item = next(queue, LATER)
        if item is LATER:
            break
        items.append(item)
    return items


_tries = iter(range(1 << 62))


def _key(function: Any, item: Any) -> tuple[Any, ...]:
    """Key of a task: a name for the dashboard, and never the same twice, since a retry is another task."""
    name = getattr(function, "key", None)
    return (*(name(item) if name else (type(function).__name__,)), next(_tries))
