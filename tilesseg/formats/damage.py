"""Damage: stored blocks of an image that cannot be decoded, told apart from files that are out of reach.

A window that cannot be read is read again block by block, and exactly the blocks that cannot be decoded are damaged:
so damage belongs to the file, and does not depend on the window that met it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.raster.window import Window
from tilesseg.retry import is_transient

_OUT_OF_REACH = re.compile(
    "permission denied|no such file|access denied|not authorized|input/output error|stale file|too many open files"
    r"|cannot allocate|out of memory|curl|http[s ]|response code|could not resolve",
    re.IGNORECASE,
)
_REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DECODING = re.compile("decod|corrupt|checksum|crc", re.IGNORECASE)
_NO_DAMAGE = (MemoryError, ImportError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Damage:
    """A window of an image whose stored values cannot be decoded."""

    window: Window
    why: str
    coarser: bool = False
    """Whether its pixels are taken from a coarser level instead."""


class Parts(NamedTuple):
    """Raw values of a window of a damaged picture, with the masks of the files."""

    values: NDArray[Any]
    """`(channel, y, x)`; 0 where damaged."""
    valid: list[NDArray[np.bool_]]
    """Masks `(y, x)`, see `reading.image.masks_of`; True where damaged, because nothing is known of these pixels."""
    damage: tuple[Damage, ...]


class DamageRecord(NamedTuple):
    """Damage as a record of a ledger holds it: windows `[y, x, height, width]`, and the first reason."""

    damaged: list[list[int]]
    coarser: list[list[int]]
    """Windows whose pixels are taken from a coarser level."""
    damage: str | None

    @classmethod
    def of(cls, damage: Iterable[Damage]) -> DamageRecord:
        found = list(damage)
        lost, coarser = (
            [[*astuple(window)] for window in joined(one.window for one in found if one.coarser == kind)]
            for kind in (False, True)
        )
        return cls(lost, coarser, found[0].why if found else None)

    def windows(self) -> list[Damage]:
        """The damage of the record, each window with the first reason."""
        why = self.damage or ""
        lost = [Damage(Window(*window), why) for window in self.damaged]
        return lost + [Damage(Window(*window), why, coarser=True) for window in self.coarser]


NO_DAMAGE = DamageRecord([], [], None)


def is_damage(error: BaseException) -> bool:
    """Whether an error of reading says that stored values are damaged.

    It does not where a file is out of reach: missing, forbidden, behind a broken connection. Of a remote file only an
    error of decoding counts.
    """
    if not isinstance(error, SourceError) or is_transient(error):
        return False
    causes = [*_causes(error)]
    if not causes or any(isinstance(cause, _NO_DAMAGE) or _has_number(cause) for cause in causes):
        return False
    text = " ".join(str(cause) for cause in causes)
    if _REMOTE.match(str(error)):
        return bool(_DECODING.search(text)) and not _OUT_OF_REACH.search(text)
    return not _OUT_OF_REACH.search(text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _has_number(error: BaseException) -> bool:
    """Whether the operating system itself reports the error; a file that ends too early has no such number."""
    return isinstance(error, OSError) and error.errno is not None


def read_by_block(
    read: Callable[[Window], tuple[NDArray[Any], Sequence[NDArray[np.bool_]]]],
    window: Window,
    *,
    block: tuple[int, int],
    shape: tuple[int, int],
    channels: int,
    masks: int,
    dtype: np.dtype[Any],
) -> Parts:
    """Read a window of a damaged picture: as much at a time as can be read, down to single blocks.

    Args:
        read: reads a window of the picture: values and masks.
        window: pixels of the picture.
        block: height and width of a block, which is decoded as a whole; the first one begins at the picture's corner.
        shape: shape of the picture.
        channels: number of channels that are read.
        masks: number of masks that are read.
        dtype: data type of the values.

    Raises:
        SourceError: the file is out of reach, see `is_damage`.
    """
    values, damage = np.zeros((channels, *window.shape), dtype), []
    valid = [np.ones(window.shape, np.bool_) for _ in range(masks)]

    def fill(part: Window) -> None:
        try:
            pixels, planes = read(part)
        except SourceError as error:
            if not is_damage(error):
                raise
            halves = _halves(part, block)
            if halves:
                for half in halves:
                    fill(half)
            else:
                damage.append(Damage(whole_blocks(part, block, shape), str(error)))
            return
        place = part.slices(window)
        values[:, *place] = pixels
        for target, plane in zip(valid, planes, strict=True):
            target[place] = plane

    fill(window)
    return Parts(values, valid, tuple(damage))


def _halves(part: Window, block: tuple[int, int]) -> list[Window]:
    """Two parts that share no block: rows of blocks first, then blocks; none of a part of a single block."""
    for start, stop, side, down in ((part.y, part.y_stop, block[0], True), (part.x, part.x_stop, block[1], False)):
        first, last = start // side, (stop - 1) // side
        if first < last:
            cut = (first + (last - first + 1) // 2) * side
            if down:
                return [
                    Window.from_bounds(part.y, part.x, cut, part.x_stop),
                    Window.from_bounds(cut, part.x, part.y_stop, part.x_stop),
                ]
            return [
                Window.from_bounds(part.y, part.x, part.y_stop, cut),
                Window.from_bounds(part.y, cut, part.y_stop, part.x_stop),
            ]
    return []


def whole_blocks(window: Window, block: tuple[int, int], shape: tuple[int, int]) -> Window:
    """The smallest window of whole blocks around a window, cut to the picture."""
    (tall, wide), whole = block, Window(0, 0, *shape)
    y_stop, x_stop = -(-window.y_stop // tall) * tall, -(-window.x_stop // wide) * wide
    grown = Window.from_bounds(window.y // tall * tall, window.x // wide * wide, y_stop, x_stop)
    return grown.intersect(whole)


def seen_through(
    damage: Iterable[Damage], *, shape: tuple[int, int], source_of: Callable[[Window], Window]
) -> tuple[Damage, ...]:
    """Damage of a picture on the grid to which the picture is resampled.

    Args:
        damage: windows of the picture.
        shape: shape of the new grid.
        source_of: gives the pixels of the picture that a window of the new grid is computed from. Its bounds never
            fall along an axis.
    """
    seen = []
    for one in damage:
        rows = _span(shape[0], one.window.y, one.window.y_stop, lambda i: _rows_of(source_of(Window(i, 0, 1, 1))))
        columns = _span(shape[1], one.window.x, one.window.x_stop, lambda i: _columns_of(source_of(Window(0, i, 1, 1))))
        window = Window.from_bounds(rows[0], columns[0], rows[1], columns[1])
        if not window.empty:
            seen.append(replace(one, window=window))
    return tuple(seen)


def mark_valid(planes: Sequence[NDArray[np.bool_]], window: Window, damage: Iterable[Damage]) -> None:
    """Set masks of `window` to True where pixels are damaged: nothing is known of them."""
    for one in damage:
        for plane in planes:
            plane[one.window.intersect(window).slices(window)] = True


def _rows_of(window: Window) -> tuple[int, int]:
    return window.y, window.y_stop


def _columns_of(window: Window) -> tuple[int, int]:
    return window.x, window.x_stop


def _span(size: int, start: int, stop: int, source: Callable[[int], tuple[int, int]]) -> tuple[int, int]:
    """Range of the new pixels along an axis that need any of the old pixels `start … stop - 1`."""
    indices = range(size)
    return (
        bisect_left(indices, start + 1, key=lambda i: source(i)[1]),
        bisect_left(indices, stop, key=lambda i: source(i)[0]),
    )


def joined(windows: Iterable[Window]) -> list[Window]:
    """The same pixels in fewer windows: neighbours in a row are joined, then equal spans of neighbouring rows."""
    rows: list[Window] = []
    for window in sorted(set(windows)):
        last = rows[-1] if rows else None
        if last and (last.y, last.height) == (window.y, window.height) and last.x_stop >= window.x:
            rows[-1] = Window.from_bounds(last.y, last.x, last.y_stop, max(last.x_stop, window.x_stop))
        else:
            rows.append(window)
    whole: list[Window] = []
    for window in sorted(rows, key=lambda one: (one.x, one.width, one.y)):
        last = whole[-1] if whole else None
        if last and (last.x, last.width) == (window.x, window.width) and last.y_stop >= window.y:
            whole[-1] = Window.from_bounds(last.y, last.x, max(last.y_stop, window.y_stop), last.x_stop)
        else:
            whole.append(window)
    return sorted(whole)


Level = tuple[tuple[int, int], Callable[[Window], tuple[NDArray[Any], Sequence[NDArray[np.bool_]]]]]
"""Shape of a coarser picture, and its reading of a window."""


def from_coarser(parts: Parts, window: Window, *, shape: tuple[int, int], levels: Sequence[Level]) -> Parts:
    """Take damaged pixels from coarser pictures: of each, the pixel under the centre.

    A damaged window is taken from the finest picture in which it can be read whole; without one it stays damaged.

    Args:
        parts: pixels of `window`, changed in place.
        window: the window.
        shape: shape of the picture.
        levels: coarser pictures, finest first.
    """
    damage = []
    for one in parts.damage:
        replaced = any(_replaced(parts, window, one.window, shape, level) for level in levels)
        damage.append(replace(one, coarser=replaced))
    return parts._replace(damage=tuple(damage))


def _replaced(parts: Parts, window: Window, damaged: Window, shape: tuple[int, int], level: Level) -> bool:
    """Whether the pixels of a damaged window could be taken from a level, and were."""
    (size, read), place = level, damaged.intersect(window)
    rows = _under(damaged.y, damaged.y_stop, shape[0], size[0])
    columns = _under(damaged.x, damaged.x_stop, shape[1], size[1])
    needed = Window.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    try:
        values, planes = read(needed)
    except SourceError as error:
        if not is_damage(error):
            raise
        return False
    inside = place.slices(damaged)
    at = (rows[inside[0]] - needed.y)[:, None], columns[inside[1]] - needed.x
    target = place.slices(window)
    parts.values[:, *target] = values[:, *at]
    for mask, plane in zip(parts.valid, planes, strict=True):
        mask[target] = plane[at]
    return True


def _under(start: int, stop: int, size: int, coarse: int) -> NDArray[np.intp]:
    """The coarser pixels under the centres of pixels `start … stop - 1` of an axis."""
    return np.minimum(((np.arange(start, stop) + 0.5) * coarse / size).astype(np.intp), coarse - 1)
