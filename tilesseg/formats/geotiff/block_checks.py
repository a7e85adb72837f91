"""Checks of what GDAL decodes without a word: JPEG blocks with warnings, and blocks whose checksum GDAL does not see.

libtiff decodes DEFLATE again without the checksum where the first attempt gives more bytes than the block has, which
happens for one in twenty altered bytes; of PackBits it takes what fits. libjpeg's warnings on a damaged block are those
for which strict decoders refuse it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tifffile

from tilesseg.raster.window import Window

_DEFLATE, _PACKBITS = (8, 32946), 32773
CHECKED = ("DEFLATE", "ADOBE_DEFLATE", "PACKBITS")
"""Names, in rasterio, of the compressions whose blocks are decoded once more."""
_JPEG = re.compile("JPEGLib|libjpeg")


class _Warnings(logging.Handler):
    """Warnings of libjpeg, by thread: GDAL gives them to rasterio's log in the thread that reads."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        messages = getattr(self.heard, "messages", None)
        if messages is not None and _JPEG.search(record.getMessage()):
            messages.append(record.getMessage().partition(" (this warning")[0])


_WARNINGS, _LOG = _Warnings(), logging.getLogger("rasterio._err")
_LOG.addHandler(_WARNINGS)


@contextmanager
def strict_jpeg() -> Iterator[None]:
    """Make an error of a warning of libjpeg while the context lasts.

    Raises:
        ValueError: with the warning.
    """
    if not _LOG.isEnabledFor(logging.WARNING):
        _LOG.setLevel(logging.WARNING)
    messages: list[str] = []
    _WARNINGS.heard.messages = messages
    try:
        yield
    finally:
        _WARNINGS.heard.messages = None
    if messages:
        raise ValueError(messages[0])


@dataclass(slots=True)
class BlockChecks:
    """Blocks of a TIFF on this machine, each decoded once more in a process, to see its checksum."""

    path: str
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    block: tuple[int, int]
    """Height and width of a block."""
    shape: tuple[int, int]
    planes: int
    """Number of planes that are stored apart."""
    row_bytes: int
    """Number of bytes of one row of a block."""
    tiled: bool
    compression: int
    sound: bytearray
    """1 for each block that has been decoded."""

    def check(self, window: Window) -> None:
        """Refuse a window in which a block's checksum, or its length, is wrong.

        Raises:
            ValueError: names the first such block.
            OSError: the file cannot be read.
        """
        (tall, wide), across = self.block, -(-self.shape[1] // self.block[1])
        rows = range(window.y // tall, -(-window.y_stop // tall))
        columns = range(window.x // wide, -(-window.x_stop // wide))
        count = across * -(-self.shape[0] // tall)
        numbers = [
            plane * count + row * across + column
            for plane in range(self.planes)
            for row in rows
            for column in columns
            if not self.sound[plane * count + row * across + column]
        ]
        if not numbers:
            return
        with open(self.path, "rb") as file:
            for number in numbers:
                if self.offsets[number] and self.sizes[number]:  # else the file is sparse: all nodata
                    file.seek(self.offsets[number])
                    self._decode(file.read(self.sizes[number]), number % count // across)
                self.sound[number] = 1

    def _decode(self, data: bytes, row: int) -> None:
        import imagecodecs

        height = self.block[0] if self.tiled else min(self.block[0], self.shape[0] - row * self.block[0])
        needed = height * self.row_bytes
        deflate = self.compression in _DEFLATE
        try:
            decoded = _inflated(data, needed) if deflate else imagecodecs.packbits_decode(data)
        except RuntimeError as error:  # imagecodecs has a class for each codec
            raise ValueError(f"a block cannot be decoded ({error})") from error
        if len(decoded) < needed:
            raise ValueError(f"a block has {len(decoded)} of {needed} bytes")


def _inflated(data: bytes, size: int) -> bytes | bytearray:
    """Decoded block: by libdeflate, which takes blocks of the usual size alone, or else by zlib.

    Raises:
        RuntimeError: the block, or its checksum, is damaged.
    """
    import imagecodecs

    try:
        return imagecodecs.deflate_decode(data, out=size)
    except RuntimeError:
        return imagecodecs.zlib_decode(data)


def block_checks(path: str, compression: str | None, shape: tuple[int, int]) -> BlockChecks | None:
    """Checks of the blocks of a TIFF, or None where GDAL's own are enough, or the file is not read by tifffile.

    Args:
        path: the file.
        compression: name of its compression in rasterio.
        shape: height and width of its first picture.
    """
    if (compression or "").upper() not in CHECKED:
        return None
    try:
        with tifffile.TiffFile(path) as file:
            return _checks_of(path, file.pages[0], shape)
    except (OSError, ValueError, IndexError, KeyError, TypeError, tifffile.TiffFileError):
        return None


def _checks_of(path: str, page: Any, shape: tuple[int, int]) -> BlockChecks | None:
    if (int(page.imagelength), int(page.imagewidth)) != shape or int(page.bitspersample) % 8:
        return None
    tiled = bool(page.is_tiled)
    block = (page.tilelength, page.tilewidth) if tiled else (min(page.rowsperstrip, shape[0]), shape[1])
    apart = page.samplesperpixel if page.planarconfig == 2 else 1
    row_bytes = block[1] * (page.samplesperpixel // apart) * int(page.bitspersample) // 8
    offsets, sizes = tuple(page.dataoffsets), tuple(page.databytecounts)
    count = apart * -(-shape[0] // block[0]) * -(-shape[1] // block[1])
    if min(len(offsets), len(sizes)) < count or int(page.fillorder) != 1:
        return None
    return BlockChecks(
        path=path,
        offsets=offsets,
        sizes=sizes,
        block=(int(block[0]), int(block[1])),
        shape=shape,
        planes=apart,
        row_bytes=row_bytes,
        tiled=tiled,
        compression=int(page.compression),
        sound=bytearray(count),
    )
