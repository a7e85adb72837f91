"""The run directory: what is planned, what is stored, what is done. The truth of a run; Dask is disposable.

    RUN/  job.yaml  plan.json  scenes.jsonl  events.jsonl  summary.json  summary.csv  report.html
          scenes/<scene>/  plan.json | refused.json  mask.zarr  levels/  scores.zarr?  done/r012-c034.json
                           failed/r003-c007.json  finished.json  staged/

`staged/` is there while an image is copied to Zarr and read from there; see `stage`. `levels/0`, `levels/1` … are the
mask's coarser levels, as far as its tiles make them; see `store_levels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError
from tilesseg.events import TileDone, TileFailed
from tilesseg.formats.zarr.sharded_array import Sharded
from tilesseg.raster.labels import FAILED, SCORE_STEPS
from tilesseg.raster.window import Window
from tilesseg.store.ledger import Ledger, _writing, read_json, write_json
from tilesseg.store.mask_levels import StoredLevels, in_level, make_levels
from tilesseg.store.shard_writer import ShardRows

REFUSED_FILE, FINISHED_FILE = "refused.json", "finished.json"
"""In a scene's folder: why it cannot be segmented; what it came to."""


class Store:
    """One scene's folder: its mask and its ledger. Picklable, safe for several writers of different tiles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)

    @property
    def scene(self) -> str:
        return self.folder.name

    def create(
        self,
        *,
        shape: tuple[int, int],
        shard: int,
        chunk: int,
        fingerprint: str,
        scores: Sequence[str] = (),
        core: tuple[int, int] | None = None,
    ) -> None:
        """Make the folder and an empty mask with levels, `(y, x)` uint8 full of 254; existing ones are kept.

        Where scores are asked for, also `scores.zarr`, `(class, y, x)` in the same way: 0–250 for 0–1.

        Args:
            shape: of the image.
            shard: side of a shard, the unit of writing.
            chunk: side of a chunk, the unit of reading.
            fingerprint: names what the mask is made from. A folder of another fingerprint is made anew where no tile
                is done in it.
            scores: names of the classes whose scores are stored.
            core: sides of the tiles' cores, whole shards; None for one shard.

        Raises:
            StoreError: the folder cannot be written, its tiles were made from something else, or its mask or scores
                are gone and the records of its tiles are not.
        """
        with _writing(self.folder):
            self.ledger.claim(fingerprint)
            self._make(self._mask, partial(Sharded.create, shape=shape, shard=shard, chunk=chunk, fill=FAILED))
            self._make(
                self._levels, partial(make_levels, shape=shape, shard=shard, chunk=chunk, core=core or (shard, shard))
            )
            if scores:
                facts: dict[str, Any] = {"classes": list(scores), "scale": 1 / SCORE_STEPS}
                make = partial(Sharded.create, shape=shape, shard=shard, chunk=chunk, fill=FAILED)
                self._make(self._scores, partial(make, planes=[len(scores)], **facts))

    def _make(self, path: Path, make: Callable[[Path], object]) -> None:
        """Have something made that is full of 254, where it is not there; it appears under its name when complete."""
        if path.exists():
            return
        self._refuse_records(path)
        with published(path, folder=True, replace=False) as temporary:
            make(temporary)

    def _refuse_records(self, path: Path) -> None:
        """An empty array under records of done tiles would be a hole that nobody sees."""
        done = len(self.done_names())
        if done:
            raise StoreError(
                f"{self.folder} has records of {done} tiles and no {path.name}; restore it, or delete "
                f"{self.folder / 'done'} to do the tiles again"
            )

    @cached_property
    def mask(self) -> Sharded:
        """Labels; raises a StoreError where there are none."""
        return self._open(self._mask)

    @cached_property
    def levels(self) -> tuple[Sharded, ...]:
        """Coarser levels of the mask by mode, level 1 first, as far as tiles make them."""
        return StoredLevels(self._levels).arrays()

    @cached_property
    def scores(self) -> Sharded:
        """Stored scores, a plane for each class; raises a StoreError where there are none."""
        return self._open(self._scores)

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes whose scores are stored; none where no scores are."""
        return tuple(map(str, self.scores.facts["classes"])) if self._scores.exists() else ()

    def _open(self, path: Path) -> Sharded:
        try:
            return Sharded.open(path)
        except (OSError, BaseZarrError) as error:
            raise StoreError(f"{self.folder} holds no {path.stem} ({error}); run the job first") from None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the mask."""
        return self.mask.shape

    @property
    def shard(self) -> int:
        """Side of a shard, the unit of writing."""
        return self.mask.shard[0]

    @property
    def chunk(self) -> int:
        """Side of a chunk, the unit of reading."""
        return self.mask.chunk[0]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Labels `(y, x)` of a window inside the image."""
        return self.mask.read(window)

    def read_scores(self, number: int, window: Window) -> NDArray[np.uint8]:
        """Of the stored class of this number, the scores `(y, x)` of a window inside the image."""
        return self.scores.read(window, plane=(number,))

    def mask_rows(self, core: Window) -> ShardRows:
        """Where the labels of a core go, from top to bottom; its share of the levels is made on the way."""
        coarser: ShardRows | None = None
        for number, array in reversed(list(enumerate((self.mask, *self.levels)))):
            coarser = ShardRows(array, in_level(core, number), coarser=coarser)
        assert coarser is not None  # the mask's own
        return coarser

    def core_rows(self, core: Window, *, scores: int = 0) -> tuple[ShardRows, ...]:
        """Where the labels of a core go, and then the scores of each class that is stored."""
        return (self.mask_rows(core), *(ShardRows(self.scores, core, plane=(number,)) for number in range(scores)))

    def clear(self, core: Window) -> None:
        """Put a core back to 254, as if its tile had never run."""
        for number, array in enumerate((self.mask, *self.levels)):
            array.clear(in_level(core, number))
        for number in range(len(self.score_classes)):
            self.scores.clear(core, plane=(number,))

    def mark_done(self, record: TileDone) -> TileDone:
        """Put a tile into the ledger; call it after the last shard."""
        self.ledger.mark_done(record.tile, record)
        return record

    def mark_failed(self, record: TileFailed) -> TileFailed:
        """List a tile as failed; the next run tries it again."""
        self.ledger.mark_failed(record.tile, record)
        return record

    def done_names(self) -> list[str]:
        """Names of the tiles that are stored."""
        return self.ledger.done_names()

    def done(self) -> dict[str, TileDone]:
        """Records of the tiles that are stored, by name."""
        return {name: TileDone(**fields) for name, fields in self.ledger.done().items()}

    def failed(self) -> dict[str, TileFailed]:
        """Records of the tiles that could not be made, by name."""
        return {name: TileFailed(**fields) for name, fields in self.ledger.failed().items()}

    def holds(self, *, scores: bool) -> bool:
        return self._mask.exists() and (not scores or self._scores.exists())

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file of the scene whole or not at all, making its folder where there is none.

        Raises:
            StoreError: it cannot be written.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / name, data)

    def read_json(self, name: str) -> Any:
        """A JSON file of the scene, or None where there is none; a StoreError where it is damaged."""
        return read_json(self.folder / name)

    def remove(self, name: str) -> None:
        """Remove a file of the scene, where there is one."""
        (self.folder / name).unlink(missing_ok=True)

    @property
    def _mask(self) -> Path:
        return self.folder / "mask.zarr"

    @property
    def _levels(self) -> Path:
        return self.folder / "levels"

    @property
    def _scores(self) -> Path:
        return self.folder / "scores.zarr"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "ledger": self.ledger}
