"""This process: its name, cores, peak memory, malloc, threads that do not hold up its end, a lock for warnings."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

R = TypeVar("R")

QUIET = threading.RLock()
"""Held while warnings are caught, and while a library catches its own."""

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""In the environment of a process: arrays are in huge pages (glibc 2.35 and later; elsewhere it does nothing)."""
DASKS = "65536"
"""Value of `MALLOC_TRIM_THRESHOLD_` that Dask's nannies set in the environment of their workers."""
_TRIM, _MMAP = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""
KEPT, LARGEST = 64 * 2**20, 4 * 2**20
"""Bytes free at an arena's end that are kept, and those from which an array is given back on its own."""


def keep_freed_memory() -> bool:
    """Set the limits in this process, instead of Dask's, and say whether that was done.

    Not where malloc is another one than glibc's, and not where the user has set its limits.
    """
    if os.environ.get("MALLOC_TRIM_THRESHOLD_", DASKS) != DASKS or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_TRIM, KEPT) and mallopt(_MMAP, LARGEST))


def this_process() -> str:
    """This machine and process, as `node7:4711`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def available_cores() -> int:
    """Cores this process may use. Asked of the system: Dask's nanny sets OMP_NUM_THREADS=1 and would answer for it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB of 10^6 bytes.

    Of the kernel's figures VmHWM, where there is one: ru_maxrss still counts what this process was forked from.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            found = next(line for line in status if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


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
