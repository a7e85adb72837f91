"""A run directory that is looked at again and again: what cannot change any more is read once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tilesseg.events import TileDone
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import FINISHED_FILE, Store


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life that are no tiles."""

    newest: float
    """When anything was written last, in seconds since 1970; 0 where nothing was."""
    finished: bool
    """Whether the last event says that nothing is left to do."""

    @classmethod
    def of(cls, run: Path) -> Signs:
        times = [changed(run / name) for name in ("events.jsonl", "driver.json")]
        return cls(max(times), _last_event(run / "events.jsonl") == "run_finished")


class RememberedRun(RunDirectory):
    """A run whose records are read once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stores: dict[str, RememberedStore] = {}
        self._finished: dict[str, float] = {}

    def scene(self, name: str) -> Store:
        return self._stores.setdefault(name, RememberedStore(self.path / "scenes" / name))

    def scenes_there(self) -> set[str]:
        """Names of the scenes that have a folder."""
        folder = self.path / "scenes"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def touched(self, scene: str, since: float, state: str) -> bool:
        """Whether tiles of a scene may have ended after `since`."""
        if state == "unfinished" or not self.over(scene):
            return True
        return self._finished[scene] >= since

    def over(self, scene: str) -> bool:
        """Whether a scene's products are written; asked until they are."""
        if scene not in self._finished:
            when = changed(self.path / "scenes" / scene / FINISHED_FILE)
            if not when:
                return False
            self._finished[scene] = when
        return True

    def latest(self) -> tuple[float, float]:
        """When the last tile ended of those that were read, and how long the longest took."""
        records = [one for store in self._stores.values() for one in store.kept.values()]
        return max(map(ended, records), default=0.0), max((one.wall for one in records), default=0.0)


class RememberedStore(Store):
    """A scene whose records are read once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.kept: dict[str, TileDone] = {}

    def done(self) -> dict[str, TileDone]:
        for name in self.done_names():
            fields = None if name in self.kept else self.ledger.record(name)
            if fields is not None:
                self.kept[name] = _record(fields, self.folder / "done" / f"{name}.json")
        return dict(self.kept)


def _record(fields: dict[str, Any], path: Path) -> TileDone:
    record = TileDone(**fields)
    if record.started:
        return record
    return TileDone(**{**asdict(record), "started": changed(path) - record.wall})


def ended(record: TileDone) -> float:
    """When a tile was stored, in seconds since 1970."""
    return record.started + record.wall


def changed(path: Path) -> float:
    """When a file was written last, in seconds since 1970; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _last_event(path: Path) -> str | None:
    """Kind of the last event that is told."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65_536))
            last = file.read().splitlines()[-1]
            return str(json.loads(last)["event"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return None
