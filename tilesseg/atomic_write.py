"""Atomic writing: a file or folder appears under its name when it is complete, else nothing is left of it.

A fence decides whether it may appear: an attempt that a later execution has replaced publishes nothing more.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_ATTEMPTS = 100
"""Number of times a folder is moved again to a target that other processes fill between two renames."""

_fences: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("fences", default=())


@contextmanager
def fenced(check: Callable[[], None]) -> Iterator[None]:
    """Have `check` called before anything is published while the context lasts; it raises where that must not be.

    A thread that is started within the context is fenced if it runs in a copy of the context (`contextvars`).
    """
    token = _fences.set((*_fences.get(), check))
    try:
        yield
    finally:
        _fences.reset(token)


def current_fences() -> tuple[Callable[[], None], ...]:
    """Fences of this context, to be set up in another process."""
    return _fences.get()


def check_fences() -> None:
    """Raise the error of the first fence that forbids this context to write."""
    for check in _fences.get():
        check()


@contextmanager
def published(target: Path, *, folder: bool = False, replace: bool = True) -> Iterator[Path]:
    """Hidden path of this process and thread beside `target`, to be written; it is renamed to `target` at the end.

    A file replaces an existing file in one step. An existing folder is first moved aside, and moved back where the new
    one cannot take its place: a reader finds a whole folder or, for a moment, none.

    Args:
        target: path of the result; its own folder must exist by the end.
        folder: whether the result is a folder.
        replace: False leaves an existing folder, unless it is empty, and raises.

    Raises:
        OSError: the rename failed. After this, an error of a fence or any other error the temporary path is removed.
    """
    temporary = hidden_name(target)
    if folder:
        _remove(temporary)  # of an earlier process that had the same number
    try:
        yield temporary
        check_fences()
        if folder and replace:
            _replace_folder(temporary, target)
        elif folder:
            temporary.rename(target)
        else:
            temporary.replace(target)
    except BaseException:
        _remove(temporary)
        raise


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Hidden folder of this process and thread beside `target`, for files on the way to it; removed at the end.

    Raises:
        OSError: it cannot be made.
    """
    folder = hidden_name(target)
    try:
        _remove(folder)
        folder.mkdir()
        yield folder
    finally:
        _remove(folder)


def hidden_name(target: Path, suffix: str = "") -> Path:
    """Path beside `target` that no other process and no other thread uses, and that no pattern for results matches."""
    return target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}{suffix}")


def _replace_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`, whatever other processes do with `target` meanwhile."""
    old = hidden_name(target, ".old")
    try:
        for _ in range(_ATTEMPTS):
            _remove(old)
            with suppress(FileNotFoundError):
                target.rename(old)
            try:
                new.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another process was faster: its folder is moved aside, too
                with suppress(OSError):
                    old.rename(target)
                raise
            return
        raise OSError(errno.EBUSY, "other processes write there all the time")
    finally:
        _remove(old)


def _remove(path: Path) -> None:
    """Remove a file or a folder, where there is one; a failure must not hide the error that is being raised."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
