"""Whether an image is read as it is stored or copied to Zarr first, and how the copy is laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.planning.decode_factor import decode_factor
from tilesseg.store.staged_copy import CopyLayout

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.raster.tiling import Tiling


REGION_BYTES = 64 << 20
"""Size of the raw values that a copying task holds; zarr's copies of one shard come on top."""
CHUNK, SHARD = 512, 2048
"""Largest sides, in pixels, of a chunk and of a shard of a copy."""
FACTOR = 2.0
"""`stage: auto` copies an image of which more than this many pixels would be decoded for each one that is needed."""


def choose_stage(source: Source, tiling: Tiling, asked: str) -> tuple[CopyLayout | None, float]:
    """Whether an image is copied first, and how; and the decoded ÷ needed pixels that say so.

    Needed are the pixels that would be decoded if the image were stored in chunks, as its copy is.

    Args:
        source: the image, reading the bands that the model takes.
        tiling: how it will be read.
        asked: `auto`, `always` or `never`.
    """
    pixel_bytes = _pixel_bytes(source)
    needed = decode_factor(tiling, (CHUNK, CHUNK), pixel_bytes=pixel_bytes)
    factor = decode_factor(tiling, source.storage_block, pixel_bytes=pixel_bytes) / needed
    if asked == "never" or (asked == "auto" and factor <= FACTOR):
        return None, factor
    return copy_layout(source, factor=factor), factor


def copy_layout(source: Source, *, factor: float = 1.0) -> CopyLayout:
    """How an image is copied: regions follow its storage blocks, so that nothing is decoded twice if memory allows."""
    (height, width), (block_height, block_width) = source.grid.shape, source.storage_block
    pixels = max(1, REGION_BYTES // _pixel_bytes(source))
    if block_width < width:
        side = CHUNK * max(1, min(SHARD, int(pixels**0.5)) // CHUNK)
        return CopyLayout(factor, (side, side), (side, side), (CHUNK, CHUNK))
    rows = max(64, pixels // width)  # of the full width
    chunk = min(CHUNK, 1 << (rows.bit_length() - 1))
    tall = chunk * max(1, min(rows, SHARD) // chunk)
    shard = tall, CHUNK * max(1, min(SHARD, width) // CHUNK)
    streamed = block_height > rows  # by one task, or each would decode what lies above it
    return CopyLayout(factor, (height, width) if streamed else (tall, width), shard, (chunk, CHUNK))


def _pixel_bytes(source: Source) -> int:
    """Bytes of one raw pixel, all bands of the image together: they are usually stored, and decoded, together."""
    return sum(dtype.itemsize for dtype in source.raw_dtypes)
