"""One level of a TIFF as tiles: the place of each tile in its file, and its pixels.

tifffile locates and decodes the tiles; their bytes are read here. So a tile that the file lacks is distinguished from a
tile of zeros, and nothing is decoded twice or copied more than once (tifffile's own view as a Zarr was 0.7 times as
fast).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from tilesseg.formats.reading.image import Shape
from tilesseg.formats.reading.validity import AlphaUse, choose_mask
from tilesseg.formats.slide.tile_decoder import Decode, tile_decoder
from tilesseg.raster.window import Window

OPEN = 8
"""Number of files that are kept open, of a set of many files."""


class ByteFiles:
    """Reads pieces of files. Of too many files the least used are closed, and all with this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def read(self, path: str, offset: int, count: int) -> bytes:
        """Read exactly these bytes.

        Raises:
            OSError: the file cannot be read, or ends before.
        """
        file = self._file(path)
        data = os.pread(file.number, count, offset)
        while len(data) < count and (more := os.pread(file.number, count - len(data), offset + len(data))):
            data += more  # a single read gives 2 GiB at most
        if len(data) != count:
            raise OSError(f"the file ends {count - len(data)} bytes before the tile does")
        return data

    def _file(self, path: str) -> _File:
        with self._lock:
            file = self._files.pop(path, None) or _File(path)
            self._files[path] = file
            while len(self._files) > OPEN:
                self._files.popitem(last=False)
            return file


class _File:
    """An open file, closed with its last reference, never while a thread reads. A forked child may read it, too."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone when Python ends
        if hasattr(self, "number"):
            close(self.number)


_JPEG = (6, 7, 33007, 34892)
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
"""Markers of a JPEG: the beginning of its first scan, in whose data 0xff is followed by 0, and its end."""
_ALPHAS = (1, 2)  # associated and unassociated, of TIFF's tag ExtraSamples
_PIECE = 1 << 25  # bytes of raw rows read at once


@dataclass(frozen=True, slots=True)
class TiffPlane:
    """A page of a level, or one sample of a page that keeps its samples apart."""

    decode: Decode
    """Function that makes pixels of one of its tiles."""
    jpeg: bool
    byteorder: Literal["<", ">"]
    path: str
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    """Number of bytes of each tile or strip, from left to right and from top to bottom."""
    first: int
    """Number of its first tile in the page."""
    tables: bytes | None
    """Tables that its JPEG tiles share."""
    rows_at: int | None
    """Offset of its rows where they are stored uncompressed and contiguous, else None."""


@dataclass(frozen=True, slots=True)
class TiffLevel:
    """A level: planes of one shape, stored alike."""

    shape: Shape
    tile: Shape
    samples: int
    """Number of values of a pixel in a plane."""
    dtype: np.dtype[Any]
    alpha: int | None
    """Number of the sample of a page that is alpha: pixels are valid where it is not 0."""
    apart: int
    """Number of planes of a page: its samples, where it keeps them apart, else 1."""
    planes: tuple[TiffPlane, ...]

    def mask(self, number: int, window: Window, files: ByteFiles) -> NDArray[np.bool_] | None:
        """Mask `(y, x)` of the alpha of a page that is a plane of its own; `number` is a plane of the page."""
        if self.alpha is None or self.apart == 1:
            return None
        values = np.empty((1, *window.shape), self.dtype)
        stored = self.read(self.planes[number // self.apart * self.apart + self.alpha], window, [0], values, files)
        return np.asarray(stored & (values[0] != 0))

    def read(
        self, plane: TiffPlane, window: Window, samples: Sequence[int], out: NDArray[Any], files: ByteFiles
    ) -> NDArray[np.bool_]:
        """Read samples of a plane into `out` `(sample, y, x)`.

        Returns:
            Validity `(y, x)`: False where the file lacks a tile, and where alpha is 0.

        Raises:
            Exception: any error of a decoder on a damaged file.
        """
        valid, alpha = np.broadcast_to(np.True_, window.shape), self.alpha if self.apart == 1 else None
        parts = self._rows(plane, window, files) if plane.rows_at is not None else self._tiles(plane, window, files)
        for part, pixels in parts:
            rows, columns = part.slices(window)
            masked = pixels is None or (alpha is not None and not pixels[..., alpha].all())
            if masked and not valid.flags.writeable:
                valid = np.ones(window.shape, np.bool_)
            if pixels is None:
                out[:, rows, columns], valid[rows, columns] = 0, False
                continue
            for target, sample in zip(out, samples, strict=True):
                target[rows, columns] = pixels[..., sample]
            if masked:
                valid[rows, columns] = pixels[..., alpha] != 0
        return valid

    def _tiles(
        self, plane: TiffPlane, window: Window, files: ByteFiles
    ) -> Iterator[tuple[Window, NDArray[Any] | None]]:
        """The tiles that a window touches, `(y, x, sample)`, cut to it; None for a tile that the file lacks."""
        (height, width), across = self.tile, -(-self.shape[1] // self.tile[1])
        for row in range(window.y // height, -(-window.y_stop // height)):
            for column in range(window.x // width, -(-window.x_stop // width)):
                place = Window(row * height, column * width, height, width)
                part = window.intersect(place)
                pixels = self._tile(plane, row * across + column, files)
                yield part, None if pixels is None else pixels[part.slices(place)]

    def _tile(self, plane: TiffPlane, number: int, files: ByteFiles) -> NDArray[Any] | None:
        offset, count = int(plane.offsets[number]), int(plane.counts[number])
        if offset == 0 or count == 0:
            return None
        data = files.read(plane.path, offset, count)
        if plane.jpeg and data.find(_JPEG_END, data.find(_JPEG_SCAN) + 1) < 0:  # bytes behind the end are padding
            raise ValueError("a JPEG tile without an end")  # libjpeg would fill the rest with grey
        return np.asarray(plane.decode(data, plane.first + number, plane.tables), self.dtype)

    def _rows(self, plane: TiffPlane, window: Window, files: ByteFiles) -> Iterator[tuple[Window, NDArray[Any] | None]]:
        """Rows that need no decoding, a few at a time."""
        dtype = self.dtype.newbyteorder(plane.byteorder)
        length = self.shape[1] * self.samples * dtype.itemsize
        height = max(1, _PIECE // length)
        for y in range(window.y, window.y_stop, height):
            part = Window(y, window.x, min(height, window.y_stop - y), window.width)
            data = files.read(plane.path, int(plane.rows_at or 0) + y * length, part.height * length)
            pixels = np.frombuffer(data, dtype).reshape(part.height, self.shape[1], self.samples)
            yield part, pixels[:, window.x : window.x_stop]


def read_level(level: tifffile.TiffPageSeries, planes: Sequence[int], use: AlphaUse | None = None) -> TiffLevel:
    """Planes of a level, with the places of their tiles.

    Args:
        level: a level of a series of tifffile.
        planes: numbers of pages of the series.
        use: what a sample that is tagged alpha is, see `validity.choose_mask`.

    Raises:
        ValueError: the files lack a plane, or its storage cannot be read by tile.
    """
    page = level.keyframe
    separate, depth, height, width, samples = page.shaped
    if depth != 1:
        raise ValueError(f"{depth} layers are stored in one plane")
    tile = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    numbers = [(plane, sample) for plane in planes for sample in range(separate)]
    return TiffLevel(
        shape=(height, width),
        tile=tile,
        samples=samples,
        dtype=np.dtype(level.dtype),
        alpha=_alpha(page, use),
        apart=separate,
        planes=tuple(_plane(level, plane, sample, (height, width), tile) for plane, sample in numbers),
    )


def _plane(level: tifffile.TiffPageSeries, number: int, sample: int, shape: Shape, tile: Shape) -> TiffPlane:
    start, page = level.dataoffset if not level.keyframe.is_tiled else None, level.keyframe
    stored: Any = level._pages[number] if number < len(level._pages) else None
    if stored is None and start is None:
        raise ValueError(f"plane {number} of {len(level)} is in none of its files")
    size = page.nbytes // page.shaped[0]  # of one sample, where samples are stored apart
    if start is not None:
        return _raw(page, start + number * page.nbytes + sample * size)
    if page.is_final and not page.is_tiled:
        return _raw(stored, stored.dataoffsets[0] + sample * size)
    count = -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
    offsets, counts = (np.array(numbers, np.int64) for numbers in (stored.dataoffsets, stored.databytecounts))
    if min(len(offsets), len(counts)) < count * page.shaped[0]:
        raise ValueError(f"{min(len(offsets), len(counts))} tiles are listed, {count * page.shaped[0]} needed")
    mine = slice(sample * count, (sample + 1) * count)
    return TiffPlane(
        decode=tile_decoder(stored.keyframe),
        jpeg=stored.keyframe.compression in _JPEG,
        byteorder=stored.parent.byteorder,
        path=str(stored.parent.filehandle.path),
        offsets=offsets[mine],
        counts=counts[mine],
        first=mine.start,
        tables=stored.jpegtables,
        rows_at=None,
    )


def _raw(page: Any, offset: int) -> TiffPlane:
    nothing = np.zeros(0, np.int64)
    return TiffPlane(
        decode=tile_decoder(page.keyframe),
        jpeg=False,
        byteorder=page.parent.byteorder,
        path=str(page.parent.filehandle.path),
        offsets=nothing,
        counts=nothing,
        first=0,
        tables=None,
        rows_at=int(offset),
    )


def _alpha(page: tifffile.TiffPage, use: AlphaUse | None) -> int | None:
    """Number of the sample of a page that is the mask."""
    extra, count = [int(kind) for kind in page.extrasamples], int(page.samplesperpixel)
    tagged = [False] * (count - len(extra)) + [kind in _ALPHAS for kind in extra]
    alpha = choose_mask(tagged[:count], [{"all_valid"}] * count, use).alpha
    return alpha[0] if alpha else None
