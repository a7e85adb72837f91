"""A picture on another grid with the same top-left corner: pixels of another size, resampled while they are read.

Output pixel `i` covers the picture from `i·s` to `(i + 1)·s`, `s` being the step, counted from the corner. The pixels
of a window do not depend on which window is read; see `resample`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.damage import Damage, Parts, mark_valid, seen_through
from tilesseg.formats.reading.band_planes import ImageBand, Planes, finite_only, mask_count, masks_of, planes_of, voting
from tilesseg.formats.reading.image import Reader, Shape
from tilesseg.formats.reading.resample import Pair, resample, source_window, under_centres
from tilesseg.formats.reading.validity import joined
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

_SIDE = 4096
"""Side in pixels of the base of the square that is read at once: the mean of a large window would fill the memory."""


@dataclass(frozen=True, slots=True)
class ResampledReader(Reader):
    """Reads the picture of another reader on its own grid; see `reading.image.Reader`."""

    base: Reader
    step: Pair = (1.0, 1.0)
    """Size of a pixel in pixels of the base, `(y, x)`."""

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        if self._as_it_is:
            return self.base.read(window, bands)
        chosen, shape = self._chosen(bands), self.base.facts.grid.shape

        def part(piece: Window) -> Planes:
            base = partial(self.base.read, bands=bands)
            return read_resampled(base, piece, step=self.step, shape=shape, bands=chosen)

        return planes_of(*self._joined(part, window, bands), chosen)

    def salvage(self, window: Window, bands: Sequence[int]) -> Parts:
        """See `Reader.salvage`: a pixel is damaged where any of the base's pixels that it is computed from is."""
        if self._as_it_is:
            return self.base.salvage(window, bands)
        chosen, shape, grid = self._chosen(bands), self.base.facts.grid.shape, self.facts.grid.shape
        damage: dict[Damage, None] = {}

        def part(piece: Window) -> Planes:
            base = partial(self.base.salvage, bands=bands)
            pixels, found = salvage_resampled(base, piece, step=self.step, shape=shape, grid=grid, bands=chosen)
            damage.update(dict.fromkeys(found))
            return pixels

        values, masks = self._joined(part, window, bands)
        return Parts(values, masks, tuple(damage))

    def refuse_damaged(self, bands: Sequence[int]) -> None:
        self.base.refuse_damaged(bands)

    def rows(self, height: int, bands: Sequence[int]) -> Iterator[Planes]:
        """See `Reader.rows`."""
        return self.base.rows(height, bands) if self._as_it_is else Reader.rows(self, height, bands)

    def storage_block(self, bands: Sequence[int]) -> Shape:
        """See `Reader.storage_block`: the base's, in this grid's pixels."""
        height, width = np.ceil(np.array(self.base.storage_block(bands)) / self.step).astype(int).tolist()
        return height, width

    def describe_files(self) -> list[dict[str, Any]]:
        return self.base.describe_files()

    def counted_notes(self, bands: Sequence[int]) -> list[str]:
        return self.base.counted_notes(bands)

    @property
    def unresampled(self) -> Reader:
        return self.base.unresampled

    @property
    def _as_it_is(self) -> bool:
        return self.step == (1.0, 1.0)

    def _chosen(self, bands: Sequence[int]) -> list[ImageBand]:
        return [self.facts.bands[i] for i in bands]

    def _joined(
        self, part: Callable[[Window], Planes], window: Window, bands: Sequence[int]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.bool_]]]:
        """Values `(channel, y, x)` and masks `(y, x)` of a window, from a function that reads a piece of it."""
        values = np.empty((len(bands), *window.shape), np.float32)
        masks = [np.empty(window.shape, np.bool_) for _ in range(mask_count(self._chosen(bands)))]
        for piece in self._pieces(window, bands):
            pixels, place = part(piece), piece.slices(window)
            values[:, *place] = pixels.values
            for plane, mask in zip(masks, masks_of(pixels), strict=True):
                plane[place] = mask
        return values, masks

    def _pieces(self, window: Window, bands: Sequence[int]) -> Iterator[Window]:
        """Parts of a window that cover few enough of the base's pixels; the same pixels however it is cut.

        Full rows where the base is decoded by rows, so that none is decoded once for each part.
        """
        by_rows = self.base.storage_block(bands)[1] >= self.base.facts.grid.width
        most = min(window.width, max(1, int(_SIDE / self.step[1])))
        width = window.width if by_rows else most
        height = max(1, int(_SIDE**2 / (width * self.step[1] * self.step[0])))
        for y in range(window.y, window.y_stop, height):
            for x in range(window.x, window.x_stop, width):
                yield Window(y, x, height, width).intersect(window)


def resampled_reader(
    base: Reader,
    grid: Grid,
    *,
    native: Grid,
    step: Pair = (1.0, 1.0),
    levels: tuple[Reader, ...] = (),
    note: str | None = None,
) -> ResampledReader:
    """The picture of a reader on another grid.

    Args:
        base: the level that is read.
        grid: the grid of the result, with the base's top-left corner.
        native: the grid of the image's finest pixels.
        step: size of a pixel in pixels of the base, `(y, x)`.
        levels: coarser pictures, see `Reader.levels`.
        note: sentence for the description.
    """
    facts = base.facts
    bands = tuple(replace(band, resampled=band.resampled or step != (1.0, 1.0)) for band in facts.bands)
    properties = dict(facts.properties)
    if native.unit == "micrometre":
        y, x = native.resolution
        properties["mpp"] = {"y": y, "x": x}
    notes = (*facts.notes, *([note] if note else []))
    facts = replace(facts, grid=grid, native=native, bands=bands, properties=properties, notes=notes)
    return ResampledReader(facts, base, step, levels=levels)


def read_resampled(
    read: Callable[[Window], Planes], window: Window, *, step: Pair, shape: Shape, bands: Sequence[ImageBand]
) -> Planes:
    """Pixels of a window of the output grid, from those of the base; invalid ones do not contribute.

    Args:
        read: reads a window of the base.
        window: output pixels.
        step: size of an output pixel in pixels of the base, `(y, x)`.
        shape: shape of the base.
        bands: bands that are read.
    """
    source = source_window(window, step, shape)
    base = read(source)
    covered = finite_only(base)
    place: Any = {"scale": step, "source": source, "shape": shape}
    values, _ = resample(base.values, joined(covered, voting(base, bands)), window, **place)
    masks = ([under_centres(plane, window, **place) for plane in planes] for planes in (covered, base.data))
    return Planes(values, *masks)


def salvage_resampled(
    salvage: Callable[[Window], Parts],
    window: Window,
    *,
    step: Pair,
    shape: Shape,
    grid: Shape,
    bands: Sequence[ImageBand],
) -> tuple[Planes, tuple[Damage, ...]]:
    """Pixels of a window of the output grid from those of a damaged base, and the damage on that grid.

    Args:
        salvage: reads a window of the base, see `Reader.salvage`.
        window: output pixels.
        step: size of an output pixel in pixels of the base, `(y, x)`.
        shape: shape of the base.
        grid: shape of the output grid.
        bands: bands that are read.
    """
    found: list[Damage] = []

    def read(source: Window) -> Planes:
        values, masks, damage = salvage(source)
        found.extend(damage)
        return planes_of(values, masks, bands)

    planes = read_resampled(read, window, step=step, shape=shape, bands=bands)
    damage = seen_through(found, shape=grid, source_of=lambda pixel: source_window(pixel, step, shape))
    mark_valid(masks_of(planes), window, damage)
    return planes, damage
