"""Threads that are reused and do not hold up the end of the process: one that hangs for ever costs itself alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

R = TypeVar("R")


class DaemonThreads:
    """Pool of as many threads as there is work at the same time.

    The pools of `concurrent.futures` wait for all their threads when the process ends, also for one that never will.
    """

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._idle: list[_Thread] = []

    def submit(self, do: Callable[[], R]) -> Future[R]:
        """Call a function in one of the threads; its future has the thread's result or exception of any kind."""
        future: Future[R] = Future()
        with self._lock:
            thread = self._idle.pop() if self._idle else _Thread(self._name, self._take_back)
        thread.inbox.put((future, do))
        return future

    def end(self) -> None:
        """End the threads that have nothing to do, and wait for their end."""
        with self._lock:
            idle, self._idle = self._idle, []
        for thread in idle:
            thread.inbox.put(None)
        for thread in idle:
            thread.join()

    def _take_back(self, thread: _Thread) -> None:
        with self._lock:
            self._idle.append(thread)


class _Thread(threading.Thread):
    """Thread that calls what it finds in its inbox, until it finds None."""

    def __init__(self, name: str, free: Callable[[_Thread], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.inbox: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._free = free
        self.start()

    def run(self) -> None:
        while (work := self.inbox.get()) is not None:
            future, do = work
            if not future.set_running_or_notify_cancel():
                self._free(self)
                continue
            try:
                result = do()
            except BaseException as error:
                # ^ of any kind: it is raised where the result is taken
                self._free(self)
                future.set_exception(error)
            else:
                self._free(self)  # before the result is known, so that the next work finds this thread
                future.set_result(result)
                del result
            del work, future, do  # an idle thread keeps nothing alive
