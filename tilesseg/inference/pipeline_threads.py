"""Threads of a bounded pipeline: the steps before and after a loop run in background threads.

    ahead  ──depth──▶  abreast  ──width──▶  the loop  ──depth──▶  behind

An error of a thread is raised in the loop; the end of the loop ends the threads. Order is kept.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import lru_cache, partial
from queue import Queue, SimpleQueue
from threading import Event, Semaphore
from typing import Any, TypeVar

from tilesseg.process import DaemonThreads

T = TypeVar("T")
R = TypeVar("R")

_END = object()


class _Failure:
    """Exception of a thread, to be raised in the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextmanager
def ahead(items: Iterator[T], depth: int) -> Iterator[Iterator[T]]:
    """The same items, made in a thread: at most `depth` of them are made, or being made, and not yet taken.

    With a depth of 0 items are made on demand, in the caller's thread.
    """
    if not depth:
        yield items
        return
    made, room, stopped = SimpleQueue[Any](), Semaphore(depth), Event()

    def make() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                item: Any = next(items, _END)
                made.put(item)
                if item is _END:
                    return
                del item  # the caller's now, who may let it go
        except BaseException as error:
            # ^ of any kind: it is raised where the items are taken
            made.put(_Failure(error))

    def taken() -> Iterator[T]:
        while (item := made.get()) is not _END:
            room.release()
            if isinstance(item, _Failure):
                raise item.error
            yield item
            del item

    thread = _threads("ahead").submit(make)
    try:
        yield taken()
    finally:
        stopped.set()
        room.release()
        thread.result()


@contextmanager
def abreast(do: Callable[[T], R], items: Iterator[T], width: int) -> Iterator[Iterator[Callable[[], R]]]:
    """For each item, in order, a function that waits for the result of `do`: `width` results are made at a time.

    With a width of 1 a result is made on demand, in the caller's thread.
    """
    under_way = deque[Future[R]]()

    def begun() -> Iterator[Callable[[], R]]:
        for item in items:
            under_way.append(_threads("abreast").submit(partial(do, item)))
            del item
            if len(under_way) == width:
                yield under_way.popleft().result
        while under_way:
            yield under_way.popleft().result

    try:
        yield begun() if width > 1 else (partial(do, item) for item in items)
    finally:
        wait(under_way)  # where the loop has failed, results and errors of the rest are dropped


@contextmanager
def behind(take: Callable[[T], None], depth: int) -> Iterator[Callable[[T], None]]:
    """A function that has `take` called in a thread; at most `depth` calls wait.

    All calls are done when the context ends; after an error no further call is begun. An exception of `take` is raised
    by a later call or at the end. With a depth of 0 the function is `take` itself.
    """
    if not depth:
        yield take
        return
    given, failed, given_up = Queue[Any](depth), list[BaseException](), Event()

    def work() -> None:
        while (item := given.get()) is not _END:
            if not failed and not given_up.is_set():  # else only taken, so that no caller waits for room
                try:
                    take(item)
                except BaseException as error:
                    # ^ of any kind: it is raised in the loop
                    failed.append(error)
            del item

    def give(item: T) -> None:
        if failed:
            raise failed[0]
        given.put(item)

    thread = _threads("behind").submit(partial(copy_context().run, work))  # what is fenced here is fenced there
    try:
        yield give
    except BaseException:
        given_up.set()
        raise
    finally:
        given.put(_END)
        thread.result()
    if failed:
        raise failed[0]


@lru_cache
def _threads(role: str) -> DaemonThreads:
    """Threads that outlive one use: image files are opened once for each thread."""
    return DaemonThreads(f"tilesseg-{role}")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked child has the pools and not their threads
