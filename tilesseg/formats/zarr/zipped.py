"""Zarr in a zip file: `.ozx` of OME-Zarr (RFC 9) and zipped folders, as paths that go on behind the file's name.

`sample.ozx/0/zarr.json` is a member of `sample.ozx`. Members are read where they lie.
"""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from typing import IO, Any

from tilesseg.errors import SourceError, cannot

SUFFIXES = (".ozx", ".zip")
ROOTS = ("zarr.json", ".zgroup", ".zarray")
"""Files by which a folder is a Zarr."""


def split_zip(path: str) -> tuple[str, str] | None:
    """The zip file in a path and the member behind it, empty for the file itself; None where there is no zip file."""
    lower, start = path.lower(), 0
    while True:
        ends = [at + len(suffix) for suffix in SUFFIXES if (at := lower.find(suffix, start)) >= 0]
        if not ends:
            return None
        end = min(ends)
        if path[end : end + 1] in ("", "/") and os.path.isfile(path[:end]):
            return path[:end], path[end:].strip("/")
        start = end


def zarr_root(path: str) -> str:
    """The group or array of a zip file: its root, or its only folder; any other path as it is.

    Raises:
        SourceError: it is no zip file that can be read.
    """
    place = split_zip(path)
    if place is None or place[1] or any(exists(os.path.join(path, name)) for name in ROOTS):
        return path
    folders = list_folder(path)
    return os.path.join(path, folders[0]) if len(folders) == 1 else path


def exists(path: str) -> bool:
    """Whether there is a file or a member of a zip file."""
    place = split_zip(path)
    return os.path.exists(path) if place is None else place[1] == "" or place[1] in _members(place[0])


def is_folder(path: str) -> bool:
    """Whether there is a folder, or members of a zip file lie below the path."""
    place = split_zip(path)
    if place is None:
        return os.path.isdir(path)
    return any(name.startswith(f"{place[1]}/" if place[1] else "") for name in _members(place[0]))


def list_folder(path: str) -> list[str]:
    """Names in a folder, sorted; empty where it is missing."""
    place = split_zip(path)
    if place is None:
        return sorted(os.listdir(path)) if os.path.isdir(path) else []
    before = f"{place[1]}/" if place[1] else ""
    names = (name[len(before) :] for name in _members(place[0]) if name.startswith(before))
    return sorted({name.partition("/")[0] for name in names} - {""})


def open_file(path: str) -> IO[bytes]:
    """A file or a member of a zip file, for reading and seeking.

    Raises:
        FileNotFoundError: it is missing.
    """
    place = split_zip(path)
    if place is None:
        return open(path, "rb")
    if place[1] not in _members(place[0]):
        raise FileNotFoundError(path)
    return _archive(place[0], *_state(place[0])).open(place[1])


def zarr_place(path: str) -> dict[str, Any]:
    """Arguments of zarr's functions for a path: the store, and the path in it."""
    place = split_zip(path)
    if place is None:
        return {"store": path}
    from zarr.storage import ZipStore

    return {"store": ZipStore(place[0], mode="r"), "path": place[1]}


def file_of(path: str) -> str:
    """The zip file that a member lies in, or the path itself: the file whose state is the member's."""
    place = split_zip(path)
    return path if place is None else place[0]


def _members(file: str) -> frozenset[str]:
    return _names(file, *_state(file))


def _state(file: str) -> tuple[int, int, int]:
    """State of a file, and the process: a handle is not shared with a forked one."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns, os.getpid()


@lru_cache(maxsize=8)
def _names(file: str, size: int, time: int, process: int) -> frozenset[str]:
    return frozenset(_archive(file, size, time, process).namelist())


@lru_cache(maxsize=8)
def _archive(file: str, size: int, time: int, process: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(cannot(f"open {file} as a zip file", error, "copy or download it again")) from error
