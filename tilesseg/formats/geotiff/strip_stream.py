"""TIFFs of one strip: the whole image is one stream, which can only be decoded from its beginning.

GDAL holds such a strip in memory whole, or decodes it from the first row again for every window. Here it is decoded
once, piece by piece, so that memory is bounded by a few rows: DEFLATE and uncompressed strips of integers and floats,
with all of TIFF's predictors (TIFF 6.0, section 14, and Adobe Photoshop TIFF Technical Note 3), in either byte order,
samples together or apart. Every other compression (LZW, Zstandard, …) is left to GDAL, window by window.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_file import FilePlanes, RasterFile, differs
from tilesseg.formats.source import unreadable
from tilesseg.raster.window import Window

_UNCOMPRESSED, _DEFLATE = 1, (8, 32946)
_DIFFERENCES, _FLOATING_POINT = 2, 3
_PLAIN_COLOURS = (0, 1, 2, 3, 5)  # colours that GDAL gives as they are stored: grey, RGB, palette, CMYK
_KINDS = {1: "u", 2: "i", 3: "f"}
_READ = 1 << 16
_PIECE = 4 << 20  # bytes that are decoded at a time


@dataclass(frozen=True, slots=True)
class Strip:
    """Place and meaning of the bytes of a one-strip TIFF."""

    path: str
    shape: tuple[int, int]
    offsets: tuple[int, ...]
    """Offset of the strip, or of a strip for each sample."""
    sizes: tuple[int, ...]
    samples: int
    """Number of samples in one strip."""
    dtype: np.dtype[Any]
    """Data type of a sample, as it is stored."""
    given: np.dtype[Any]
    """Data type of a sample, as GDAL gives it: half floats become float32."""
    compression: int
    predictor: int

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * self.samples * self.dtype.itemsize

    def rows(self, channels: Sequence[int], height: int) -> Iterator[NDArray[Any]]:
        """Samples `channels`, from 0, as arrays `(channel, rows, width)` of at most `height` rows, top to bottom.

        Raises:
            SourceError: the strip is damaged, or ends too early.
        """
        planes = [0] if len(self.offsets) == 1 else list(channels)
        inside = list(channels) if len(self.offsets) == 1 else [0]
        with ExitStack() as stack:
            streams = [_Stream(self, plane, stack.enter_context(open(self.path, "rb"))) for plane in planes]
            for y in range(0, self.shape[0], height):
                out = np.empty((len(channels), min(height, self.shape[0] - y), self.shape[1]), self.given)
                for k, stream in enumerate(streams):
                    self._fill(out if len(planes) == 1 else out[k : k + 1], stream, inside, y)
                    if y + out.shape[1] == self.shape[0]:
                        stream.check_end(y)
                yield out

    @property
    def native(self) -> np.dtype[Any]:
        return self.dtype.newbyteorder("=")

    def _fill(self, out: NDArray[Any], stream: _Stream, samples: Sequence[int], y: int) -> None:
        """Decode the next rows, some at a time: the decoded bytes need as much memory as the result."""
        step = max(1, _PIECE // self.row_bytes)
        for start in range(0, out.shape[1], step):
            piece = out[:, start : start + step]
            rows = self._decode(stream.read(piece.shape[1], y + start))
            for channel, sample in zip(piece, samples, strict=True):
                channel[:] = rows[..., sample]

    def _decode(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """Bytes `(rows, bytes)` as values `(rows, width, sample)`."""
        width, size = self.shape[1], self.dtype.itemsize
        if self.predictor == _FLOATING_POINT:
            summed = np.cumsum(rows.reshape(len(rows), -1, self.samples), axis=1, dtype=np.uint8)
            places = summed.reshape(len(rows), size, width * self.samples)  # first all first bytes, then all second …
            stored = np.ascontiguousarray(np.moveaxis(places, 1, 2)).view(self.dtype.newbyteorder(">"))
            return stored.reshape(len(rows), width, self.samples).astype(self.native)
        values = rows.view(self.dtype).reshape(len(rows), width, self.samples)
        if self.predictor == _DIFFERENCES:
            whole = np.dtype(f"u{size}")
            steps = values.astype(self.native, copy=False).view(whole)
            return np.cumsum(steps, axis=1, dtype=whole).view(self.native)
        return values


class _Stream:
    """The rows of one strip, from top to bottom."""

    def __init__(self, strip: Strip, plane: int, file: BinaryIO) -> None:
        self._strip, self._file = strip, file
        self._left = strip.sizes[plane]
        self._inflate = None if strip.compression == _UNCOMPRESSED else zlib.decompressobj()
        self._tail = b""  # read, not yet decoded
        file.seek(strip.offsets[plane])

    def read(self, count: int, y: int) -> NDArray[np.uint8]:
        """The next rows as bytes `(rows, bytes)`; `y` is the first row's place in the image."""
        out = np.empty((count, self._strip.row_bytes), np.uint8)
        view, filled = out.data.cast("B"), 0
        while filled < len(view):
            try:
                piece = self._next(len(view) - filled)
            except (OSError, zlib.error) as error:
                raise self._damaged(y + filled // self._strip.row_bytes, str(error)) from error
            if not piece:
                raise self._damaged(y + filled // self._strip.row_bytes, "the strip ends here")
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return out

    def check_end(self, y: int) -> None:
        """Read what follows the last row, which ends with the checksum; `y` is the row that a refusal names.

        Raises:
            SourceError: the checksum is wrong, or missing.
        """
        if self._inflate is None:
            return
        try:
            while not self._inflate.eof:
                data = self._tail or self._take(_READ)
                self._inflate.decompress(data, _READ)
                self._tail = self._inflate.unconsumed_tail
                if not data:
                    raise zlib.error("the strip ends before its checksum")
        except (OSError, zlib.error) as error:
            raise self._damaged(y, str(error)) from error

    def _next(self, most: int) -> bytes:
        """Some of the next bytes, at most `most`; none at the end."""
        if self._inflate is None:
            return self._take(most)
        while not self._inflate.eof:
            self._tail = self._tail or self._take(_READ)
            piece = self._inflate.decompress(self._tail, most)
            ended = not self._tail
            self._tail = self._inflate.unconsumed_tail
            if piece or ended:
                return piece
        return b""

    def _take(self, most: int) -> bytes:
        data = self._file.read(min(most, self._left))
        self._left -= len(data)
        return data

    def _damaged(self, row: int, why: str) -> SourceError:
        return SourceError(unreadable(f"{self._strip.path}: cannot read row {row} and the rows below", why))


def is_one_strip(path: str, dataset: Any) -> bool:
    """Whether an open dataset is a TIFF of one strip that GDAL can only decode from its beginning.

    GDAL calls each row a block where it decodes such a strip row by row. An uncompressed strip is one only where GDAL
    takes it as a whole, too.
    """
    height, width = dataset.block_shapes[0]
    if dataset.driver != "GTiff" or width < dataset.width or dataset.height == 1 or not os.path.isfile(path):
        return False
    page = _first_page(path)
    if page is None or page.is_tiled or page.rowsperstrip < dataset.height:
        return False
    return bool(page.compression != _UNCOMPRESSED or height >= dataset.height)


def find_strip(file: RasterFile) -> Strip | None:
    """Strip of a file, or None where only GDAL can decode it."""
    facts, page = file.facts, _first_page(file.path)
    if not facts.one_strip or page is None or page.compression not in (_UNCOMPRESSED, *_DEFLATE):
        return None
    together: Literal[1, 2] = page.planarconfig if page.samplesperpixel > 1 else 1
    strip = Strip(
        path=file.path,
        shape=facts.grid.shape,
        offsets=tuple(page.dataoffsets),
        sizes=tuple(page.databytecounts),
        samples=page.samplesperpixel if together == 1 else 1,
        dtype=_sample_type(page),
        given=np.dtype(facts.dtypes[0]),
        compression=int(page.compression),
        predictor=int(page.predictor),
    )
    readable = (
        page.shape is not None
        and (page.imagelength, page.imagewidth) == strip.shape
        and len(strip.offsets) == (1 if together == 1 else page.samplesperpixel)
        and all(strip.offsets)  # 0: a sparse file, all nodata
        and page.fillorder == 1
        and page.photometric in _PLAIN_COLOURS
        and strip.predictor in (1, _DIFFERENCES, _FLOATING_POINT)
        and (strip.predictor != _FLOATING_POINT or strip.dtype.kind == "f")
        and len(set(facts.dtypes)) == 1
        and (strip.given == strip.native or (strip.native == np.float16 and strip.given == np.float32))
    )
    return strip if readable and facts.mask in ("none", "nodata") and not facts.alpha else None


def strip_rows(file: RasterFile, strip: Strip, bands: Sequence[int], height: int) -> Iterator[FilePlanes]:
    """Pixels of full-width windows of `height` rows, top to bottom, equal to `file.read`, from one pass over the strip.

    Raises:
        SourceError: the strip is damaged.
    """
    channels = list(dict.fromkeys(bands))
    place = [channels.index(band) for band in bands]
    y = 0
    for pixels in strip.rows([file.facts.bands[band] - 1 for band in channels], height):
        window = Window(y, 0, *pixels.shape[1:])
        values = pixels if place == list(range(len(pixels))) else pixels[place]
        yield FilePlanes(values, np.broadcast_to(np.True_, window.shape), _data(file, channels, pixels, window))
        y += pixels.shape[1]


def _data(file: RasterFile, bands: Sequence[int], pixels: NDArray[Any], window: Window) -> dict[int, NDArray[np.bool_]]:
    """Masks of the nodata values, equal to those of `RasterFile.read`."""
    if file.facts.mask == "none":
        return {}
    data = {}
    for band, channel in zip(bands, pixels, strict=True):
        differing = differs(channel, file.facts.nodata[band], file.facts.dtypes[band])
        if differing is None:  # floats within a few ulp of nodata: only GDAL can tell
            return file.read(bands, window, dtype=pixels.dtype).data
        data[band] = differing
    return data


def _first_page(path: str) -> Any:
    """The first image of a file by tifffile; None where tifffile cannot open it, and GDAL reads the file as it can."""
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            _ = page.dataoffsets
            return page
    except (OSError, ValueError, IndexError, KeyError, TypeError, tifffile.TiffFileError):
        return None


def _sample_type(page: Any) -> np.dtype[Any]:
    """Data type of a stored sample; `V` where NumPy has no such type."""
    kind, bits = _KINDS.get(int(page.sampleformat)), int(page.bitspersample)
    if kind is None or bits not in (8, 16, 32, 64) or (kind == "f" and bits == 8):
        return np.dtype("V1")
    return np.dtype(f"{page.parent.byteorder}{kind}{bits // 8}")
