"""Decoded rows of an image for a tile: each pixel is decoded once, and kept as long as patches need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.damage import Damage, is_damage
from tilesseg.formats.reading.edge_padding import read_reflected, reflect
from tilesseg.formats.source import Pixels
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.source import Source


@dataclass(frozen=True, slots=True)
class _Strip:
    """Consecutive rows of the image as they were read."""

    window: Window
    values: NDArray[Any]
    """Array `(channel, y, x)`."""
    valid: NDArray[np.bool_] | None
    """Array `(y, x)`; None where all pixels are valid."""

    def below(self, y: int) -> _Strip:
        """Part of the strip in the rows from `y` on: a copy, so that the memory of the rest is freed."""
        skip = y - self.window.y
        window = Window.from_bounds(y, self.window.x, self.window.y_stop, self.window.x_stop)
        valid = None if self.valid is None else self.valid[skip:].copy()
        return _Strip(window, self.values[:, skip:].copy(), valid)


class RowCache:
    """Cache of the rows that windows need: read in the order of the windows, none twice.

    Reflection at the image's border is arithmetic on the rows that are kept: nothing outside the image is read.
    """

    def __init__(self, source: Source, windows: Sequence[Window], *, surplus: int) -> None:
        """Read nothing yet.

        Args:
            source: the image.
            windows: windows that will be needed, from top to bottom; they may leave the image, empty ones need nothing.
            surplus: number of rows that may be read earlier than needed, so that whole blocks of the image are read.
        """
        self._source, self._inside, self._dtype = source, source.grid.window, source.dtype
        self._needs = [pixels_shown(window, self._inside) for window in windows]
        block = source.storage_block[0]
        self._block = block if block <= surplus else 1
        self._strips: list[_Strip] = []
        self._read = 0
        """Row up to which everything needed has been read."""
        self._damage: dict[Damage, None] = {}
        """Damage in the rows that are kept."""
        self.pixels = 0
        """Number of pixels read so far."""

    def advance(self, number: int) -> None:
        """Read the rows that window `number` needs, and drop rows that neither this window nor a later one needs.

        Raises:
            SourceError: the pixels cannot be read.
        """
        need = self._needs[number]
        if need.empty:
            return
        left = [window for window in self._needs[number:] if not window.empty]
        top = min(window.y for window in left)
        kept = (strip for strip in self._strips if strip.window.y_stop > top)
        self._strips = [strip.below(top) if strip.window.y < top else strip for strip in kept]
        self._damage = {one: None for one in self._damage if one.window.y_stop > top}
        if need.y_stop <= self._read:
            return
        start, whole = max(self._read, top), -(-need.y_stop // self._block) * self._block
        stop = min(whole, max(window.y_stop for window in left))
        near = [window for window in left if window.y < stop and window.y_stop > start]
        first, last = min(window.x for window in near), max(window.x_stop for window in near)
        self._add(Window.from_bounds(start, first, stop, last))

    def damage_in(self, window: Window) -> list[Damage]:
        """Damaged parts of the image that a window shows, which may leave the image; all its pixels have been read."""
        if not self._damage:
            return []
        shown = pixels_shown(window, self._inside)
        return [one for one in self._damage if one.window.touches(shown)]

    def _read_sound(self, window: Window) -> Pixels:
        """Pixels of a window, as far as they can be decoded; the damage is kept."""
        try:
            return self._source.read(window)
        except SourceError as error:
            if not is_damage(error):
                raise
        pixels, damage = self._source.salvage(window)
        self._damage.update(dict.fromkeys(damage))
        return pixels

    def _add(self, window: Window) -> None:
        values, valid = self._read_sound(window)
        self._strips.append(_Strip(window, values, None if _all(valid) else valid))
        self._read, self.pixels = window.y_stop, self.pixels + window.area

    def any_valid(self, window: Window) -> bool:
        """Whether any pixel of a window in the image is valid."""
        parts = ((strip, strip.window.intersect(window)) for strip in self._strips)
        return any(
            strip.valid is None or bool(strip.valid[part.slices(strip.window)].any())
            for strip, part in parts
            if not part.empty
        )

    def invalid(self, window: Window) -> NDArray[np.bool_] | None:
        """Mask `(y, x)` of the invalid pixels of a window in the image; None where all pixels are valid."""
        if all(strip.valid is None for strip in self._strips if strip.window.touches(window)):
            return None
        valid = np.ones(window.shape, np.bool_)
        self._copy_valid(window, valid)
        return np.logical_not(valid, out=valid)

    def cut(self, window: Window, out: NDArray[Any], *, fill: float) -> None:
        """Copy a window into `out (channel, y, x)`, reflected where it leaves the image, with `fill` where invalid.

        Args:
            window: the pixels, all of which have been read.
            out: array of a type that holds the image's values and `fill`.
            fill: value of invalid pixels for the network.
        """
        if self._inside.contains(window):
            invalid = self.invalid(window)
            self._copy_values(window, out)
        else:
            values, valid = read_reflected(window, self._inside, self._block_of)
            out[:] = values
            invalid = None if _all(valid) else ~valid
        if invalid is not None:
            np.copyto(out, np.asarray(fill, out.dtype), where=invalid)

    def _block_of(self, window: Window) -> Pixels:
        """Values and validity of a window that lies in the image."""
        values = np.empty((len(self._source.selected), *window.shape), self._dtype)
        self._copy_values(window, values)
        invalid = self.invalid(window)
        return Pixels(values, np.broadcast_to(np.True_, window.shape) if invalid is None else ~invalid)

    def _copy_values(self, window: Window, out: NDArray[Any]) -> None:
        for strip in self._strips:
            part = strip.window.intersect(window)
            if not part.empty:
                out[:, *part.slices(window)] = strip.values[:, *part.slices(strip.window)]

    def _copy_valid(self, window: Window, out: NDArray[np.bool_]) -> None:
        for strip in self._strips:
            part = strip.window.intersect(window)
            if strip.valid is not None and not part.empty:
                out[part.slices(window)] = strip.valid[part.slices(strip.window)]


def pixels_shown(window: Window, inside: Window) -> Window:
    """Bounds of the image's pixels that a window shows, reflected pixels included."""
    if window.empty or inside.contains(window):
        return window
    rows = reflect(window.y, window.y_stop, inside.height)
    columns = reflect(window.x, window.x_stop, inside.width)
    return Window.from_bounds(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)


def _all(valid: NDArray[np.bool_]) -> bool:
    """Whether all pixels are valid; a broadcast array is checked at a single pixel."""
    return bool(valid.all() if any(valid.strides) else valid[:1, :1].all())
