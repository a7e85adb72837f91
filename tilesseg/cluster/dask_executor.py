"""Executor with the workers of a Dask cluster. It ends by itself, whatever the workers and the scheduler do.

A worker process that dies takes all its items with it, and Dask cannot say which of them is at fault: they are
suspects. Suspects run again when nothing else can be submitted, one on each worker and nothing beside it, so that the
next death names the item at fault.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tilesseg.cluster.executors import Later, UnfitWorker, pull
from tilesseg.errors import ClusterLost, JobError, joined_lines

if TYPE_CHECKING:
    from distributed import Client, Future


DIED = "its worker process died, also when the tile ran alone (out of memory, or its device failed?)"
LOOK_EVERY = 5.0
"""Seconds between two counts of the workers."""
ANSWERS_WITHIN = 120.0
"""Seconds within which the scheduler has to answer a question, however busy its machine is."""
TELL_EVERY = 60.0
"""Seconds between two messages that no worker is there."""
PAUSE = 1.0
"""Seconds until an item is submitted again where no worker is able to work."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class DaskExecutor:
    """Executor with the workers of a Dask cluster, fed through a bounded window; only coordinates are sent.

    A window of about twice the threads keeps every worker busy and bounds the loss when a worker dies; its size follows
    the workers as they come and go. No `resources=`: it switches the scheduler's queuing off (distributed #9164).
    """

    def __init__(
        self,
        client: Client,
        *,
        who: str = "the cluster",
        patience: float = TELL_EVERY,
        why: Callable[[], str] = lambda: "",
    ) -> None:
        """Use a connected client.

        Args:
            client: client that is connected to the scheduler.
            who: name of the cluster, for messages.
            patience: seconds to wait while no worker is there.
            why: gives the reason, as the queue states it, why no worker comes; or an empty text.
        """
        self.client, self.who, self.patience, self.why = client, who, patience, why
        self.say: Callable[[str], None] = lambda text: None
        """Function that is called with a message on the workers: one is left out, or none is there."""
        self.explain: Callable[[str], str] = lambda worker: ""
        """Function that gives the reason of a worker's death from its address, where it left one, or an empty text."""
        self._unfit: dict[str, str] = {}
        self._slots, self._looked = 1, float("-inf")
        self._empty_since, self._told = 0.0, 0.0

    def leave_out(self, worker: str, reason: str) -> None:
        """Submit nothing more to a worker, and say so.

        Raises:
            JobError: no other worker is left.
        """
        self._unfit[worker], self._looked = reason, float("-inf")
        if not self._able():
            raise JobError(reason)
        self.say(f"worker {worker} is left out: {reason}")

    @property
    def slots(self) -> int:
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._slots, self._looked = max(1, sum(self._able().values())), time.monotonic()
        return self._slots

    def _able(self) -> dict[str, int]:
        """Number of threads of each worker that is able to work, by address.

        Raises:
            ClusterLost: the scheduler does not answer.
        """
        with self.reaching():
            threads: dict[str, int] = self.client.nthreads(callback_timeout=ANSWERS_WITHIN)
        return {worker: number for worker, number in threads.items() if worker not in self._unfit}

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item | Later], *, lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results as of `Executor.map`. Items whose worker died run again alone, to identify the item at fault.

        Raises:
            ClusterLost: the scheduler has gone away, or no worker has been there for as long as patience lasts.
            JobError: no worker is able to work, or somebody else cancelled the tasks.
        """
        queue, suspects = iter(items), deque[Item]()
        while True:
            answers = 0
            for answer in self._together(function, queue, suspects):
                answers += 1
                yield answer
            if not suspects and not answers:
                return
            yield from self._alone(function, suspects, lost)

    def _together(
        self, function: Callable[[Item], Result], queue: Iterator[Item | Later], suspects: deque[Item]
    ) -> Iterator[Result]:
        """Results of all items that can be submitted; those whose worker died become suspects."""
        from distributed import KilledWorker

        tasks: _Tasks[Item] = _Tasks(self)
        again = pull(queue, 2 * self.slots)
        try:
            while again or tasks.items:
                workers = list(self._able()) or None if self._unfit else None
                tasks.submit(function, again, workers=workers, strictly=False)
                again = []
                for item, answer, error in tasks.ended():
                    if isinstance(error, KilledWorker):
                        suspects.append(item)
                    elif isinstance(error, UnfitWorker):
                        self._report(error)
                        again.append(item)
                    elif error is not None:
                        raise error
                    else:
                        yield answer
                again += pull(queue, 2 * self.slots - len(tasks.items) - len(again))
        finally:
            tasks.cancel()

    def _alone(
        self, function: Callable[[Item], Result], suspects: deque[Item], lost: Callable[[Item, str], Result]
    ) -> Iterator[Result]:
        """Results of suspects, each of which runs on a worker that does nothing else.

        Where a worker has left and its scheduler blames nobody, the item runs once more before it is blamed: machines
        are taken back by their owners, too.
        """
        from distributed import KilledWorker

        tasks: _Tasks[Item] = _Tasks(self)
        deserted: list[Item] = []
        try:
            while suspects or tasks.items:
                free = self._able().keys() - set(tasks.workers.values())
                for worker, _ in zip(free, tuple(suspects), strict=False):
                    tasks.submit(function, [suspects.popleft()], workers=[worker], strictly=True)
                for item, answer, error in tasks.ended():
                    if isinstance(error, KilledWorker):
                        yield lost(item, self.explain(error.last_worker.address) or DIED)
                    elif isinstance(error, UnfitWorker):
                        self._report(error)
                        suspects.append(item)
                    elif error is not None:
                        raise error
                    else:
                        yield answer
                for item in tasks.deserted(self._able()) if tasks.silent else ():
                    if item in deserted:
                        yield lost(item, DIED)
                    else:
                        suspects.append(item)
                        deserted.append(item)
        finally:
            tasks.cancel()

    def _report(self, error: UnfitWorker) -> None:
        if error.worker is not None and error.worker not in self._unfit:
            self.leave_out(error.worker, error.reason)
        elif not self._able():
            time.sleep(PAUSE)

    def watch(self) -> None:
        """Count the workers while no result comes, and say for how long there has been none.

        Raises:
            ClusterLost: none has been there for as long as patience lasts, or the scheduler does not answer.
        """
        now = time.monotonic()
        if self._able():
            self._empty_since = 0.0
            return
        self._empty_since = self._empty_since or now
        waited, reason = now - self._empty_since, self.why()
        cause = f" ({reason})" if reason else ""
        if waited > self.patience:
            raise ClusterLost(
                f"{self.who} has had no worker for {waited:,.0f} s{cause}, and what is done is kept; start workers, or "
                "set a longer cluster.patience, and run again to go on"
            )
        if now - self._told > TELL_EVERY:
            self._told = now
            self.say(
                f"{self.who} has no worker{cause}: waiting for {waited:,.0f} s so far, at most {self.patience:,.0f} s"
            )

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Errors of a connection to the scheduler become a sentence.

        Raises:
            ClusterLost: the scheduler has gone away.
        """
        try:
            yield
        except (OSError, AttributeError, CancelledError) as error:
            # ^ AttributeError: the client has closed its connection meanwhile
            if isinstance(error, AttributeError) and self.client.status == "running":
                raise
            raise self._gone(error) from None

    def _gone(self, error: BaseException) -> JobError:
        if isinstance(error, CancelledError) and self.client.status == "running" and not _disconnected(error):
            return JobError(
                "the tasks of this run were cancelled on the scheduler, by a later execution of the run or by somebody "
                "else; look who runs it: tilesseg status RUN"
            )
        return ClusterLost(
            f"the Dask scheduler of {self.who} has gone away ({_cause(error)}), and what is done is kept; run again to "
            "go on"
        )


class _Tasks(Generic[Item]):
    """Tasks of items on their way; each is cancelled or released at its end."""

    def __init__(self, executor: DaskExecutor) -> None:
        self.executor = executor
        self.items: dict[Any, Item] = {}
        """Item of each task under way, by key."""
        self.workers: dict[Any, str] = {}
        """Address of the only worker that a task may run on, by key."""
        self.silent = False
        """Whether no task had ended when `ended` looked last."""
        self._futures: dict[Any, Future[Any]] = {}
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()

    def submit(self, function: Callable[[Item], Any], items: list[Item], *, workers: Any, strictly: bool) -> None:
        """Submit items in one message.

        Args:
            function: function of an item.
            items: the items.
            workers: addresses of the workers that may run them; None: all.
            strictly: whether they wait for these workers where they have left; else any worker takes them then.
        """
        client = self.executor.client
        if not items:
            return
        loose = workers is not None and not strictly
        keys = [_key(function, item) for item in items]
        with self.executor.reaching():
            if client.status != "running":
                raise ConnectionError("the connection is closed")
            futures = client.map(function, items, key=keys, pure=False, workers=workers, allow_other_workers=loose)
        for key, item, future in zip(keys, items, futures, strict=True):
            self.items[key], self._futures[key] = item, future
            if strictly:
                (self.workers[key],) = workers
            future.add_done_callback(self._done.put)

    def ended(self) -> Iterator[tuple[Item, Any, Exception | None]]:
        """Items whose tasks have ended, with their results or errors; none where no task ended for some seconds.

        Raises:
            ClusterLost: the scheduler or the last worker has gone away.
        """
        batch = self._batch()
        self.silent = not batch
        if self.silent:
            self.executor.watch()
        fetched = self._fetch(batch)
        for future in batch:
            item, (answer, error) = self._take(future.key), self._outcome(future, fetched)
            future.release()
            yield item, answer, error

    def deserted(self, able: Collection[str]) -> list[Item]:
        """Items whose only worker has left without their tasks' end; their tasks are cancelled."""
        keys = [key for key, worker in self.workers.items() if worker not in able]
        with self.executor.reaching():
            self.executor.client.cancel([self._futures[key] for key in keys])
        return [self._take(key) for key in keys]

    def cancel(self) -> None:
        """Cancel what is under way, where the scheduler is still there."""
        if self._futures and self.executor.client.status == "running":
            with suppress(OSError):
                self.executor.client.cancel(list(self._futures.values()))

    def _take(self, key: Any) -> Item:
        self.workers.pop(key, None)
        del self._futures[key]
        return self.items.pop(key)

    def _batch(self) -> list[Future[Any]]:
        """Futures under way that have ended; none after some seconds of silence."""
        batch: list[Future[Any]] = []
        try:
            batch.append(self._done.get(timeout=LOOK_EVERY))
            while True:
                batch.append(self._done.get_nowait())
        except Empty:
            return [future for future in batch if future.key in self.items]

    def _fetch(self, futures: list[Future[Any]]) -> dict[Any, Any]:
        """Results of finished tasks, fetched in one message; a message for each would dominate the driver's time.

        Results that a dying worker had not yet delivered are computed again by Dask, and awaited here, as long as there
        are workers. A task without a result raises its own error.
        """
        fine = {future.key: future for future in futures if future.status == "finished"}
        if not fine:
            return {}
        with self.executor.reaching():
            answers = self._waited_for(self.executor.client.gather(fine, errors="skip", asynchronous=True))
        return {key: answer for key, answer in answers.items() if fine[key].status not in ("error", "cancelled")}

    def _waited_for(self, request: Any) -> Any:
        """Result of a request to the cluster; the workers are counted while it does not come.

        Raises:
            ClusterLost: the scheduler or the last worker has gone away.
        """
        loop: Any = self.executor.client.loop
        answer = asyncio.run_coroutine_threadsafe(request, loop.asyncio_loop)
        while True:
            try:
                return answer.result(LOOK_EVERY)
            except TimeoutError:
                if answer.done():
                    raise  # its own
            try:
                self.executor.watch()
            except BaseException:
                answer.cancel()
                raise

    def _outcome(self, future: Future[Any], fetched: dict[Any, Any]) -> tuple[Any, Exception | None]:
        """Result of a task, or its own error."""
        if future.key in fetched:
            return fetched[future.key], None
        with self.executor.reaching():
            while not _has_error(future):
                try:
                    return future.result(timeout=LOOK_EVERY), None
                except TimeoutError:
                    if not _has_error(future):  # it is computed again: its worker died with its result
                        self.executor.watch()
            return None, future.exception()


def _has_error(future: Future[Any]) -> bool:
    return future.status == "error"


def _cause(error: BaseException) -> str:
    """Reason of a broken connection, without Dask's description of the connection."""
    return "the connection broke" if _disconnected(error) else re.sub(r"^in <.*>: ", "", joined_lines(error))


def _disconnected(error: BaseException) -> bool:
    """Whether Dask cancelled a task because it lost its connection, and nobody else did."""
    return "scheduler-connection-lost" in str(error)


_tries = iter(range(1 << 62))


def _key(function: Any, item: Any) -> tuple[Any, ...]:
    """Key of a task: a name for the dashboard, and never the same twice, since a retry is another task."""
    name = getattr(function, "key", None)
    return (*(name(item) if name else (type(function).__name__,)), next(_tries))
