"""Where a product goes: complete or not at all, over one of ours, and over nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilesseg.atomic_write import published
from tilesseg.errors import FormatError, cannot
from tilesseg.formats.ome_zarr.metadata import PROVENANCE


def refuse_foreign(path: Path) -> None:
    """Refuse a path at which there is something that tilesseg did not write.

    Raises:
        FormatError: there is.
    """
    if os.path.lexists(path) and not (path.is_dir() and PROVENANCE in _attributes(path)):
        what = "a folder" if path.is_dir() else "a file"
        cause = f"{what} that tilesseg did not write lies there"
        raise FormatError(cannot(f"write {path}", cause, "choose another path"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A folder to write, beside the path under a hidden name, that takes its place when all went well.

    Raises:
        FormatError: it cannot be written; or something that tilesseg did not write is there.
    """
    refuse_foreign(path)
    try:
        with published(path, folder=True) as temporary:
            yield temporary
    except OSError as error:
        raise FormatError(cannot(f"write {path}", error, "make room or choose another path")) from error


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON, whole or not at all."""
    with published(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file.

    Raises:
        FormatError: the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {' '.join(str(error).split())}; correct it first") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds a {type(found).__name__}, an object needed; correct it first")
    return found


def _attributes(group: Path) -> dict[str, Any]:
    try:
        attributes = read_json(group / "zarr.json").get("attributes") or read_json(group / ".zattrs")
    except FormatError:
        return {}
    return attributes if isinstance(attributes, dict) else {}
