"""Tiles of a COG that GDAL has laid out without tiles.

A COG of nodata alone has all of GDAL's layout, and tables in which every tile is 0, not stored. Its tiles are
compressed here, by libdeflate in threads, and appended to the file, the coarsest level first; then the tables are
filled in. GDAL's layout promises a leader and a trailer of each tile: its size (little-endian uint32), and its last
four bytes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Any

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.cog.level_files import CogLevel
from tilesseg.formats.writer import MaskLevel
from tilesseg.formats.writing.tiff_tiles import cut, encode, in_order, windows
from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window

LEADER = 4
"""Number of bytes before a tile, and after it."""
OFFSETS, COUNTS = 324, 325
"""Tags of TIFF for the offsets and the sizes of tiles."""


def empty_levels(folder: Path, shapes: Sequence[tuple[int, int]]) -> list[CogLevel]:
    """Virtual datasets of nodata alone, in the shapes of all levels."""
    levels = [CogLevel(folder / f"empty{number}.vrt", shape, threads=1) for number, shape in enumerate(shapes)]
    for level in levels:
        level.path.write_text(
            f'<VRTDataset rasterXSize="{level.width}" rasterYSize="{level.height}"><VRTRasterBand dataType="Byte" '
            f'band="1"><NoDataValue>{NODATA}</NoDataValue></VRTRasterBand></VRTDataset>',
            encoding="utf-8",
        )
    return levels


def fill(result: Path, levels: Sequence[CogLevel], stored: Sequence[MaskLevel], pool: Executor) -> None:
    """Write the tiles of all levels into a COG without tiles, and set in each level which tiles are stored.

    Memory: a few windows of 512 × 4096.

    Args:
        result: the COG.
        levels: all levels of the COG, finest first.
        stored: labels of the same levels.
        pool: threads that read and compress.

    Raises:
        FormatError: the layout of the file is unknown.
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
        made_by = f"GDAL {rasterio.__gdal_version__} makes files of a layout that is not known"
        raise FormatError(cannot(f"write {result.name}", made_by, "take another version, or the format ome-tiff"))
    return tables


def _tiles(stored: MaskLevel, pool: Executor) -> Iterator[bytes]:
    """Compressed tiles, row by row; empty for a tile of nodata."""

    def encoded(window: Window) -> list[bytes]:
        return [b"" if _is_nodata(tile) else encode(tile) for tile in cut(stored.read(window))]

    for tiles in in_order(pool, encoded, windows(stored.shape)):
        yield from tiles


def _is_nodata(tile: NDArray[np.uint8]) -> bool:
    return bool(tile[0, 0] == NODATA and tile.min() == NODATA)  # the first pixel decides for most tiles


def _append(file: IO[bytes], tile: bytes) -> tuple[int, int]:
    """Offset and size of a tile after it is appended; zeros for an empty tile, which is not stored."""
    if not tile:
        return 0, 0
    start = file.tell() + LEADER
    file.write(len(tile).to_bytes(LEADER, "little") + tile + tile[-LEADER:])
    return start, len(tile)


def _note(file: IO[bytes], table: Any, numbers: NDArray[np.uint64]) -> None:
    """Fill in a table of offsets or sizes.

    Raises:
        FormatError: the numbers do not fit into the table.
    """
    dtype = np.dtype({3: "<u2", 4: "<u4", 16: "<u8"}[int(table.dtype)])
    if len(numbers) != table.count or numbers.max() > np.iinfo(dtype).max:
        cause = f"a table of {table.count} {dtype} has no room for the places of {len(numbers)} tiles"
        raise FormatError(cannot(f"write {file.name}", cause, "choose the format ome-tiff"))
    file.seek(table.valueoffset)
    file.write(numbers.astype(dtype).tobytes())
