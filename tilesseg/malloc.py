"""What a worker process does with memory that it frees: it keeps some for the arrays of the next batch.

Dask's nannies have malloc give everything back at once (`MALLOC_TRIM_THRESHOLD_=65536`), which also stops it from
learning how large arrays are here: then each of more than 128 KiB is new memory from the kernel, zeroed page by page.
With a network that costs nothing, a worker did 33 Mpx/s so and 46 Mpx/s with limits. Larger arrays are given back all
the same: with a limit of 32 MiB for them, which is what glibc goes up to by itself, a worker's peak grew by 60 MB over
its first dozen tiles, at the same rate.

Large arrays lie in huge pages, where the kernel gives them to those who ask (`madvise`, the usual setting). Only the
environment that a process starts with can ask for it.
"""

from __future__ import annotations

import ctypes
import os

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""In the environment of a process: arrays are in huge pages (glibc 2.35 and later; elsewhere it does nothing)."""
DASKS = "65536"
"""What Dask's nannies set `MALLOC_TRIM_THRESHOLD_` to in the environment of their workers."""
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
