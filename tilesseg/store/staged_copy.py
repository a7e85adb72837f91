"""Staged copy: an image that is slow to read by window is copied to Zarr once, in parallel, and read from there.

The copy is divided into *regions*, each a whole number of shards that one task alone writes, and has a ledger of its
own: regions that a killed run has copied are not copied again. Overlapping tiles are windows on the copy; overlap is
never stored twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import SourceError
from tilesseg.events import RegionStaged
from tilesseg.formats.damage import Damage, DamageRecord, is_damage
from tilesseg.formats.geozarr.staged_source import StagedWriter, create_staged, open_staged
from tilesseg.formats.source import Raw
from tilesseg.process import peak_mb, this_process
from tilesseg.raster.tiling import tile_name, tile_position
from tilesseg.raster.window import Window
from tilesseg.store.ledger import Ledger

if TYPE_CHECKING:
    from tilesseg.formats.source import Source

SHARD_COPIES = 4
"""Number of copies of a shard that zarr has in memory while it writes the shard; for estimates."""
IMAGE = "image.zarr"


@dataclass(frozen=True, slots=True)
class CopyLayout:
    """Layout of a copy: the sides of its shards and chunks, and of the regions that one task copies."""

    factor: float
    """Decoded ÷ needed pixels, if the image were read without a copy."""
    region: tuple[int, int]
    """Height and width of a region; the whole image where it is streamed from its beginning."""
    shard: tuple[int, int]
    chunk: tuple[int, int]

    def regions(self, shape: tuple[int, int]) -> list[CopyRegion]:
        """All regions of an image, row by row."""
        rows, columns = ceil(shape[0] / self.region[0]), ceil(shape[1] / self.region[1])
        return [self.at(shape, row, column) for row in range(rows) for column in range(columns)]

    def named(self, shape: tuple[int, int], name: str) -> CopyRegion:
        """Region of a name such as `r000-c001`."""
        return self.at(shape, *tile_position(name))

    def at(self, shape: tuple[int, int], row: int, column: int) -> CopyRegion:
        height, width = self.region
        window = Window(row * height, column * width, height, width).intersect(Window(0, 0, *shape))
        return CopyRegion(tile_name(row, column), window)


@dataclass(frozen=True, slots=True)
class CopyRegion:
    """Pixels that one task copies."""

    name: str
    window: Window


class StagedCopy:
    """Folder of one copy: the Zarr and its ledger. Picklable; several processes may write different regions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)

    @property
    def image(self) -> Path:
        return self.folder / IMAGE

    def create(self, *, source: Source, layout: CopyLayout) -> None:
        """Make the folder with an empty copy; a copy of the same image that was begun is kept, any other replaced.

        Raises:
            StoreError: the folder cannot be written.
        """
        fingerprint = _fingerprint(source, layout)
        if self.ledger.fingerprint != fingerprint or not self.image.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.ledger.claim(fingerprint)
            create_staged(self.image, source=source, shard=layout.shard, chunk=layout.chunk)

    def missing(self, layout: CopyLayout, shape: tuple[int, int]) -> list[CopyRegion]:
        """Regions that remain to be copied, including those that failed before."""
        done = set(self.ledger.done_names())
        return [region for region in layout.regions(shape) if region.name not in done]

    def open(self, layout: CopyLayout) -> Source:
        """The copy as a source. Regions that could not be copied cannot be read from it either, for the same reason."""
        shape, failed = open_staged(self.image).grid.shape, self.ledger.failed()
        holes = [(layout.named(shape, name).window, str(fields["reason"])) for name, fields in failed.items()]
        return open_staged(self.image, holes, self.damage())

    def damage(self) -> list[Damage]:
        """Damage of the image that the copied regions met."""
        fields = ("damaged", "coarser", "damage")
        records = [DamageRecord(*(record.get(key, ()) for key in fields)) for record in self.ledger.done().values()]
        return list(dict.fromkeys(one for record in records for one in record.windows()))

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def copy_region(
    region: CopyRegion, *, source: Source, copy: StagedCopy, layout: CopyLayout, scene: str
) -> RegionStaged:
    """Copy one region, damaged pixels as they can be had, with a record of them. Safe to do twice.

    Raises:
        SourceError: the pixels of the region cannot be read.
    """
    begun, writer = time.perf_counter(), StagedWriter(copy.image)
    damage: list[Damage] = []
    for y, raw in _shard_rows(region, source, layout, damage):
        writer.write(y, region.window.x, raw)
    record = RegionStaged(
        scene=scene,
        region=region.name,
        pixels=region.window.area,
        seconds=round(time.perf_counter() - begun, 3),
        peak_mb=peak_mb(),
        worker=this_process(),
        **DamageRecord.of(damage)._asdict(),
    )
    copy.ledger.mark_done(region.name, record)
    return record


def _shard_rows(
    region: CopyRegion, source: Source, layout: CopyLayout, damage: list[Damage]
) -> Iterator[tuple[int, Raw]]:
    """Raw values of a region with their first row, in rows of shards from top to bottom; damage is added to a list."""
    height = layout.shard[0]
    if layout.region[0] == height:
        yield region.window.y, _read_sound(region.window, source, damage)
        return
    for number, raw in enumerate(source.rows(height)):
        yield number * height, raw


def _read_sound(window: Window, source: Source, damage: list[Damage]) -> Raw:
    """Raw values of a window, as far as they can be decoded."""
    try:
        return source.read_raw(window)
    except SourceError as error:
        if not is_damage(error):
            raise
    raw, found = source.salvage_raw(window)
    damage += found
    return raw


def _fingerprint(source: Source, layout: CopyLayout) -> str:
    """Hash of the image's state and of the layout, which changes with each of them."""
    made_from: dict[str, Any] = {
        "identity": source.identity(),
        "describe": source.describe(),
        "selected": list(source.selected),
        "shape": source.grid.shape,
        "layout": [layout.region, layout.shard, layout.chunk],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
