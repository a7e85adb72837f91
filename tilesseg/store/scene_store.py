"""Store of one scene in the run directory: its mask, its scores and its ledger.

The run directory is the truth of a run; the state of Dask is disposable.

    RUN/  job.yaml  plan.json  scenes.jsonl  events.jsonl  summary.json  summary.csv  report.html
          scenes/<scene>/  plan.json | refused.json  mask.zarr  levels/  scores.zarr?  done/r012-c034.json
                           failed/r003-c007.json  finished.json  staged/

`staged/` exists while tiles read the image from a copy in Zarr; see `staged_copy`. `levels/0`, `levels/1` … are those
coarser levels of the mask that its tiles make; see `mask_levels`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.atomic_write import published
from tilesseg.errors import StoreError, cannot
from tilesseg.events import TileDone, TileFailed
from tilesseg.formats.zarr.shard_sum import Sums
from tilesseg.formats.zarr.sharded_array import UNREADABLE, Sharded
from tilesseg.raster.labels import FAILED, SCORE_STEPS
from tilesseg.raster.window import Window
from tilesseg.store.ledger import Ledger, read_json, writable, write_json
from tilesseg.store.mask_levels import StoredLevels, in_level, make_levels
from tilesseg.store.shard_checks import StoredPlane, altered_shards, sums_of
from tilesseg.store.shard_writer import ShardRows

if TYPE_CHECKING:
    from tilesseg.raster.tiling import Tiling

REFUSED_FILE, FINISHED_FILE = "refused.json", "finished.json"
"""Files in a scene's folder: the reason for which it cannot be segmented; the results of the finished scene."""


class Store:
    """Folder of one scene, with its mask and its ledger. Picklable; several processes may write different tiles.

    Args:
        folder: the scene's folder in the run directory.
        generation: number of the execution that writes, for its records; 0: unknown.
        blank: cores that read as 254 in mask, levels and scores, whatever is stored there.
        sums: what shards should hold, by array; a shard with another content is refused when it is read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        generation: int = 0,
        blank: tuple[Window, ...] = (),
        sums: Mapping[str, Sums] | None = None,
    ) -> None:
        self.folder, self.generation, self.blank, self.sums = folder, generation, blank, sums or {}
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
        """Make the folder and a mask with levels, `(y, x)` uint8 full of 254; existing ones are kept.

        If scores are requested, also `scores.zarr`, `(class, y, x)` in the same way: 0–250 for 0–1.

        Args:
            shape: height and width of the image.
            shard: side of a shard, the unit of writing.
            chunk: side of a chunk, the unit of reading.
            fingerprint: hash of the plan and the image. A folder of another fingerprint is made anew if no tile is done
                in it.
            scores: names of the classes whose scores are stored.
            core: sides of the tiles' cores, whole shards; None for one shard.

        Raises:
            StoreError: the folder cannot be written, its tiles belong to another plan or image, or its mask or scores
                are missing while records of its tiles exist.
        """
        with writable(self.folder):
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
        """Have an array or a folder of arrays made, if it does not exist; it appears under its name when complete."""
        if path.exists():
            return
        self._refuse_records(path)
        with published(path, folder=True, replace=False) as temporary:
            make(temporary)

    def _refuse_records(self, path: Path) -> None:
        """Refuse to make an empty array under records of done tiles: its pixels would be lost without a word."""
        done = len(self.done_names())
        if done:
            raise StoreError(
                f"{self.folder} has records of {done} tiles and no {path.name}; restore that, or delete "
                f"{self.folder / 'done'} to do the tiles again"
            )

    @cached_property
    def mask(self) -> Sharded:
        """Array of the labels; raises a StoreError where it does not exist."""
        return replace(self._open(self._mask), blank=self.blank, sums=self.sums.get("mask", {}))

    @cached_property
    def levels(self) -> tuple[Sharded, ...]:
        """Arrays of the coarser levels that tiles make, by mode, level 1 first."""
        return tuple(
            replace(
                array,
                blank=tuple(in_level(core, number + 1) for core in self.blank),
                sums=self.sums.get(f"levels/{number}", {}),
            )
            for number, array in enumerate(StoredLevels(self._levels).arrays())
        )

    @cached_property
    def scores(self) -> Sharded:
        """Array of the stored scores, a plane for each class; raises a StoreError where it does not exist."""
        return replace(self._open(self._scores), blank=self.blank, sums=self.sums.get("scores", {}))

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes whose scores are stored."""
        return tuple(map(str, self.scores.facts["classes"])) if self._scores.exists() else ()

    def _open(self, path: Path) -> Sharded:
        try:
            return Sharded.open(path)
        except UNREADABLE as error:
            raise StoreError(cannot(f"open {path.stem} in {self.folder}", error, "run the job first")) from None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the mask."""
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
        """Scores `(y, x)` of the stored class `number` in a window inside the image."""
        return self.scores.read(window, plane=(number,))

    def mask_rows(self, core: Window) -> ShardRows:
        """Writer of a core's labels, to be given from top to bottom; it makes the core's part of the levels too."""
        coarser: ShardRows | None = None
        for number, array in reversed(list(enumerate((self.mask, *self.levels)))):
            coarser = ShardRows(
                array, in_level(core, number), name=f"levels/{number - 1}" if number else "mask", coarser=coarser
            )
        assert coarser is not None  # the rows of the mask itself
        return coarser

    def core_rows(self, core: Window, *, scores: int = 0) -> tuple[ShardRows, ...]:
        """Writers of a core's labels and of the scores of each of its stored classes."""
        planes = (ShardRows(self.scores, core, name=f"scores/{number}", plane=(number,)) for number in range(scores))
        return (self.mask_rows(core), *planes)

    def of_done_tiles(self, tiling: Tiling) -> Store:
        """The same folder, whose pixels count as the ledger vouches for them.

        Without a `done` record a core is 254, and a shard is read only if it is the one that its tile's record
        describes. A failed attempt leaves what it has written: an attempt of an earlier run may fail after a later run
        did the tile, and must not take its pixels away.
        """
        done = self.done()
        blank = tuple(tile.core for tile in tiling if tile.name not in done)
        return Store(self.folder, generation=self.generation, blank=blank, sums=sums_of(done, tiling, self.planes()))

    def altered(self, records: Mapping[str, TileDone], tiling: Tiling, *, by_bytes: bool = False) -> dict[str, str]:
        """Problems of the done tiles whose shards are missing, torn or, where bytes are compared, altered.

        Args:
            records: records of tiles.
            tiling: tiles of the scene.
            by_bytes: whether all bytes are read; else the sizes of files are compared.
        """
        problems: dict[str, str] = {}
        for shard in altered_shards(self.folder, self.planes(), records, tiling, by_bytes=by_bytes):
            problems.setdefault(shard.tile, f"{shard.path.relative_to(self.folder)}: {shard.problem}")
        return problems

    def forget_altered(self, tiling: Tiling, *, by_bytes: bool = False) -> dict[str, str]:
        """Forget the done tiles that `altered` finds, so that they are done again; returns their problems."""
        problems = self.altered(self.done(), tiling, by_bytes=by_bytes)
        if problems:
            self.remove(FINISHED_FILE)  # first: products of these tiles must not count as finished
        for name in problems:
            self.ledger.forget(name)
        return problems

    def within(self, window: Window) -> Store:
        """Mask and levels, the folder an absolute path, with what is known of the shards in a window of the mask."""
        blank = tuple(core for core in self.blank if core.touches(window))
        sums: dict[str, Sums] = {}
        for name, plane in self.planes().items() if self.sums else ():
            known = {} if plane.plane else self.sums.get(name, {})
            sums[name] = {numbers: known[numbers] for numbers in plane.numbers(window) if numbers in known}
        return Store(self.folder.absolute(), generation=self.generation, blank=blank, sums=sums)

    def planes(self) -> dict[str, StoredPlane]:
        """Planes of all arrays that can be opened, by their names in records."""
        planes: dict[str, StoredPlane] = {}
        with suppress(StoreError):
            planes["mask"] = StoredPlane(self.mask)
        with suppress(*UNREADABLE):
            planes |= {f"levels/{n}": StoredPlane(array, n + 1) for n, array in enumerate(self.levels)}
        with suppress(StoreError):
            planes |= {f"scores/{n}": StoredPlane(self.scores, plane=(n,)) for n in range(len(self.score_classes))}
        return planes

    def mark_done(self, record: TileDone) -> TileDone:
        """Record that a tile is done; to be called after its last shard is written."""
        record = replace(record, generation=self.generation)
        self.ledger.mark_done(record.tile, record)
        return record

    def mark_failed(self, record: TileFailed) -> TileFailed:
        """Record that a tile failed; the next execution tries it again."""
        record = replace(record, generation=self.generation)
        self.ledger.mark_failed(record.tile, record)
        return record

    def done_record(self, tile: str) -> TileDone | None:
        """Record of a tile, or None where it is not done."""
        fields = self.ledger.record(tile)
        return None if fields is None else TileDone(**fields)

    def done_names(self) -> list[str]:
        """Names of the tiles that are done."""
        return self.ledger.done_names()

    def done(self) -> dict[str, TileDone]:
        """Records of the tiles that are done, by name."""
        return {name: TileDone(**fields) for name, fields in self.ledger.done().items()}

    def failed(self) -> dict[str, TileFailed]:
        """Records of the tiles that failed, by name."""
        return {name: TileFailed(**fields) for name, fields in self.ledger.failed().items()}

    def holds(self, *, scores: bool) -> bool:
        """Whether the mask exists, and the scores too if they are requested."""
        return self._mask.exists() and (not scores or self._scores.exists())

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file of the scene whole or not at all, and make the scene's folder where it does not exist.

        Raises:
            StoreError: the file cannot be written, or the run directory is gone.
        """
        with writable(self.folder):
            for folder in (
                self.folder.parent,
                self.folder,
            ):  # and not the run directory, which somebody may have removed
                folder.mkdir(exist_ok=True)
            write_json(self.folder / name, data)

    def read_json(self, name: str) -> Any:
        """Content of a JSON file of the scene, or None where it does not exist; a StoreError where it is damaged."""
        return read_json(self.folder / name)

    def remove_unreadable(self) -> None:
        """Remove the arrays that cannot be opened, where no tile is done: `create` makes them anew."""
        if self.done_names():
            return
        for path, opened in ((self._mask, "mask"), (self._levels, "levels"), (self._scores, "scores")):
            try:
                getattr(self, opened)
            except (StoreError, *UNREADABLE):
                shutil.rmtree(path, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove a file of the scene, where it exists."""
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
        return {name: getattr(self, name) for name in ("folder", "ledger", "generation", "blank", "sums")}
