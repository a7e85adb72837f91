"""Levels of a COG, each in a temporary TIFF, the check of the finished COG, and the limit of GDAL's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import tifffile
from numpy.typing import NDArray
from rasterio.env import get_gdal_config, set_gdal_config

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.writing.tiff_tiles import SIDE
from tilesseg.raster.labels import NODATA
from tilesseg.raster.pyramid import level_shapes
from tilesseg.raster.window import Window

CACHE_BYTES = 64 * 2**20


def shapes_of(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels; a level that fits into a TIFF tile is the last.

    Readers distinguish levels by their widths, so a level of one pixel's width is the last, too.
    """
    shapes = level_shapes(shape, smallest=SIDE)
    return [shapes[0], *(coarser for finer, coarser in pairwise(shapes) if finer[1] > 1)]


class CogLevel:
    """A level of the pyramid in a temporary TIFF, written in whole TIFF tiles, each of them once."""

    def __init__(self, path: Path, shape: tuple[int, int], *, threads: int) -> None:
        self.path = path
        self.height, self.width = shape
        self.filled = np.zeros((-(-self.height // SIDE), -(-self.width // SIDE)), np.bool_)
        """TIFF tiles with other pixels than nodata; only these are stored."""
        self._threads = threads
        self._waiting = np.empty((min(SIDE, self.height), self.width), np.uint8)
        self._rows = self._y = 0

    def open(self) -> None:
        # Any transform will do, the VRT has the true one; none at all makes rasterio warn.
        self._file = rasterio.open(
            self.path, "w", driver="GTiff", dtype="uint8", count=1, height=self.height, width=self.width,
            nodata=NODATA, transform=rasterio.Affine.scale(2.0), tiled=True, blockxsize=SIDE, blockysize=SIDE,
            compress="zstd", zstd_level=1, num_threads=self._threads, sparse_ok=True, bigtiff="if_safer",
        )  # fmt: skip

    def write(self, window: Window, values: NDArray[np.uint8]) -> None:
        """Store the values of a window of whole TIFF tiles."""
        lowest = np.minimum.reduceat(values.min(axis=0), np.arange(0, window.width, SIDE))
        self.filled[window.y // SIDE, window.x // SIDE : window.x // SIDE + len(lowest)] = lowest != NODATA
        self._file.write(values, 1, window=((window.y, window.y_stop), (window.x, window.x_stop)))

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Take the next rows of the level."""
        while len(rows):
            taken, rows = np.split(rows, [SIDE - self._rows])
            if len(taken) < SIDE:
                self._waiting[self._rows : self._rows + len(taken)] = taken
                self._rows += len(taken)
            if len(taken) == SIDE:
                self._write_rows(taken)
            elif self._rows == SIDE or self._y + self._rows == self.height:
                self._write_rows(self._waiting[: self._rows])
                self._rows = 0

    def _write_rows(self, rows: NDArray[np.uint8]) -> None:
        self.write(Window(self._y, 0, *rows.shape), rows)
        self._y += len(rows)

    def close(self) -> None:
        self._file.close()


def refuse_holes(result: Path, layers: Sequence[Sequence[CogLevel]]) -> None:
    """Check that each TIFF tile with values is stored whole: GDAL may not report a full disk when it closes a file.

    Raises:
        FormatError: a level or a tile is missing.
    """
    size, shapes = result.stat().st_size, [(level.height, level.width) for level in layers[0]]
    with tifffile.TiffFile(result) as tiff:
        pages = [tiff.pages[k].aspage() for k in range(len(tiff.pages))]
        if [(page.imagelength, page.imagewidth) for page in pages] != shapes:
            cause = "its levels are not those of the mask"
            raise FormatError(cannot(f"write {result.name}", cause, "check whether the disk is full"))
        for page, levels in zip(pages, zip(*layers, strict=True), strict=True):
            counts, offsets = np.asarray(page.databytecounts), np.asarray(page.dataoffsets)
            filled = np.stack([level.filled.ravel() for level in levels])
            stored = filled.ravel() if counts.size == filled.size else filled.any(axis=0)
            if (stored & (counts == 0)).any() or (offsets + counts).max() > size:
                raise FormatError(cannot(f"write {result.name}", "tiles are missing", "check whether the disk is full"))


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Limit GDAL's cache of raster blocks in this process to 64 MB: its default is 5 % of the machine's memory."""
    with rasterio.Env():
        before = int(get_gdal_config("GDAL_CACHEMAX"))
        set_gdal_config("GDAL_CACHEMAX", min(before, CACHE_BYTES))
        try:
            yield
        finally:
            set_gdal_config("GDAL_CACHEMAX", before)
