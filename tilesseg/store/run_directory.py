"""The run directory: job, plan, list of scenes, events, and one folder for each scene."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

from tilesseg.errors import RunDirectoryLost, StoreError, cannot, causes_of, remedy_of
from tilesseg.events import Event
from tilesseg.store.ledger import read_json, writable, write_json, write_text
from tilesseg.store.scene_store import Store

_KNOWN_BY = ("plan.json", "locks", "submit")
"""Names in a run directory, of which the first is there before any other file of the run."""
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that only writing meets."""
_FILES = ("job.yaml", "scenes.jsonl", "events.jsonl", "report.html", "summary.json", "summary.csv")
"""Files of a run that somebody may have, too; a job file above all."""


class RunDirectory:
    """The directory of a run, with everything that resume, status and export need.

    Args:
        path: path of the directory.
        generation: number of the execution that writes, for its records; 0: unknown.
    """

    def __init__(self, path: Path, *, generation: int = 0) -> None:
        self.path, self.generation = path, generation

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Make the directory where it does not exist, and check that it can be written.

        Raises:
            StoreError: the directory cannot be made or written.
        """
        with writable(path):
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)  # a process of the same number on another machine was faster
        return cls(path)

    def refuse_if_lost(self, error: BaseException, *, wrote: bool) -> None:
        """Tell an error of the run directory from one of the work that met it.

        Args:
            error: the error that the work met.
            wrote: whether the work writes nowhere but in the run directory, so that a full disk is the directory's.

        Raises:
            RunDirectoryLost: the directory was removed, or takes no more files.
        """
        met = [one for one in causes_of(error) if isinstance(one, OSError) and one.errno]
        full = next((one for one in met if one.errno in _OF_WRITING), None) if wrote else None
        problem = full or (self._probe() if met else None)
        if problem is not None:
            do = remedy_of(problem, "bring it back, and run again")
            raise RunDirectoryLost(cannot(f"write {self.path}", problem, do)) from error

    def _probe(self) -> OSError | None:
        """Error of writing a small file in the directory, or None."""
        probe = self.path / f".writable.{os.getpid()}.{threading.get_ident()}"
        try:
            probe.write_bytes(b"1")
            probe.unlink(missing_ok=True)
        except OSError as error:
            return error
        return None

    def refuse_occupied(self) -> None:
        """Refuse a folder that is no run directory, and in which files of a run would replace somebody's.

        Raises:
            StoreError: it holds such a file, and nothing by which a run is known.
        """
        if any((self.path / name).exists() for name in _KNOWN_BY):
            return
        found = next((name for name in _FILES if os.path.isfile(self.path / name)), None)
        if found:
            cause = f"{found} lies there, which no run wrote"
            raise StoreError(cannot(f"make a run directory of {self.path}", cause, "give it a folder of its own"))

    def scene(self, name: str) -> Store:
        return Store(self.path / "scenes" / name, generation=self.generation)

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run whole or not at all.

        Raises:
            StoreError: the file cannot be written.
        """
        with writable(self.path):
            write_text(self.path / name, text)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file of the run whole or not at all; raises as `write_text`."""
        with writable(self.path):
            write_json(self.path / name, data)

    def read_json(self, name: str) -> Any:
        """Content of a JSON file of the run, or None where the file does not exist yet.

        Raises:
            StoreError: the file is damaged.
        """
        return read_json(self.path / name)

    def any_done(self) -> bool:
        """Whether a tile of any scene is done."""
        folder = self.path / "scenes"
        names = sorted(os.listdir(folder)) if folder.exists() else []
        return any(Store(folder / name).ledger.any_done() for name in names)

    def log(self, event: Event, when: float) -> None:
        """Append an event to `events.jsonl`, without the sums of shards; `when` in seconds since 1970."""
        fields = event.to_json()
        fields.pop("stored", None)
        line = json.dumps({"time": round(when, 3), **fields}, separators=(",", ":"))
        with writable(self.path), (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
