"""Files that are stored as one block: decoded whole and strictly before anything of them is used.

A PNG, a JPEG or a TIFF of one strip is one stream. What lies behind damage in it is garbage, and a library that reads
it row by row sees no checksum, or gives other garbage with every read: so such a file is sound, or it is refused.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from rasterio.shutil import copyfiles

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.raster_file import one_line_errors
from tilesseg.formats.geotiff.strip_stream import find_strip
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.geotiff.raster_file import RasterFile

STREAMS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Drivers of GDAL whose files are one stream."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ROWS_BYTES = 16 << 20
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of samples of a pixel by the colour type of a PNG."""
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, and steps between rows and columns of the passes of an interlaced PNG."""


def refuse_damaged_file(file: RasterFile, bands: Sequence[int]) -> None:
    """Refuse a file of a single block that is damaged. Of any other file nothing is read.

    Raises:
        SourceError: names the file and the damage.
    """
    facts = file.facts
    if facts.driver == "PNG":
        check_png(file.path)
    if facts.one_strip or facts.driver in STREAMS:
        strip = find_strip(file) if facts.one_strip else None
        height, width = facts.grid.shape
        rows = max(1, _ROWS_BYTES // max(1, width * len(bands) * np.dtype(facts.dtypes[0]).itemsize))
        if strip is not None:
            for _ in strip.rows([facts.bands[band] - 1 for band in bands], rows):
                pass
            return
        dtype = np.result_type(*(facts.dtypes[band] for band in bands))
        for y in range(0, height, rows):
            file.read(bands, Window(y, 0, min(rows, height - y), width), dtype=dtype)


def check_png(path: str) -> None:
    """Refuse a PNG with a wrong checksum, a missing end, or too few pixels (PNG specification, sections 5 and 10).

    Raises:
        SourceError: names the file and the damage.
    """
    if not os.path.isfile(path):  # in an archive, or behind an address: only GDAL can read it
        with TemporaryDirectory() as folder, one_line_errors(f"{path}: cannot be copied to check it"):
            copy = os.path.join(folder, "copy.png")
            copyfiles(path, copy)
            _check_local(copy, path)
        return
    _check_local(path, path)


def _check_local(local: str, path: str) -> None:
    """Check a PNG of this machine; `path` names it in refusals."""
    try:
        with open(local, "rb") as file:
            _check_chunks(file)
    except (ValueError, zlib.error) as error:
        remedy = "copy or export the image again"
        raise SourceError(cannot(f"read {path}", f"the PNG is damaged ({error})", remedy)) from error
    except OSError as error:
        raise SourceError(cannot(f"read {path}", error, "correct the path, or its permissions")) from error


def _check_chunks(file: BinaryIO) -> None:
    """Read all chunks of a PNG with their CRCs, and its pixels with their checksum."""
    if file.read(8) != _SIGNATURE:
        raise ValueError("it does not begin as a PNG")
    header, pixels = b"", _Pixels()
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends before its last chunk")
        kind, size = head[4:], int.from_bytes(head[:4], "big")
        checksum = zlib.crc32(kind)
        while size > 0:
            data = file.read(min(size, 1 << 20))
            if not data:
                raise ValueError(f"it ends within a chunk {kind.decode('latin-1')}")
            size, checksum = size - len(data), zlib.crc32(data, checksum)
            if kind == b"IHDR":
                header += data
            elif kind == b"IDAT":
                pixels.add(data)
        if int.from_bytes(file.read(4), "big") != checksum:
            raise ValueError(f"the checksum of a chunk {kind.decode('latin-1')} is wrong")
        if kind == b"IEND":
            break
    pixels.check(header)


class _Pixels:
    """Pixels of a PNG, decoded some at a time, counted and thrown away."""

    def __init__(self) -> None:
        self._inflate, self._bytes = zlib.decompressobj(), 0

    def add(self, data: bytes) -> None:
        while data and not self._inflate.eof:
            self._bytes += len(self._inflate.decompress(data, 1 << 20))
            data = self._inflate.unconsumed_tail

    def check(self, header: bytes) -> None:
        """Refuse a stream that lacks its end, or rows.

        Raises:
            ValueError: with both numbers of bytes.
        """
        if len(header) < 13:
            raise ValueError("it has no header")
        needed = _pixel_bytes(header)
        if not self._inflate.eof or self._bytes < needed:
            raise ValueError(f"its pixels end too early, after {self._bytes} of {needed} bytes")


def _pixel_bytes(header: bytes) -> int:
    """Number of bytes of the decoded rows, each with the byte of its filter; of all passes of an interlaced PNG."""
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (0, 4))
    bits = header[8] * _SAMPLES.get(header[9], 1)
    passes = _ADAM7 if header[12] else ((0, 0, 1, 1),)
    sizes = ((-(-(height - y) // down), -(-(width - x) // across)) for y, x, down, across in passes)
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if rows > 0 and columns > 0)
