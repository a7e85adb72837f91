"""Region of interest: the cells of a scene that are segmented. The rest is neither read nor predicted.

Cell `(i, j)` of the lattice holds the pixels `i·S … (i + 1)·S − 1` by `j·S … (j + 1)·S − 1`, S being the stride. A
pixel's value depends on its cell and on the lattice alone: never on tiles, workers or order.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.grid import Grid
from tilesseg.raster.tiling import Lattice, Tiling
from tilesseg.raster.window import Window

Spans = list[tuple[int, int]]
"""Half-open ranges along an axis."""
_ROUNDING = 1e-6  # of a region's pixel; where it matters, its margin makes up for it


class Region(NamedTuple):
    """Where to look in a scene, at low resolution."""

    mask: NDArray[np.bool_]
    """`(y, x)`, its corner on the scene's."""
    step: tuple[float, float]
    """Sides of its pixels `(y, x)`, in pixels of the scene's grid."""

    @classmethod
    def stretched(cls, mask: NDArray[np.bool_], *, grid: Grid, native: Grid) -> Region:
        """From a mask of any size that covers an image: `native` is the image's own grid, `grid` the one read."""
        y, x = (
            size * side / own / pixels
            for size, side, own, pixels in zip(
                native.shape, native.resolution, grid.resolution, mask.shape, strict=True
            )
        )
        return cls(mask, (y, x))


@dataclass(frozen=True, slots=True)
class RoiCells:
    """Which cells of a scene's lattice are looked at. Plain data, stored in `plan.json`."""

    stride: int
    shape: tuple[int, int]
    """Rows and columns of cells."""
    label: int
    """What the mask holds in the others."""
    bits: str
    """Which are looked at, row by row: packed, compressed by zlib, as base64."""

    @classmethod
    def of(cls, looked_at: NDArray[np.bool_], *, stride: int, label: int) -> RoiCells:
        """From one boolean for each cell `(row, column)`."""
        packed = zlib.compress(np.packbits(looked_at).tobytes(), 9)
        height, width = looked_at.shape
        return cls(stride, (height, width), label, base64.b64encode(packed).decode("ascii"))

    @property
    def looked_at(self) -> NDArray[np.bool_]:
        """One boolean for each cell `(row, column)`; not to be written to."""
        return _unpacked(self.bits, self.shape)

    def touches(self, window: Window) -> bool:
        """Whether a cell that is looked at shares pixels with a window; what lies outside the image has no cells."""
        rows, columns = self._over(window)
        return not window.empty and bool(self.looked_at[rows, columns].any())

    def inside(self, window: Window, *, looked_at: bool = True) -> Iterator[Window]:
        """The parts of a window in the image that lie in cells that are looked at, or in the others.

        Row of cells by row of cells, neighbours joined.
        """
        side, (rows, columns) = self.stride, self._over(window)
        for i, row in enumerate(self.looked_at[rows, columns], start=rows.start):
            for start, stop in _runs(row == looked_at):
                run = Window(i * side, (columns.start + start) * side, side, (stop - start) * side)
                yield run.intersect(window)

    def pixels(self, shape: tuple[int, int]) -> int:
        """How many pixels of an image of `shape` are looked at."""
        heights, widths = (
            np.diff(np.minimum(np.arange(n + 1) * self.stride, size)) for n, size in zip(self.shape, shape, strict=True)
        )
        return int(heights @ self.looked_at @ widths)

    def _over(self, window: Window) -> tuple[slice, slice]:
        """The cells that a window touches."""
        side = self.stride
        y, x = max(0, window.y // side), max(0, window.x // side)
        return slice(y, max(y, ceil(window.y_stop / side))), slice(x, max(x, ceil(window.x_stop / side)))


def roi_cells(region: Region, *, shape: tuple[int, int], stride: int) -> NDArray[np.bool_]:
    """Which cells a region looks at: those that its pixels overlap, with a margin of one of its pixels.

    Args:
        region: where to look.
        shape: of the scene.
        stride: side of a cell.

    Returns:
        One boolean for each cell `(row, column)`.
    """
    rows, columns = (
        _seen(size, stride, step, pixels)
        for size, step, pixels in zip(shape, region.step, region.mask.shape, strict=True)
    )
    return _any_inside(region.mask, rows, columns)


class RoiWork(NamedTuple):
    """What is left of a tiling where only some cells are looked at."""

    tiles: int
    """Tiles that read anything."""
    patches: int
    """Patches that they predict at most, those counted twice that two tiles share."""
    lattice_patches: int
    """The same, each counted once."""


def roi_work(cells: RoiCells, tiling: Tiling) -> RoiWork:
    """Count what is left to do; the patches under which nothing is valid are not known yet."""
    axes = list(zip(tiling.shape, tiling.core, strict=True))
    cores = [[(y, min(y + core, size)) for y in range(0, size, core)] for size, core in axes]
    wholes = [[(0, size)] for size in tiling.shape]
    looked_at, side = cells.looked_at, cells.stride
    return RoiWork(
        int(_any_inside(looked_at, *(_cells(spans, side) for spans in cores)).sum()),
        int(_any_inside(looked_at, *(_cells(_supports(tiling.lattice, spans), side) for spans in cores)).sum()),
        int(_any_inside(looked_at, *(_cells(_supports(tiling.lattice, spans), side) for spans in wholes)).sum()),
    )


@lru_cache(maxsize=8)
def _unpacked(bits: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    packed = np.frombuffer(zlib.decompress(base64.b64decode(bits)), np.uint8)
    flags = np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
    flags.flags.writeable = False
    return flags


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of neighbours that are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _seen(size: int, stride: int, step: float, pixels: int) -> Spans:
    """For each cell of an axis, the pixels of a region that it overlaps, and one more on each side."""
    cells = ((y, min(y + stride, size)) for y in range(0, size, stride))
    spans = ((floor(y / step + _ROUNDING) - 1, ceil(stop / step - _ROUNDING) + 1) for y, stop in cells)
    return [(min(max(0, start), pixels - 1), min(max(1, stop), pixels)) for start, stop in spans]


def _supports(lattice: Lattice, cores: Spans) -> Spans:
    """What each patch that a core computes contributes to it, along an axis of which the cores are all."""
    size = cores[-1][1]
    return [
        (
            max(start, lattice.origin(k) + lattice.before),
            min(stop, lattice.origin(k) + lattice.before + lattice.support),
        )
        for start, stop in cores
        for k in lattice.touching(start, stop, size)
    ]


def _cells(spans: Spans, side: int) -> Spans:
    """The cells that ranges of pixels touch."""
    return [(start // side, ceil(stop / side)) for start, stop in spans]


def _any_inside(flags: NDArray[np.bool_], rows: Spans, columns: Spans) -> NDArray[np.bool_]:
    """Whether anything is True in each rectangle `rows[i]` by `columns[j]`, by a table of sums."""
    sums = np.zeros((flags.shape[0] + 1, flags.shape[1] + 1), np.int64)
    sums[1:, 1:] = flags.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    (tops, bottoms), (lefts, rights) = np.array(rows).T, np.array(columns).T
    found = np.empty((len(rows), len(columns)), np.bool_)
    for out, top, bottom in zip(found, tops, bottoms, strict=True):
        between = sums[bottom] - sums[top]
        out[:] = between[rights] > between[lefts]
    return found
