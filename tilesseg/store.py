"""The run directory: what is planned, what is stored, what is done. The truth of a run; Dask is disposable.

    RUN/  job.yaml  plan.json  events.jsonl  summary.json
          scenes/<scene>/  mask.zarr  done/r012-c034.json  failed/r003-c007.json

"Done" is a record written after the core, never the presence of chunks: a missing chunk, an empty chunk and a
failed read look the same to a reader of Zarr.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.errors import BaseZarrError

from tilesseg.errors import StoreError
from tilesseg.events import Event, TileDone, TileFailed
from tilesseg.labels import FAILED
from tilesseg.window import Window

SHARD_COPIES = 4
"""How often a shard is in memory while it is encoded and written; for estimates."""

# Total threads would be tiles in flight × this; a worker has few tiles and few cores.
zarr.config.set({"async.concurrency": 4, "threading.max_workers": 4})


class Store:
    """One scene's folder: its mask and its ledger. Picklable, safe for several writers of different tiles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def scene(self) -> str:
        return self.folder.name

    def create(self, *, shape: tuple[int, int], shard: int, chunk: int, fingerprint: str) -> None:
        """Make the folder and an empty mask, `(y, x)` uint8 full of 254; an existing one is kept.

        Args:
            shape: of the image.
            shard: side of a shard, the unit of writing.
            chunk: side of a chunk, the unit of reading.
            fingerprint: names what the mask is made from. A folder of another fingerprint is made anew where no tile
                is done in it.

        Raises:
            StoreError: the folder cannot be written, its tiles were made from something else, or its mask is gone and
                the records of its tiles are not.
        """
        try:
            self._claim(fingerprint)
            for part in (self._done, self._failed):
                part.mkdir(parents=True, exist_ok=True)
            if not self._mask.exists():
                self._refuse_records()
                temporary = self.folder / f".mask.{os.getpid()}.zarr"
                zarr.create_array(
                    store=str(temporary),
                    shape=shape,
                    chunks=(chunk, chunk),
                    shards=(shard, shard),
                    dtype="uint8",
                    fill_value=FAILED,
                    compressors=[ZstdCodec(level=1)],
                )
                temporary.rename(self._mask)
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def _claim(self, fingerprint: str) -> None:
        named = self.folder / "fingerprint"
        if named.exists() and named.read_text(encoding="utf-8") != fingerprint:
            if self.done_names():
                raise StoreError(
                    f"{self.folder} has {len(self.done_names())} tiles of fingerprint {named.read_text()[:12]}…, and "
                    f"this plan has {fingerprint[:12]}…: another image or plan; give another run directory"
                )
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_text(named, fingerprint)

    def _refuse_records(self) -> None:
        """An empty mask under records of done tiles would be a hole that nobody sees."""
        done = len(self.done_names())
        if done:
            raise StoreError(
                f"{self.folder} has records of {done} tiles and no {self._mask.name}; restore it, or delete "
                f"{self._done} to do the tiles again"
            )

    @cached_property
    def mask(self) -> zarr.Array[Any]:
        try:
            return zarr.open_array(str(self._mask), mode="r+")
        except (OSError, BaseZarrError) as error:
            raise StoreError(f"{self.folder} holds no mask ({error}); run the job first") from None

    @property
    def shard(self) -> int:
        """Side of a shard, the unit of writing."""
        shards = self.mask.shards
        assert shards is not None
        return int(shards[0])

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels `(y, x)` of a window inside the image."""
        return np.asarray(self.mask[window.slices()], np.uint8)

    def band(self, core: Window) -> Band:
        """Where the labels of a core go, from top to bottom."""
        return Band(self, core)

    def clear(self, core: Window) -> None:
        """Put a core back to 254, as if its tile had never run."""
        height = self.shard
        for y in range(core.y, core.y_stop, height):
            self.mask[y : min(y + height, core.y_stop), core.x : core.x_stop] = FAILED

    def mark_done(self, record: TileDone) -> TileDone:
        """Put a tile into the ledger; call it after the last shard."""
        _write_json(self._done / f"{record.tile}.json", record.to_json())
        (self._failed / f"{record.tile}.json").unlink(missing_ok=True)
        return record

    def mark_failed(self, record: TileFailed) -> TileFailed:
        """List a tile as failed; the next run tries it again."""
        _write_json(self._failed / f"{record.tile}.json", record.to_json())
        return record

    def done_names(self) -> list[str]:
        """Names of the tiles that are stored."""
        return [path.stem for path in self._done.glob("[!.]*.json")]

    def done(self) -> dict[str, TileDone]:
        """Records of the tiles that are stored, by name."""
        return {name: TileDone(**fields) for name, fields in _read_records(self._done)}

    def failed(self) -> dict[str, TileFailed]:
        """Records of the tiles that could not be made, by name."""
        return {name: TileFailed(**fields) for name, fields in _read_records(self._failed)}

    @property
    def _mask(self) -> Path:
        return self.folder / "mask.zarr"

    @property
    def _done(self) -> Path:
        return self.folder / "done"

    @property
    def _failed(self) -> Path:
        return self.folder / "failed"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}


class Band:
    """Finished rows of a core, waiting until a whole row of shards can be written: every shard once, whole.

    zarr does not protect a shard that is written in parts (zarr-python #3682). Shards are written one by one: zarr
    encodes several at a time in threads of its own, and holds some copies of each.
    """

    def __init__(self, store: Store, core: Window) -> None:
        self._store, self._core = store, core
        self._waiting = np.empty((0, core.width), np.uint8)
        self._filled = 0
        self.y_next = core.y
        """Image row that the next labels belong to."""

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next rows `(rows, width)`; write what makes whole shards."""
        while len(labels):
            height = min(self._store.shard, self._core.y_stop - (self.y_next - self._filled))
            now, labels = labels[: height - self._filled], labels[height - self._filled :]
            self.y_next += len(now)
            if len(now) == height:
                self._write(now)
            else:
                self._wait(now, height)

    def _wait(self, rows: NDArray[np.uint8], height: int) -> None:
        if not self._filled:
            self._waiting = np.empty((height, self._core.width), np.uint8)
        self._waiting[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)
        if self._filled == height:
            self._filled = 0
            self._write(self._waiting)

    def _write(self, rows: NDArray[np.uint8]) -> None:
        """Store the rows that end at `y_next`."""
        core, side = self._core, self._store.shard
        for x in range(core.x, core.x_stop, side):
            place = Window.from_bounds(self.y_next - len(rows), x, self.y_next, min(x + side, core.x_stop))
            self._store.mask[place.slices()] = rows[:, x - core.x : x - core.x + side]


class RunDirectory:
    """The folder of a run: everything that resume, status and export need."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Make the folder, or find it.

        Raises:
            StoreError: it cannot be made or written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _unwritable(path, error) from None
        return cls(path)

    def scene(self, name: str) -> Store:
        return Store(self.path / "scenes" / name)

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the run whole or not at all."""
        _write_text(self.path / name, text)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file of the run whole or not at all."""
        _write_json(self.path / name, data)

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None where there is none yet.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path / name} cannot be read ({error}); take a new run directory") from None

    def log(self, event: Event, when: float) -> None:
        """Append an event to `events.jsonl`; `when` in seconds since 1970."""
        line = json.dumps({"time": round(when, 3), **event.to_json()}, separators=(",", ":"))
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder} cannot be written ({error.strerror}); choose another run directory")


def _read_records(folder: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            fields.pop("event")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error}); delete it, and the next run does its tile again") from None
        yield path.stem, fields


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
