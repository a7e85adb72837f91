"""The ledger of a folder: one small file for each part that is done or failed, written whole.

"Done" is a record written after the last shard, never the presence of chunks: a missing chunk, an empty chunk and a
failed read look the same to a reader of Zarr.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError, cannot, remedy_of
from tilesseg.events import Event

SUFFIX = ".json"


class Ledger:
    """Records of the parts that are done or failed: `done/<name>.json` and `failed/<name>.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mark_done(self, name: str, record: Event) -> None:
        """Record that a part is complete; to be called after its last shard is written."""
        write_json(self._done / f"{name}.json", record.to_json())
        (self._failed / f"{name}.json").unlink(missing_ok=True)

    def mark_failed(self, name: str, record: Event) -> None:
        """Record that a part failed; the next execution tries it again."""
        write_json(self._failed / f"{name}.json", record.to_json())

    def forget(self, name: str) -> None:
        """Forget that a part is done, so that it is done again."""
        (self._done / f"{name}.json").unlink(missing_ok=True)

    def done_names(self) -> list[str]:
        """Names of the parts that are done."""
        return [path.stem for path in _records_in(self._done)]

    def record(self, name: str) -> dict[str, Any] | None:
        """Fields of the record of a part, or None where the part is not done."""
        path = self._done / f"{name}.json"
        return dict(_read_records([path]))[name] if path.exists() else None

    def any_done(self) -> bool:
        """Whether any part is done."""
        return bool(_records_in(self._done))

    def done(self) -> dict[str, dict[str, Any]]:
        """Fields of the records of the parts that are done, by name."""
        return dict(_read_records(_records_in(self._done)))

    def failed(self) -> dict[str, dict[str, Any]]:
        """Fields of the records of the parts that failed, by name; a part that is done has not failed.

        Both records exist where an attempt failed late, after another one had done the part.
        """
        done = set(self.done_names())
        return dict(_read_records(path for path in _records_in(self._failed) if path.stem not in done))

    def claim(self, fingerprint: str) -> None:
        """Make the folder for the plan with this fingerprint; a folder of another plan is emptied if no part is done.

        Raises:
            StoreError: parts of another plan are done there.
        """
        existing = self.fingerprint
        if existing not in (None, fingerprint):
            if self.done_names():
                raise StoreError(
                    f"{self.folder} has {len(self.done_names())} tiles of fingerprint {str(existing)[:12]}…, and "
                    f"this plan has {fingerprint[:12]}…: another image or plan; give another run directory"
                )
            self._empty()
        for part in (self._done, self._failed):
            part.mkdir(parents=True, exist_ok=True)
        write_text(self._fingerprint, fingerprint)

    def _empty(self) -> None:
        """Remove everything but the fingerprint, so that a folder that is half emptied is emptied again."""
        for path in [path for path in self.folder.iterdir() if path != self._fingerprint]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the plan that the folder belongs to, or None."""
        return self._fingerprint.read_text(encoding="utf-8") if self._fingerprint.exists() else None

    @property
    def _fingerprint(self) -> Path:
        return self.folder / "fingerprint"

    @property
    def _done(self) -> Path:
        return self.folder / "done"

    @property
    def _failed(self) -> Path:
        return self.folder / "failed"


def _records_in(folder: Path) -> list[Path]:
    """Files of records in a folder, by name; none where the folder does not exist yet.

    Raises:
        StoreError: the folder cannot be read. A pattern of pathlib finds nothing then, as if nothing were done.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(cannot(f"read {folder}", error, remedy_of(error, "look at the folder"))) from None
    return [folder / name for name in sorted(names) if name.endswith(SUFFIX) and not name.startswith(".")]


def _read_records(paths: Iterable[Path]) -> Iterable[tuple[str, dict[str, Any]]]:
    for path in paths:
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            fields.pop("event")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            do = "delete it, or let tilesseg verify do that, and the next run does its tile again"
            raise StoreError(f"{path} is damaged ({error}); {do}") from None
        yield path.stem, fields


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file, or None where the file does not exist.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        do = remedy_of(error, "delete it, or give another run directory")
        raise StoreError(cannot(f"read {path}", error, do)) from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with published(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Errors of the file system while the context lasts become a StoreError that names the folder."""
    try:
        yield
    except OSError as error:
        do = remedy_of(error, "choose another run directory")
        raise StoreError(cannot(f"write {folder}", error, do)) from None
