"""Staging: an image that cannot be read well by window is copied to Zarr once, in parallel, and read from there.

The copy is cut into *regions*, each a whole number of shards that one task alone writes, and it has a ledger of its
own: what a killed run has copied is not copied again. Overlapping tiles are windows on the copy; overlap is never
stored twice.
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

from tilesseg.decoding import decode_factor
from tilesseg.events import RegionStaged
from tilesseg.formats import Raw
from tilesseg.formats.geozarr.staged import StagedWriter, create_staged, open_staged
from tilesseg.ledger import Ledger
from tilesseg.locks import this_process
from tilesseg.segment import peak_mb
from tilesseg.window import Window

if TYPE_CHECKING:
    from tilesseg.formats import Source
    from tilesseg.tiling import Tiling

FACTOR = 2.0
"""`stage: auto` copies an image of which more than this many pixels would be decoded for each one that is needed."""
REGION_BYTES = 64 << 20
"""Of raw values that a task holds; zarr's copies of one shard come on top."""
SHARD_COPIES = 4
"""How often zarr has a shard in memory while it encodes and writes it; for estimates."""
CHUNK, SHARD = 512, 2048
IMAGE = "image.zarr"


@dataclass(frozen=True, slots=True)
class StageLayout:
    """How a copy is stored, and what one task copies."""

    factor: float
    """Decoded ÷ needed pixels, were the image read as it is."""
    region: tuple[int, int]
    """Height and width of what one task copies; the whole image where it is streamed from its beginning."""
    shard: tuple[int, int]
    chunk: tuple[int, int]

    def regions(self, shape: tuple[int, int]) -> list[Region]:
        """All regions of an image, row by row."""
        rows, columns = ceil(shape[0] / self.region[0]), ceil(shape[1] / self.region[1])
        return [self.at(shape, row, column) for row in range(rows) for column in range(columns)]

    def named(self, shape: tuple[int, int], name: str) -> Region:
        """The region called `r000-c001`."""
        row, column = name[1:].split("-c")
        return self.at(shape, int(row), int(column))

    def at(self, shape: tuple[int, int], row: int, column: int) -> Region:
        height, width = self.region
        window = Window(row * height, column * width, height, width).intersect(Window(0, 0, *shape))
        return Region(f"r{row:03d}-c{column:03d}", window)


@dataclass(frozen=True, slots=True)
class Region:
    """The pixels that one staging task copies."""

    name: str
    window: Window


def choose_stage(source: Source, tiling: Tiling, asked: str) -> tuple[StageLayout | None, float]:
    """Whether an image is copied first, and how; and the decoded ÷ needed pixels that say so.

    Needed are the pixels that would be decoded if the image were stored in chunks, as its copy is.

    Args:
        source: the image, reading the bands that the model takes.
        tiling: how it will be read.
        asked: `auto`, `always` or `never`.
    """
    pixel_bytes = _pixel_bytes(source)
    needed = decode_factor(tiling, (CHUNK, CHUNK), pixel_bytes=pixel_bytes)
    factor = decode_factor(tiling, source.cell, pixel_bytes=pixel_bytes) / needed
    if asked == "never" or (asked == "auto" and factor <= FACTOR):
        return None, factor
    return stage_layout(source, factor=factor), factor


def stage_layout(source: Source, *, factor: float = 1.0) -> StageLayout:
    """How an image is copied: regions follow its storage cells, so that nothing is decoded twice if memory allows."""
    (height, width), (cell_height, cell_width) = source.grid.shape, source.cell
    pixels = max(1, REGION_BYTES // _pixel_bytes(source))
    if cell_width < width:
        side = CHUNK * max(1, min(SHARD, int(pixels**0.5)) // CHUNK)
        return StageLayout(factor, (side, side), (side, side), (CHUNK, CHUNK))
    rows = max(64, pixels // width)  # of the full width
    chunk = min(CHUNK, 1 << (rows.bit_length() - 1))
    tall = chunk * max(1, min(rows, SHARD) // chunk)
    shard = tall, CHUNK * max(1, min(SHARD, width) // CHUNK)
    streamed = cell_height > rows  # by one task, or each would decode what lies above it
    return StageLayout(factor, (height, width) if streamed else (tall, width), shard, (chunk, CHUNK))


def _pixel_bytes(source: Source) -> int:
    """Bytes of one raw pixel, all bands of the image together: they are usually stored, and decoded, together."""
    return sum(dtype.itemsize for dtype in source.raw_dtypes)


class Stage:
    """The folder of one copy: the Zarr and its ledger. Picklable; regions may be written from several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger(folder)

    @property
    def image(self) -> Path:
        return self.folder / IMAGE

    def create(self, *, source: Source, layout: StageLayout) -> None:
        """Make the folder with an empty copy; one that was begun from the same image is kept, any other replaced.

        Raises:
            StoreError: it cannot be written.
        """
        fingerprint = _fingerprint(source, layout)
        if self.ledger.fingerprint != fingerprint or not self.image.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.ledger.claim(fingerprint)
            create_staged(self.image, source=source, shard=layout.shard, chunk=layout.chunk)

    def missing(self, layout: StageLayout, shape: tuple[int, int]) -> list[Region]:
        """Regions that are still to be copied, those that failed before too."""
        done = set(self.ledger.done_names())
        return [region for region in layout.regions(shape) if region.name not in done]

    def open(self, layout: StageLayout) -> Source:
        """The copy as a source. What could not be copied cannot be read from it either, for the same reason."""
        source = open_staged(self.image)
        failed = self.ledger.failed()
        holes = tuple(
            (layout.named(source.grid.shape, name).window, str(fields["reason"])) for name, fields in failed.items()
        )
        return source.with_holes(holes) if holes else source

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def stage_region(region: Region, *, source: Source, stage: Stage, layout: StageLayout, scene: str) -> RegionStaged:
    """Copy one region. Safe to do twice.

    Raises:
        SourceError: its pixels cannot be read.
    """
    begun, writer = time.perf_counter(), StagedWriter(stage.image)
    for y, raw in _bands(region, source, layout):
        writer.write(y, region.window.x, raw)
    record = RegionStaged(
        scene=scene,
        region=region.name,
        pixels=region.window.area,
        seconds=round(time.perf_counter() - begun, 3),
        peak_mb=peak_mb(),
        worker=this_process(),
    )
    stage.ledger.mark_done(region.name, record)
    return record


def _bands(region: Region, source: Source, layout: StageLayout) -> Iterator[tuple[int, Raw]]:
    """What a region holds, in rows of shards from top to bottom."""
    height = layout.shard[0]
    if layout.region[0] == height:
        yield region.window.y, source.read_raw(region.window)
        return
    for number, raw in enumerate(source.rows(height)):
        yield number * height, raw


def _fingerprint(source: Source, layout: StageLayout) -> str:
    """Names exactly what a copy is made of."""
    made_from: dict[str, Any] = {
        "identity": source.identity(),
        "describe": source.describe(),
        "selected": list(source.selected),
        "shape": source.grid.shape,
        "layout": [layout.region, layout.shard, layout.chunk],
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()
