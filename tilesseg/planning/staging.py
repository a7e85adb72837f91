"""Staging: whether an image is read directly or copied to Zarr first, by its read amplification; layout of the copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tilesseg.store.staged_copy import CopyLayout

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.raster.tiling import Tiling


REGION_BYTES = 64 << 20
"""Size of the raw values that a copying task holds; zarr's copies of one shard come on top."""
CHUNK, SHARD = 512, 2048
"""Largest sides, in pixels, of a chunk and of a shard of a copy."""
FACTOR = 2.0
"""Read amplification above which `stage: auto` copies an image."""
CACHE = 32 << 20
"""Number of bytes of decoded blocks that stay in memory for a tile: half of the 64 MB that GDAL keeps in a process."""


def choose_stage(source: Source, tiling: Tiling, option: str) -> tuple[CopyLayout | None, float]:
    """Layout of an image's copy, or None where it is read directly; and the read amplification that decides.

    Decoded pixels are divided by those that would be decoded if the image were stored in chunks, as its copy is.

    Args:
        source: the image, reading the bands that the model takes.
        tiling: the tiling with which the image will be read.
        option: `auto`, `always` or `never`.
    """
    pixel_bytes = _pixel_bytes(source)
    needed = decode_factor(tiling, (CHUNK, CHUNK), pixel_bytes=pixel_bytes)
    factor = decode_factor(tiling, source.storage_block, pixel_bytes=pixel_bytes) / needed
    if option == "never" or (option == "auto" and factor <= FACTOR):
        return None, factor
    return copy_layout(source, factor=factor), factor


def copy_layout(source: Source, *, factor: float = 1.0) -> CopyLayout:
    """Layout of a copy: its regions follow the image's storage blocks, to decode nothing twice if memory allows."""
    (height, width), (block_height, block_width) = source.grid.shape, source.storage_block
    pixels = max(1, REGION_BYTES // _pixel_bytes(source))
    if block_width < width:
        side = CHUNK * max(1, min(SHARD, int(pixels**0.5)) // CHUNK)
        return CopyLayout(factor, (side, side), (side, side), (CHUNK, CHUNK))
    rows = max(64, pixels // width)  # of the full width
    chunk = min(CHUNK, 1 << (rows.bit_length() - 1))
    tall = chunk * max(1, min(rows, SHARD) // chunk)
    shard = tall, CHUNK * max(1, min(SHARD, width) // CHUNK)
    streamed = block_height > rows  # by a single task, for each would decode all rows above its own
    return CopyLayout(factor, (height, width) if streamed else (tall, width), shard, (chunk, CHUNK))


def _pixel_bytes(source: Source) -> int:
    """Number of bytes of a raw pixel, all bands together: they are usually stored, and decoded, together."""
    return sum(dtype.itemsize for dtype in source.raw_dtypes)


def decode_factor(tiling: Tiling, block: tuple[int, int], *, pixel_bytes: int) -> float:
    """Read amplification: decoded pixels ÷ pixels of the image, over all reads of all tiles. Pure arithmetic.

    A pixel costs its whole storage block: a TIFF's tile, a strip, or the whole image if it is one compressed strip.
    A row of blocks as wide as a tile reads is decoded once for all of the tile's rows of patches if it fits into
    `CACHE`, else for each of them. Pixels that two tiles share are decoded by both, unless the whole image fits.

    Args:
        tiling: the tiling of the image.
        block: height and width of a storage block.
        pixel_bytes: number of bytes of a pixel, all bands of the file together.
    """
    height, width = tiling.shape
    block = min(block[0], height), min(block[1], width)
    if height * width * pixel_bytes <= CACHE:
        return 1.0
    spans = [(tile.outer.x, tile.outer.x_stop) for tile in (tiling.tile(0, k) for k in range(tiling.columns))]
    rows = [_row_spans(tiling, row) for row in range(tiling.rows)]
    decoded = 0
    for span in spans:
        across = _decoded([span], block[1], width)
        kept = block[0] * across * pixel_bytes <= CACHE
        decoded += across * sum(_decoded(_joined(row) if kept else row, block[0], height) for row in rows)
    return decoded / (height * width)


def _row_spans(tiling: Tiling, row: int) -> list[tuple[int, int]]:
    """Start and stop of the image rows that each row of patches reads."""
    windows = [patches.window for patches in tiling.tile(row, 0).patch_rows]
    return [(max(0, window.y), min(tiling.shape[0], window.y_stop)) for window in windows]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(min(start for start, _ in spans), max(stop for _, stop in spans))]


def _decoded(spans: Iterable[tuple[int, int]], block: int, size: int) -> int:
    """Length that is decoded to read each span by itself, in blocks of `block`."""
    return sum(min(size, -(-stop // block) * block) - start // block * block for start, stop in spans)
