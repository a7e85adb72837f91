"""Sample for the statistics of an image: pixels as the network will see them, where they are valid.

Windows of 64² come first, one in each cell of a regular grid, then more of them, and where even those hold little that
is valid, one pass over the whole image. The pixels that are taken depend on the size of the image and on what is valid
in it: not on its levels, its overviews or its storage, which decide no more than the order of reading. A window begins
at a multiple of 64, so that it lies in one storage block of any usual size.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.source import Pixels
from tilesseg.raster.region_of_interest import RoiCells
from tilesseg.raster.window import Window
from tilesseg.retry import is_transient

SIDE = 64
"""Side of a window in pixels."""
WINDOWS = 256
"""Number of windows of the first look; the second takes four times as many."""
PIXELS = WINDOWS * SIDE**2
"""Number of pixels in a sample, of one channel."""
VALUES = 1 << 24
"""Number of values in a sample, all channels together; and in one read."""
_FEW = 8  # fewer valid pixels than this part of a sample: look further
_HEIGHTS = 4  # of the windows in a row of the grid: each costs a strip, where a file has strips
_LARGE = 256 << 20  # bytes of a storage block, above which the bytes that are decoded are counted
_DECODED = 16 << 30  # bytes of large blocks that may be decoded in all: files exist whose single strip is a gigabyte
_GOLDEN = 0.7548776662466927, 0.5698402909980532  # steps of the R2 sequence (Roberts 2018): evenly spread, no period


@dataclass(frozen=True, slots=True)
class Readable:
    """An image, as far as a sample needs it."""

    shape: tuple[int, int]
    channels: int
    block: tuple[int, int]
    """Height and width of a storage block."""
    block_bytes: int
    """Bytes that are decoded of all channels for a single pixel."""
    read: Callable[[Window], Pixels]
    """Reads a window that lies in the image."""
    rows: Callable[[int], Iterator[Pixels]] | None = None
    """Gives the whole image in strips of so many rows, where a window costs as much as all of it."""
    unread: list[Window] = field(default_factory=list)
    """Takes the windows that cannot be read, and are left out."""

    def leave_out(self, window: Window, error: SourceError) -> None:
        """Note a window that is left out; not of a passing trouble, which would make another sample.

        Raises:
            SourceError: the trouble may pass.
        """
        if is_transient(error):
            raise error
        self.unread.append(window)


def sample_image(image: Readable, inside: RoiCells | None = None) -> NDArray[np.float64]:
    """Valid values `(channel, n)` of an image, spread over its valid pixels; empty where none is valid.

    Args:
        image: the image.
        inside: region of interest, the pixels that the network will see; None for the whole image.

    Raises:
        SourceError: nothing can be read.
    """
    first = min(WINDOWS, max(1, VALUES // (image.channels * SIDE**2)))
    most = first * SIDE**2
    whole = inside.pixels(image.shape) if inside else image.shape[0] * image.shape[1]
    for count in (first, 4 * first):
        windows = spread_windows(image.shape, count, inside)
        sample = _sample_windows(image, windows)
        if sample.shape[1] * _FEW >= most or sum(window.area for window in windows) == whole:
            return _thinned(sample, most)
    return _thinned(_sample_everywhere(image, most, inside), most)


def spread_windows(shape: tuple[int, int], count: int, inside: RoiCells | None = None) -> list[Window]:
    """At most `count` windows of at most 64², evenly spread over an image, or over its region of interest.

    They lie apart, and cover what is small enough.
    """
    whole = Window(0, 0, *shape)
    if inside is None:
        return _grid(whole, count)
    rows, columns = np.nonzero(inside.in_roi)
    picked = np.arange(min(count, len(rows))) * len(rows) // max(1, min(count, len(rows)))
    side, each = inside.stride, count // max(1, len(picked))
    cells = (Window(int(rows[k]) * side, int(columns[k]) * side, side, side).intersect(whole) for k in picked)
    return [window for number, cell in enumerate(cells) for window in _grid(cell, each, number)]


def _grid(area: Window, count: int, number: int = 0) -> list[Window]:
    """At most `count` windows in an area, which begin at multiples of 64; in other places for another number."""
    bounds = (area.y, area.y_stop), (area.x, area.x_stop)
    lattice = [range(start // SIDE, -(-stop // SIDE)) for start, stop in bounds]
    rows = min(len(lattice[0]), max(1, int(count**0.5)))
    columns = min(len(lattice[1]), max(1, count // rows))
    rows = min(len(lattice[0]), max(1, count // columns))
    windows = []
    for i, j in np.ndindex(rows, columns):
        turn = i * _HEIGHTS + j % _HEIGHTS + number
        y = _pick(_stratum(lattice[0], i, rows), _GOLDEN[0] * turn)
        x = _pick(_stratum(lattice[1], j, columns), _GOLDEN[1] * (i * columns + j + number))
        windows.append(Window(y * SIDE, x * SIDE, SIDE, SIDE).intersect(area))
    return windows


def _stratum(line: range, number: int, of: int) -> range:
    """Share of a line of places: one of `of` shares of nearly the same length."""
    return line[number * len(line) // of : (number + 1) * len(line) // of]


def _pick(stratum: range, turn: float) -> int:
    """A place of the stratum: another one for each window, for an image may have a period."""
    return stratum[int((turn + 0.5) % 1.0 * len(stratum))]


class _Parts:
    """Valid values of windows, gathered in any order and given in the order of the windows."""

    def __init__(self, windows: Sequence[Window], channels: int) -> None:
        self.windows, self.channels = windows, channels
        self.failure: SourceError | None = None
        self._parts: dict[Window, list[NDArray[Any]]] = defaultdict(list)

    def add(self, pixels: Pixels, place: Window, windows: Sequence[Window]) -> None:
        """Keep what the pixels of a place hold of these windows."""
        for window in windows:
            rows, columns = window.intersect(place).slices(place)
            self._parts[window].append(pixels.values[:, rows, columns][:, pixels.valid[rows, columns]])

    def joined(self) -> NDArray[Any]:
        """Values `(channel, n)`.

        Raises:
            SourceError: no window was read.
        """
        if self.windows and not self._parts:
            because = (
                f"no window of the image can be read; repair or replace the file (the last attempt: {self.failure})"
            )
            raise SourceError(because) from self.failure
        return _joined([part for window in self.windows for part in self._parts[window]], self.channels)


def _sample_windows(image: Readable, windows: Sequence[Window]) -> NDArray[Any]:
    """Valid values of these windows; those that cannot be read are left out.

    Raises:
        SourceError: none can be read.
    """
    parts = _Parts(windows, image.channels)
    if image.rows is not None:
        _read_rows(image.rows, image.shape, parts)
    else:
        for group in _groups(image, windows):
            _read_group(image, group, parts)
    return parts.joined()


def _read_rows(rows: Callable[[int], Iterator[Pixels]], shape: tuple[int, int], parts: _Parts) -> None:
    """One pass over the image from top to bottom; nothing below a damaged row is read."""
    last, y = max((window.y_stop for window in parts.windows), default=0), 0
    try:
        for pixels in rows(SIDE):
            strip = Window(y, 0, *pixels.valid.shape)
            parts.add(pixels, strip, [window for window in parts.windows if window.touches(strip)])
            y = strip.y_stop
            if y >= last:
                return
    except SourceError as error:
        parts.failure = error


def _read_group(image: Readable, group: Sequence[Window], parts: _Parts) -> None:
    """Read windows at once, or where that fails, one by one."""
    place = _around(group)
    try:
        parts.add(image.read(place), place, group)
    except SourceError as error:
        parts.failure = error
        if len(group) == 1:
            image.leave_out(place, error)
            return
        for window in group:
            _read_group(image, [window], parts)


def _groups(image: Readable, windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Windows that are read at once: those of a storage block, so that none is decoded twice.

    Where that is much, those of a row of windows in a block; of blocks that are huge, fewer.
    """
    (height, width), blocks = image.block, defaultdict[tuple[int, int], list[Window]](list)
    for window in windows:
        blocks[window.y // height, window.x // width].append(window)
    decoded = 0
    for _, block in sorted(blocks.items()):
        much = _around(block).area * image.channels > VALUES
        rows = itertools.groupby(block, key=lambda window: window.y) if much else [(0, iter(block))]
        for _, group in rows:
            decoded += image.block_bytes if image.block_bytes > _LARGE else 0
            if decoded > _DECODED + image.block_bytes:
                return
            yield list(group)


def _around(windows: Sequence[Window]) -> Window:
    """Smallest window around these."""
    return Window.from_bounds(
        min(window.y for window in windows),
        min(window.x for window in windows),
        max(window.y_stop for window in windows),
        max(window.x_stop for window in windows),
    )


def _sample_everywhere(image: Readable, most: int, inside: RoiCells | None) -> NDArray[Any]:
    """Sample of at most `most` pixels from one pass over the image, evenly spread over its valid pixels.

    Parts that cannot be read are left out: that they cannot is said by their tiles.
    """
    kept = _Spread(most, image.channels)
    for place, pixels in _pieces(image, inside):
        for part in inside.inside(place) if inside else (place,):
            rows, columns = part.slices(place)
            kept.add(Pixels(pixels.values[:, rows, columns], pixels.valid[rows, columns]), part)
    return kept.values()


class _Spread:
    """At most so many valid pixels, chosen by their place: more of them thin all out."""

    def __init__(self, most: int, channels: int) -> None:
        self.most, self.share = most, 1.0
        self._values: NDArray[Any] = np.empty((channels, 0), np.uint8)
        self._places = np.empty((0, 3))  # y, x and rank

    def add(self, pixels: Pixels, place: Window) -> None:
        if not pixels.valid.any():  # far quicker than to list none
            return
        rows, columns = np.nonzero(pixels.valid)
        y, x = rows + place.y, columns + place.x
        rank = (y * _GOLDEN[0] + x * _GOLDEN[1]) % 1.0
        chosen = rank < self.share
        if not chosen.any():
            return
        self._values = _joined([self._values, pixels.values[:, rows[chosen], columns[chosen]]], len(self._values))
        self._places = np.concatenate([self._places, np.stack([y, x, rank], axis=1)[chosen]])
        while len(self._places) > self.most:
            self.share /= 2
            stay = self._places[:, 2] < self.share
            self._values, self._places = self._values[:, stay], self._places[stay]

    def values(self) -> NDArray[Any]:
        """Values `(channel, n)` in the order of rows, whatever the order in which they came."""
        return self._values[:, np.lexsort((self._places[:, 1], self._places[:, 0]))]


def _pieces(image: Readable, inside: RoiCells | None) -> Iterator[tuple[Window, Pixels]]:
    """The parts of an image that can be read, and may lie in the region of interest."""
    (tall, wide), (height, width), y = image.shape, image.block, 0
    if image.rows is not None:
        with suppress(SourceError):  # its end: what lies below a damaged row cannot be read
            for pixels in image.rows(SIDE):
                yield Window(y, 0, *pixels.valid.shape), pixels
                y += pixels.valid.shape[0]
        return
    most = max(1, VALUES // image.channels)
    across = wide if width >= wide else min(wide, width * max(1, most // (height * width)))
    down = max(1, min(height, most // across))
    for place in _cut(Window(0, 0, tall, wide), down, across):
        if inside is None or inside.touches(place):
            yield from _readable(image, place)


def _readable(image: Readable, place: Window) -> Iterator[tuple[Window, Pixels]]:
    """Pixels of a place, or where it cannot be read, those of its storage blocks that can."""
    try:
        pixels = image.read(place)
    except SourceError as error:
        if place.width <= image.block[1]:
            image.leave_out(place, error)
            return
        for block in _cut(place, *image.block):
            yield from _readable(image, block)
        return
    yield place, pixels


def _cut(area: Window, height: int, width: int) -> Iterator[Window]:
    """Parts of an area, row by row."""
    for y, x in itertools.product(range(area.y, area.y_stop, height), range(area.x, area.x_stop, width)):
        yield Window(y, x, height, width).intersect(area)


def _joined(parts: Sequence[NDArray[Any]], channels: int) -> NDArray[Any]:
    filled = [part for part in parts if part.shape[1]]
    return np.concatenate(filled, axis=1) if filled else np.empty((channels, 0))


def _thinned(sample: NDArray[Any], most: int) -> NDArray[np.float64]:
    """At most `most` values of each channel, every n-th."""
    return sample[:, :: max(1, -(-sample.shape[1] // most))].astype(np.float64)
