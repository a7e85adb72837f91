"""Refusals: what a user can cause, said in one line.

Every message names what is wrong, the two values that disagree, and what to do. The command line prints the
message alone and exits with 1; a traceback is for our own mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class TilessegError(Exception):
    """Any refusal of tilesseg."""


class JobError(TilessegError):
    """The job asks for something that cannot work."""


class SourceError(TilessegError):
    """An image cannot be opened, or does not fit the model."""


class ModelError(TilessegError):
    """A model bundle is incomplete, damaged, or not what its spec says."""


class OutOfDeviceMemory(ModelError):
    """The device has no memory for a batch; a smaller one may fit."""


class DeviceLost(ModelError):
    """The device answers nothing any more in this process (a sticky CUDA error): another process has to go on."""


class FormatError(TilessegError):
    """A product cannot be written in the format asked for."""


class StoreError(TilessegError):
    """A run directory cannot be used: not writable, or made by another plan."""


def first_problem(error: ValidationError) -> str:
    """The first complaint of pydantic as one line: where, what, and the value found."""
    problems = error.errors(include_url=False)
    first = problems[0]
    place = _place(first["loc"])
    if first["type"] == "missing":
        return f"{place} is required and missing"
    if first["type"] == "extra_forbidden":
        return f"unknown key {place}"
    # a value of several kinds (`int or auto`) gets one complaint from each of them
    same = dict.fromkeys(p["msg"].removeprefix("Value error, ") for p in problems if _place(p["loc"]) == place)
    message = " or ".join(same).replace(" or Input should be", " or")
    if first["type"] != "value_error" and isinstance(first["input"], str | int | float):
        message += f", not {first['input']!r}"
    more = sum(_place(problem["loc"]) != place for problem in problems)
    return f"{place}: {message}" + (f" (and {more} more)" if more else "")


def _place(location: tuple[str | int, ...]) -> str:
    """Where in the file, without pydantic's own names for the kinds of a union."""
    kinds = ("int", "str", "float", "constrained-int", "SceneEntry")
    named = [str(part) for part in location if part not in kinds and "[" not in str(part)]
    return ".".join(named) or "the whole"
