"""A run directory that is read again and again: files that cannot change any more are read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.events import TileDone
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import FINISHED_FILE, Store

if TYPE_CHECKING:
    from tilesseg.raster.tiling import Tiling


class CachedRun(RunDirectory):
    """A run whose records are read once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stores: dict[str, CachedStore] = {}
        self._over: set[str] = set()

    def scene(self, name: str) -> CachedStore:
        return self._stores.setdefault(name, CachedStore(self.path / "scenes" / name))

    def scene_folders(self) -> set[str]:
        """Names of the scenes that have a folder."""
        folder = self.path / "scenes"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def over(self, scene: str) -> bool:
        """Whether a scene's products are written; its file is looked for until it is there."""
        if scene not in self._over and modified(self.path / "scenes" / scene / FINISHED_FILE):
            self._over.add(scene)
        return scene in self._over


class CachedStore(Store):
    """A scene whose records are read once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._records: dict[str, TileDone] = {}
        self._sound: set[str] = set()

    def altered(self, records: Mapping[str, TileDone], tiling: Tiling, *, by_bytes: bool = False) -> dict[str, str]:
        """Problems as of `Store.altered`; a tile that was found sound is not looked at again."""
        unseen = {name: record for name, record in records.items() if name not in self._sound}
        problems = super().altered(unseen, tiling, by_bytes=by_bytes)
        self._sound |= unseen.keys() - problems.keys()
        return problems

    def done(self) -> dict[str, TileDone]:
        for name in self.done_names():
            fields = None if name in self._records else self.ledger.record(name)
            if fields is not None:
                self._records[name] = _record(fields, self.folder / "done" / f"{name}.json")
        return dict(self._records)

    def failed_pixels(self, *, before: float) -> int:
        """Pixels of the tiles that failed before a time, in seconds since 1970."""
        folder, records = self.folder / "failed", self.failed().values()
        return sum(record.pixels for record in records if modified(folder / f"{record.tile}.json") < before)


def _record(fields: dict[str, Any], path: Path) -> TileDone:
    """Record of a tile, one of an older release with the time of its file."""
    record = TileDone(**fields)
    if record.started:
        return record
    return TileDone(**{**asdict(record), "started": modified(path) - record.wall})


def modified(path: Path) -> float:
    """Time at which a file was written last, in seconds since 1970; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
