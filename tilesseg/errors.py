"""Errors that a user can cause, and how an exception becomes one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tilesseg.paths import without_secrets

if TYPE_CHECKING:
    from pydantic import ValidationError


class TilessegError(Exception):
    """Any refusal of tilesseg; its text has no secrets of addresses, see `without_secrets`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_secrets(message))


class JobError(TilessegError):
    """The job asks for something that cannot work."""


class ClusterLost(JobError):
    """The scheduler or the last worker has gone away; what is done is kept, and another execution goes on."""


class SourceError(TilessegError):
    """An image cannot be opened, or does not fit the model."""


class ModelError(TilessegError):
    """A model bundle is incomplete, damaged, or not what its spec says."""


class OutOfDeviceMemory(ModelError):
    """The device has no memory for a batch; a smaller one may fit."""


class DeviceLost(ModelError):
    """The device answers nothing any more in this process (a sticky CUDA error): another process has to go on."""


class NetworkFailed(ModelError):
    """The network failed on a batch."""


class FormatError(TilessegError):
    """A product cannot be written in the format asked for."""


class StoreError(TilessegError):
    """A run directory cannot be used: not writable, or made by another plan."""


class RunDirectoryLost(StoreError):
    """The run directory was removed, or takes no more files: no tile is at fault, and the run cannot go on."""


class Superseded(TilessegError):
    """A later execution of the run has taken over: an attempt of an earlier one writes nothing more."""


def first_problem(error: ValidationError) -> str:
    """First complaint of pydantic as one line: the place, the problem, and the value."""
    problems = error.errors(include_url=False)
    first = problems[0]
    place = _place(first["loc"])
    if first["type"] == "missing":
        return f"{place} is required and missing"
    if first["type"] == "extra_forbidden":
        return f"unknown key {place}"
    # a value of several kinds (`int or auto`) gets a complaint from each of them
    same = dict.fromkeys(p["msg"].removeprefix("Value error, ") for p in problems if _place(p["loc"]) == place)
    message = " or ".join(same).replace(" or Input should be", " or")
    if first["type"] != "value_error" and isinstance(first["input"], str | int | float):
        message += f", not {first['input']!r}"
    more = sum(_place(problem["loc"]) != place for problem in problems)
    return (f"{place}: " if place else "") + message + (f" (and {more} more)" if more else "")


def _place(location: tuple[str | int, ...]) -> str:
    """Place in the file, without pydantic's own names for the kinds of a union; empty for the whole file."""
    kinds = ("int", "str", "float", "constrained-int", "SceneEntry")
    named = [str(part) for part in location if part not in kinds and "[" not in str(part)]
    return ".".join(named)


def cannot(what: str, because: str | Exception, do: str) -> str:
    """Message of a refusal, as one line: `cannot write m.tif: no write permission in masks; choose another path`.

    Args:
        what: the action that failed, and its object.
        because: its cause; of an exception all lines, joined; of one of the system its reason without the path.
        do: remedy, in the imperative.
    """
    if isinstance(because, OSError) and because.strerror:
        because = because.strerror
    return f"cannot {what}: {joined_lines(because) if isinstance(because, Exception) else because}; {do}"


def remedy_of(error: Exception, otherwise: str) -> str:
    """Remedy for an error of the file system, in the imperative; `otherwise` for an error that has none."""
    return _REMEDIES.get(error.errno or 0, otherwise) if isinstance(error, OSError) else otherwise


_FULL, _BROKEN = "make room and run again, which keeps what is done", "see to the disk or file server, and run again"
_CLOSED, _TAKEN = "give yourself permission, or choose another path", "move the file away, or choose another path"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "mount it for writing and run again, or choose another path",
    errno.ESTALE: _BROKEN,
    errno.EIO: _BROKEN,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENOTDIR: _TAKEN,
    errno.EEXIST: _TAKEN,
    errno.ENAMETOOLONG: "choose a shorter path",
}
"""Remedies for errors of the file system, by their numbers."""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it followed from, the latest first."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__


def joined_lines(error: BaseException) -> str:
    """All lines of an exception's text, as one line without secrets; the name of its kind where it has no text."""
    return without_secrets(" ".join(str(error).split())) or type(error).__name__


def one_line(error: Exception) -> str:
    """Last line of an exception's text, at most 200 letters: a runtime prints its frames above it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_secrets(lines[-1])[:200] if lines else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Why something failed, as one line; with the kind of error where it is no refusal of ours."""
    text = joined_lines(error)
    return text if isinstance(error, TilessegError) else f"{type(error).__name__}: {text}"
