"""How often an image's pixels are decoded when its tiles are read as it is stored. Pure arithmetic.

One pixel costs its whole storage block: a TIFF's tile, a strip, or the whole image where it is one compressed strip.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilesseg.raster.tiling import Tiling

CACHE = 32 << 20
"""Bytes of decoded blocks that one tile can count on finding again: half of the 64 MB that GDAL keeps in a process."""


def decode_factor(tiling: Tiling, block: tuple[int, int], *, pixel_bytes: int) -> float:
    """Decoded pixels ÷ pixels of the image, over all reads of all tiles.

    A row of blocks as wide as a tile reads is decoded once for all of the tile's rows of patches if it fits into
    `CACHE`, else for each of them. What two tiles share is decoded by both, unless the whole image fits.

    Args:
        tiling: how the image is cut.
        block: height and width of what is decoded at once.
        pixel_bytes: bytes of one pixel, all bands of the file together.
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
    """From where to where the rows of patches of a tile are read."""
    windows = [patches.window for patches in tiling.tile(row, 0).patch_rows]
    return [(max(0, window.y), min(tiling.shape[0], window.y_stop)) for window in windows]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(min(start for start, _ in spans), max(stop for _, stop in spans))]


def _decoded(spans: Iterable[tuple[int, int]], block: int, size: int) -> int:
    """Length that is decoded to read each of the spans by itself, in blocks of `block`."""
    return sum(min(size, -(-stop // block) * block) - start // block * block for start, stop in spans)
