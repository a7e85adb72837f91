"""Folder of a product, which is written whole or not at all and replaces only products of tilesseg; JSON files."""

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
    """Refuse a path at which a file or folder lies that tilesseg did not write.

    Raises:
        FormatError: a file lies there, or a folder without tilesseg's attributes.
    """
    if os.path.lexists(path) and not (path.is_dir() and PROVENANCE in _attributes(path)):
        what = "a folder" if path.is_dir() else "a file"
        cause = f"{what} that tilesseg did not write lies there"
        raise FormatError(cannot(f"write {path}", cause, "choose another path"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Folder to write under a hidden name, which is renamed to `path` at the end; see `published`.

    Raises:
        FormatError: the folder cannot be written, or tilesseg did not write the file or folder at `path`.
    """
    refuse_foreign(path)
    try:
        with published(path, folder=True) as temporary:
            yield temporary
    except OSError as error:
        raise FormatError(cannot(f"write {path}", error, "make room or choose another path")) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with published(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file, empty where the file does not exist.

    Raises:
        FormatError: the file cannot be read, or has no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FormatError(cannot(f"read {path}", error, "correct the file first")) from None
    if not isinstance(content, dict):
        cause = f"it has a {type(content).__name__} where an object is needed"
        raise FormatError(cannot(f"read {path}", cause, "correct the file first"))
    return content


def _attributes(group: Path) -> dict[str, Any]:
    try:
        attributes = read_json(group / "zarr.json").get("attributes") or read_json(group / ".zattrs")
    except FormatError:
        return {}
    return attributes if isinstance(attributes, dict) else {}
