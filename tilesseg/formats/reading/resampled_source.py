"""A slide at the pixel size that is wanted: the level that serves best, resampled on the fly where none has it.

Output pixel `i` covers the level from `i·s` to `(i + 1)·s`, `s` being wanted ÷ the level's own pixel size, counted
from the slide's corner. What a window holds does not depend on which window asked; see `resample`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.edge_padding import read_reflected
from tilesseg.formats.reading.georeference import describe_grid
from tilesseg.formats.reading.resample import Pair, exact_ratio, output_shape, resample, source_window
from tilesseg.formats.reading.source_checks import refuse_outside
from tilesseg.formats.reading.validity import Scaling, finish
from tilesseg.formats.source import Pixels, Raw, Source
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

MICROMETRE = 1e-6
_SIDE = 4096
"""Of the level's pixels, the square of this many are read at once: a mean over many would fill the memory."""


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A source on another grid with the same top-left corner; see `formats.Source`."""

    base: Source
    """The level that is read."""
    grid: Grid
    native: Grid
    step: Pair = (1.0, 1.0)
    """Size of a pixel in pixels of the level, `(y, x)`."""
    levels: Sequence[Source] = ()
    note: str | None = None
    """What should be said of it."""

    @property
    def bands(self) -> tuple[str | None, ...]:
        return self.base.bands

    @property
    def selected(self) -> tuple[int, ...]:
        return self.base.selected

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.base.dtype if self._as_it_is else np.dtype(np.float32)

    @property
    def raw_dtypes(self) -> tuple[np.dtype[Any], ...]:
        types = self.base.raw_dtypes
        return types if self._as_it_is else (np.dtype(np.float32),) * len(types)

    @property
    def scaling(self) -> tuple[Scaling, ...]:
        return self.base.scaling

    @property
    def masks(self) -> tuple[int, ...]:
        return self.base.masks

    @property
    def storage_block(self) -> tuple[int, int]:
        """The level's, in this grid's pixels."""
        height, width = (
            int(np.ceil(side / step)) for side, step in zip(self.base.storage_block, self.step, strict=True)
        )
        return min(self.grid.height, height), min(self.grid.width, width)

    def select(self, indices: Sequence[int]) -> Rescaled:
        """The same image, reading these bands; see `formats.Source.select`."""
        levels = tuple(level.select(indices) for level in self.levels)
        return replace(self, base=self.base.select(indices), levels=levels)

    def read(self, window: Window) -> Pixels:
        return read_reflected(window, self.grid.window, self._read_inside)

    def read_raw(self, window: Window) -> Raw:
        refuse_outside(window, self.grid.window)
        if self._as_it_is:
            return self.base.read_raw(window)
        values = np.empty((len(self.selected), *window.shape), np.float32)
        valid = np.empty((len(set(self.masks)), *window.shape), np.bool_)
        for piece in self._pieces(window):
            place = piece.slices(window)
            values[:, *place], valid[:, *place] = self._resampled(piece)
        return Raw(values, valid)

    def _pieces(self, window: Window) -> Iterator[Window]:
        """Parts of a window that cover few enough of the level's pixels; the same pixels however it is cut.

        Full rows where the level is decoded by rows, so that none is decoded once for each part.
        """
        by_rows = self.base.storage_block[1] >= self.base.grid.width
        most = min(window.width, max(1, int(_SIDE / self.step[1])))
        width = window.width if by_rows else most
        height = max(1, int(_SIDE**2 / (width * self.step[1] * self.step[0])))
        for y in range(window.y, window.y_stop, height):
            for x in range(window.x, window.x_stop, width):
                yield Window(y, x, height, width).intersect(window)

    def _resampled(self, window: Window) -> Raw:
        shape = self.base.grid.shape
        source = source_window(window, self.step, shape)
        seen = self.base.read_raw(source)
        values = np.empty((len(self.selected), *window.shape), np.float32)
        valid = np.empty((len(seen.valid), *window.shape), np.bool_)
        for number, plane in enumerate(seen.valid):
            channels = [k for k, mask in enumerate(self.masks) if mask == number]
            if seen.values.dtype.kind == "f":
                plane = plane & np.isfinite(seen.values[channels]).all(axis=0)
            values[channels], valid[number] = resample(
                seen.values[channels], plane, window, scale=self.step, source=source, shape=shape
            )
        return Raw(values, valid)

    def rows(self, height: int) -> Iterator[Raw]:
        if self._as_it_is:
            yield from self.base.rows(height)
            return
        for y in range(0, self.grid.height, height):
            yield self.read_raw(Window(y, 0, min(height, self.grid.height - y), self.grid.width))

    def sample(self) -> NDArray[np.float64]:
        return self.base.sample()

    def thumbnail(self, size: int) -> Pixels:
        return self.base.thumbnail(size)

    def identity(self) -> dict[str, Any]:
        return self.base.identity()

    def describe(self) -> dict[str, Any]:
        facts = self.base.describe() | describe_grid(self.grid)
        if self.native.unit == "micrometre":
            y, x = self.native.resolution
            facts["mpp"] = {"y": y, "x": x}
        return facts | {"notes": [*facts.get("notes", ()), *([self.note] if self.note else [])]}

    @property
    def _as_it_is(self) -> bool:
        return self.step == (1.0, 1.0)

    def _read_inside(self, window: Window) -> Pixels:
        if self._as_it_is:
            return self.base.read(window)
        values, planes = self.read_raw(window)
        return finish(values, list(planes), scalings=[self.scaling[i] for i in self.selected], dtype=self.dtype)


_: type[Source] = Rescaled


def rescaled(source: Source, resolution: float, *, tolerance: float) -> Source:
    """The image at a pixel size: one of its levels where that is near enough, else resampled from the best of them.

    The best level is the coarsest whose pixels are no larger than those wanted: shrinking takes the area mean, and
    only an image that is itself too coarse is enlarged, by linear interpolation.

    Args:
        source: the image at its full resolution.
        resolution: side of a pixel, in the unit of the image's grid.
        tolerance: share by which a level's pixels may differ and still be taken as they are.
    """
    candidates = [source, *source.levels]
    near = [one for one in candidates if _away(one.grid, resolution) <= tolerance]
    if near:
        best = min(near, key=lambda one: _away(one.grid, resolution))
        note = None if _away(best.grid, resolution) < 1e-9 else _taken(best.grid, resolution, tolerance)
        return Rescaled(best, best.grid, source.native, note=note)
    fine = [one for one in candidates if max(one.grid.resolution) <= resolution]
    best = fine[-1] if fine else source
    y, x = (exact_ratio(resolution / side) for side in best.grid.resolution)
    height, width = output_shape(best.grid.shape, (y, x))
    a, b, c, d, e, f = best.grid.transform
    grid = replace(best.grid, height=height, width=width, transform=(a * x, b * y, c, d * x, e * y, f))
    return Rescaled(best, grid, source.native, (y, x), note=_resampled(best.grid, resolution))


def with_mpp(source: Source, mpp: float, *, image: str) -> Source:
    """The image with pixels of `mpp` micrometres at its full resolution, whatever its file says.

    Raises:
        SourceError: it has a CRS, so that its pixels already have a size on the Earth.
    """
    if source.grid.crs is not None:
        y, x = source.grid.resolution
        raise SourceError(
            f"{image}: mpp {mpp:g} is given, and its CRS says that pixels are {x:g} × {y:g} {source.grid.unit}; leave "
            "mpp out"
        )
    factor = mpp / source.native.resolution[1]
    levels = tuple(Rescaled(one, _sized(one.grid, factor), _sized(one.native, factor)) for one in source.levels)
    return Rescaled(source, _sized(source.grid, factor), _sized(source.native, factor), levels=levels)


def _sized(grid: Grid, factor: float) -> Grid:
    """The same pixels, of sides `factor` times as long in micrometres as they are in the grid's own unit."""
    a, b, c, d, e, f = (number * factor for number in grid.transform)
    return replace(grid, transform=(a, b, c, d, e, f), unit="micrometre", metres_per_unit=MICROMETRE)


def _away(grid: Grid, resolution: float) -> float:
    """Share by which the side of a pixel that differs most is longer or shorter than the one wanted."""
    return max(abs(side / resolution - 1) for side in grid.resolution)


def _taken(grid: Grid, resolution: float, tolerance: float) -> str:
    return (
        f"pixels of {grid.resolution[1]:.6g} {grid.unit} are taken as they are for the {resolution:.6g} wanted: they "
        f"differ by {_away(grid, resolution):.1%}, less than the tolerance of {tolerance:.0%}"
    )


def _resampled(grid: Grid, resolution: float) -> str:
    how = "area means" if resolution >= max(grid.resolution) else "interpolated: the image is coarser than that"
    return f"resampled from pixels of {grid.resolution[1]:.6g} to {resolution:.6g} {grid.unit} ({how})"
