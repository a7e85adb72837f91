"""Locks of files: which process works on a part of a run. The kernel releases the locks of a process that dies."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tilesseg.errors import StoreError, cannot, remedy_of
from tilesseg.process import this_process


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file while the context lasts; True if it could be taken.

    Args:
        path: the file; made where it does not exist, and left there.
        shared: whether several processes may hold the lock at the same time; an exclusive lock excludes all others.
        wait: whether to wait until the lock can be taken.

    Raises:
        StoreError: the file cannot be written, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        do = remedy_of(error, "choose another run directory")
        raise StoreError(cannot(f"write {path}", error, do)) from None
    with file:
        taken = _take(file.fileno(), path, shared=shared, wait=wait)
        if taken:
            file.truncate(0)  # the process that is named there has released the lock
            file.write("" if shared else this_process())
            file.flush()
        yield taken  # closing the file releases the lock


def holder(path: Path) -> str:
    """Name of the process that last took the exclusive lock (see `this_process`); empty while the lock is shared."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _take(descriptor: int, path: Path, *, shared: bool, wait: bool) -> bool:
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise StoreError(
            cannot(f"lock {path}", error, "put the run directory on a file system that has locks")
        ) from None
    return True


def alone(run: Path, *part: str, shared: bool) -> AbstractContextManager[object]:
    """Hold the lock of a part of a run while the context lasts; without effect unless processes share the run."""
    return held(run.joinpath("locks", "scenes", *part), wait=True) if shared else nullcontext()
