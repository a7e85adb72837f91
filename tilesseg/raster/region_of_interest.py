"""Region of interest (ROI): the cells of a scene that are segmented. The rest is neither read nor predicted.

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
_ROUNDING = 1e-6  # of a region's pixel; the margin of the region covers it


class Region(NamedTuple):
    """The region of interest of a scene, as a mask of low resolution."""

    mask: NDArray[np.bool_]
    """`(y, x)`; it covers the scene."""
    step: tuple[float, float]
    """Sides of its pixels `(y, x)`, in pixels of the scene's grid."""
    corner: tuple[float, float] = (0.0, 0.0)
    """Position `(y, x)` of its corner, in pixels of the scene's grid: that of the scene, or above and left of it."""

    @classmethod
    def stretched(cls, mask: NDArray[np.bool_], *, grid: Grid, native: Grid) -> Region:
        """Region from a mask of any size that covers an image.

        Args:
            mask: True in the region.
            grid: grid of the image as it is read.
            native: grid of the image's own finest pixels.
        """
        y, x = (
            size * side / own / pixels
            for size, side, own, pixels in zip(
                native.shape, native.resolution, grid.resolution, mask.shape, strict=True
            )
        )
        return cls(mask, (y, x))


@dataclass(frozen=True, slots=True)
class RoiCells:
    """The cells of a scene's lattice that lie in the region of interest. Plain data, stored in `plan.json`."""

    stride: int
    shape: tuple[int, int]
    """Number of rows and of columns of cells."""
    label: int
    """Label of the mask outside the region of interest."""
    bits: str
    """One bit for each cell, row by row, 1 in the region of interest: packed, compressed by zlib, as base64."""

    @classmethod
    def of(cls, in_roi: NDArray[np.bool_], *, stride: int, label: int) -> RoiCells:
        """Cells from one boolean for each `(row, column)`."""
        packed = zlib.compress(np.packbits(in_roi).tobytes(), 9)
        height, width = in_roi.shape
        return cls(stride, (height, width), label, base64.b64encode(packed).decode("ascii"))

    @property
    def in_roi(self) -> NDArray[np.bool_]:
        """One boolean for each cell `(row, column)`; not to be written to."""
        return _unpacked(self.bits, self.shape)

    def touches(self, window: Window) -> bool:
        """Whether a window shares pixels with the region of interest; there are no cells outside the image."""
        rows, columns = self._over(window)
        return not window.empty and bool(self.in_roi[rows, columns].any())

    def inside(self, window: Window, *, in_roi: bool = True) -> Iterator[Window]:
        """The parts of a window in the image that lie in the region of interest, or outside it.

        Row of cells by row of cells, neighbours joined.
        """
        side, (rows, columns) = self.stride, self._over(window)
        for i, row in enumerate(self.in_roi[rows, columns], start=rows.start):
            for start, stop in _runs(row == in_roi):
                run = Window(i * side, (columns.start + start) * side, side, (stop - start) * side)
                yield run.intersect(window)

    def pixels(self, shape: tuple[int, int]) -> int:
        """Number of pixels of an image of `shape` in the region of interest."""
        heights, widths = (
            np.diff(np.minimum(np.arange(n + 1) * self.stride, size)) for n, size in zip(self.shape, shape, strict=True)
        )
        return int(heights @ self.in_roi @ widths)

    def _over(self, window: Window) -> tuple[slice, slice]:
        """Rows and columns of the cells that a window touches."""
        side = self.stride
        y, x = max(0, window.y // side), max(0, window.x // side)
        return slice(y, max(y, ceil(window.y_stop / side))), slice(x, max(x, ceil(window.x_stop / side)))


def roi_cells(region: Region, *, shape: tuple[int, int], stride: int) -> NDArray[np.bool_]:
    """Cells that the pixels of a region overlap, with a margin of one of its pixels.

    Args:
        region: the region of interest.
        shape: shape of the scene.
        stride: side of a cell.

    Returns:
        One boolean for each cell `(row, column)`.
    """
    rows, columns = (
        _region_spans(size, stride, step, pixels, start)
        for size, step, pixels, start in zip(shape, region.step, region.mask.shape, region.corner, strict=True)
    )
    return _any_inside(region.mask, rows, columns)


class RoiWork(NamedTuple):
    """Work of a tiling in a region of interest."""

    tiles: int
    """Number of tiles that read anything."""
    patches: int
    """Number of patches that the tiles predict at most; a patch that two tiles share is counted twice."""
    lattice_patches: int
    """Number of these patches, each counted once."""


def roi_work(cells: RoiCells, tiling: Tiling) -> RoiWork:
    """Tiles and patches in a region of interest; patches without a valid pixel are not known yet, and counted."""
    axes = list(zip(tiling.shape, tiling.core, strict=True))
    cores = [[(y, min(y + core, size)) for y in range(0, size, core)] for size, core in axes]
    wholes = [[(0, size)] for size in tiling.shape]
    in_roi, side = cells.in_roi, cells.stride
    return RoiWork(
        int(_any_inside(in_roi, *(_cell_spans(spans, side) for spans in cores)).sum()),
        int(_any_inside(in_roi, *(_cell_spans(_supports(tiling.lattice, spans), side) for spans in cores)).sum()),
        int(_any_inside(in_roi, *(_cell_spans(_supports(tiling.lattice, spans), side) for spans in wholes)).sum()),
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


def _region_spans(size: int, stride: int, step: float, pixels: int, start: float) -> Spans:
    """For each cell of an axis, the range of a region's pixels that it overlaps, with one more on each side."""
    cells = ((y - start, min(y + stride, size) - start) for y in range(0, size, stride))
    spans = ((floor(y / step + _ROUNDING) - 1, ceil(stop / step - _ROUNDING) + 1) for y, stop in cells)
    return [(min(max(0, first), pixels - 1), min(max(1, stop), pixels)) for first, stop in spans]


def _supports(lattice: Lattice, cores: Spans) -> Spans:
    """The part of its core to which each patch contributes, along an axis that the cores cover."""
    size = cores[-1][1]
    return [
        (
            max(start, lattice.origin(k) + lattice.before),
            min(stop, lattice.origin(k) + lattice.before + lattice.support),
        )
        for start, stop in cores
        for k in lattice.touching(start, stop, size)
    ]


def _cell_spans(spans: Spans, side: int) -> Spans:
    """Ranges of the cells that ranges of pixels touch."""
    return [(start // side, ceil(stop / side)) for start, stop in spans]


def _any_inside(flags: NDArray[np.bool_], rows: Spans, columns: Spans) -> NDArray[np.bool_]:
    """Whether anything is True in each rectangle `rows[i]` by `columns[j]`, by a table of sums."""
    sums = np.zeros((flags.shape[0] + 1, flags.shape[1] + 1), np.int64)
    sums[1:, 1:] = flags.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    (tops, bottoms), (lefts, rights) = np.array(rows).T, np.array(columns).T
    inside = np.empty((len(rows), len(columns)), np.bool_)
    for out, top, bottom in zip(inside, tops, bottoms, strict=True):
        between = sums[bottom] - sums[top]
        out[:] = between[rights] > between[lefts]
    return inside
