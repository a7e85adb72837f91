"""The tiles of a COG that GDAL has laid out without any.

A COG of nothing but nodata has all of GDAL's layout, and tables of tiles that say 0: not stored. Its tiles are
compressed here, by libdeflate in threads, and go to the end of the file, the coarsest level first; then the tables are
filled in. Around each tile lies what GDAL's layout promises: its size before it (little-endian uint32), its last four
bytes again after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilesseg.errors import FormatError
from tilesseg.formats.cog.level_files import CogLevel
from tilesseg.formats.writer import MaskLevel
from tilesseg.formats.writing.parallel_windows import in_order, windows
from tilesseg.formats.writing.tiff_tiles import cut, encode
from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window

LEADER = 4
"""Bytes before a tile, and after it."""
OFFSETS, COUNTS = 324, 325
"""TIFF's tags."""


def empty_levels(folder: Path, shapes: Sequence[tuple[int, int]]) -> list[CogLevel]:
    """Virtual datasets of nothing but nodata, of the shapes of all levels."""
    levels = [CogLevel(folder / f"empty{number}.vrt", shape, threads=1) for number, shape in enumerate(shapes)]
    for level in levels:
        level.path.write_text(
            f'<VRTDataset rasterXSize="{level.width}" rasterYSize="{level.height}"><VRTRasterBand dataType="Byte" '
            f'band="1"><NoDataValue>{NODATA}</NoDataValue></VRTRasterBand></VRTDataset>',
            encoding="utf-8",
        )
    return levels


def fill(result: Path, levels: Sequence[CogLevel], stored: Sequence[MaskLevel], pool: Executor) -> None:
    """Put the tiles of all levels into a COG that has none, and note in each level which are there.

    Memory: a few windows of 512 × 4096.

    Args:
        result: the COG.
        levels: all of them, finest first.
        stored: what they hold.
        pool: reads and compresses.

    Raises:
        FormatError: the file's layout is not the one expected.
    """
    with tifffile.TiffFile(result) as tiff:
        tables = [_tables(tiff.pages[number].aspage(), result) for number in range(len(tiff.pages))]
    with result.open("r+b") as file:
        for level, own, (offsets, counts) in reversed(list(zip(levels, stored, tables, strict=True))):
            file.seek(0, 2)
            places = np.array([_append(file, tile) for tile in _tiles(own, pool)], np.uint64)
            level.filled = (places[:, 1] > 0).reshape(level.filled.shape)
            _note(file, offsets, places[:, 0])
            _note(file, counts, places[:, 1])


def _tables(page: Any, result: Path) -> tuple[Any, Any]:
    tables = page.tags[OFFSETS], page.tags[COUNTS]
    if np.any(page.dataoffsets) or any(table.dtype not in (3, 4, 16) for table in tables):
        raise FormatError(f"{result.name}: GDAL {page.software or ''} laid it out in a way that is not known")
    return tables


def _tiles(stored: MaskLevel, pool: Executor) -> Iterator[bytes]:
    """Compressed tiles, row by row; nothing for one of nodata."""

    def encoded(window: Window) -> list[bytes]:
        return [b"" if _is_nodata(tile) else encode(tile) for tile in cut(stored.read(window))]

    for tiles in in_order(pool, encoded, windows(stored.shape)):
        yield from tiles


def _is_nodata(tile: NDArray[np.uint8]) -> bool:
    return bool(tile[0, 0] == NODATA and tile.min() == NODATA)  # the first alone says it of most


def _append(file: IO[bytes], tile: bytes) -> tuple[int, int]:
    """Where a tile begins, and its size; zeros for one that is not stored."""
    if not tile:
        return 0, 0
    start = file.tell() + LEADER
    file.write(len(tile).to_bytes(LEADER, "little") + tile + tile[-LEADER:])
    return start, len(tile)


def _note(file: IO[bytes], table: Any, numbers: NDArray[np.uint64]) -> None:
    """Fill in a table.

    Raises:
        FormatError: its numbers are too small for what is to be noted.
    """
    dtype = np.dtype({3: "<u2", 4: "<u4", 16: "<u8"}[int(table.dtype)])
    if len(numbers) != table.count or numbers.max() > np.iinfo(dtype).max:
        raise FormatError(f"{file.name}: a table of {table.count} {dtype} cannot hold {len(numbers)} places of tiles")
    file.seek(table.valueoffset)
    file.write(numbers.astype(dtype).tobytes())
