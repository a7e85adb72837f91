"""Locks: which process works on a part of a run. Held by the kernel, so a process that dies lets go."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tilesseg.errors import StoreError
from tilesseg.process import this_process


@contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file for as long as the context lasts; True if it could be had.

    Args:
        path: the file; made where there is none, and left there.
        shared: several may hold it at the same time, unless somebody holds it for himself.
        wait: until it can be had.

    Raises:
        StoreError: the file cannot be written, or its file system knows no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); choose another run directory") from None
    with file:
        got = _take(file.fileno(), path, shared=shared, wait=wait)
        if got:
            file.truncate(0)  # whoever is named there has let go
            file.write("" if shared else this_process())
            file.flush()
        yield got  # closing the file lets go


def holder(path: Path) -> str:
    """Who took the lock of a file for himself last, as `this_process` says it; empty where several share it."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _take(descriptor: int, path: Path, *, shared: bool, wait: bool) -> bool:
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise StoreError(
            f"{path} cannot be locked ({error.strerror}); put the run directory on a file system that has locks"
        ) from None
    return True


def alone(run: Path, *part: str, shared: bool) -> AbstractContextManager[object]:
    """Hold a part of a run while the context lasts; others wait. Nothing is held where no processes share the run."""
    return held(run.joinpath("locks", "scenes", *part), wait=True) if shared else nullcontext()
