"""Facts and settings of this process: its name, cores, peak memory, malloc, and the lock for libraries' warnings."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import threading

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
