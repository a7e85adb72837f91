"""Areas of pixels on the ground, as whole numbers of a quantum: sums are exact, whatever their order and their tiles.

Pixels of a cell, a rectangle of some rows and columns counted from the image's corner, have one area. Cells are so
small that it varies little in them (`formats.reading.ground_area` makes them); on a plane there is a single one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, frexp

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

BITS = 24
"""Bits of the largest area of a pixel: areas are right to 3e-8 of it, and 2^29 pixels of it are an exact float."""
Whole = NDArray[np.int64]
"""Whole numbers, of quanta or of pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelAreas:
    """Area of each pixel of an image."""

    cell: tuple[int, int]
    """Sides of a cell `(rows, columns)`; the last ones may reach beyond the image."""
    quanta: Whole
    """`(cell row, cell column)`: area of a pixel of the cell."""
    quantum: float
    """Square metres of a quantum, a power of two."""
    _above: Whole = field(init=False, repr=False)
    """`(cell row + 1, cell column + 1)`: quanta above and left of each corner of cells."""
    _rows: Whole = field(init=False, repr=False)
    """`(cell row, cell column + 1)`: quanta of one row of pixels, left of each corner of cells."""
    _columns: Whole = field(init=False, repr=False)
    """`(cell row + 1, cell column)`: quanta of one column of pixels, above each corner of cells."""

    def __post_init__(self) -> None:
        tall, wide = self.cell
        rows = np.pad(np.cumsum(self.quanta * wide, axis=1), ((0, 0), (1, 0)))
        columns = np.pad(np.cumsum(self.quanta * tall, axis=0), ((1, 0), (0, 0)))
        above = np.pad(np.cumsum(rows * tall, axis=0), ((1, 0), (0, 0)))
        for name, table in (("_rows", rows), ("_columns", columns), ("_above", above)):
            object.__setattr__(self, name, table)

    @classmethod
    def of(cls, cell: tuple[int, int], areas: NDArray[np.float64]) -> PixelAreas:
        """Areas from square metres of a pixel of each cell, rounded to the quantum."""
        quantum = 2.0 ** (frexp(float(areas.max(initial=0.0)))[1] - BITS)
        return cls(cell, np.rint(areas / quantum).astype(np.int64), quantum)

    @property
    def uniform(self) -> bool:
        """Whether all pixels have one area."""
        return self.quanta.size == 1

    def up_to(self, y: Whole, x: Whole) -> Whole:
        """Quanta of the rectangle from the image's corner to each position `(y, x)` between pixels.

        The area of a polygon along pixel edges is a sum of them (Green's theorem), and that of a window, too.
        """
        (tall, wide), (rows, columns) = self.cell, self.quanta.shape
        i, j = np.minimum(y // tall, rows - 1), np.minimum(x // wide, columns - 1)
        down, right = y - i * tall, x - j * wide
        own = down * self._rows[i, j] + right * self._columns[i, j] + down * right * self.quanta[i, j]
        return np.asarray(self._above[i, j] + own, np.int64)

    def of_window(self, window: Window) -> int:
        """Quanta of a window."""
        y, x = np.array([window.y, window.y_stop]), np.array([window.x, window.x_stop])
        corners = self.up_to(y[:, None], x[None, :])
        return int(corners[1, 1] - corners[0, 1] - corners[1, 0] + corners[0, 0])

    def of_columns(self, row: int, counts: Whole, x: int) -> int:
        """Quanta of some pixels of a row of cells.

        Args:
            row: number of the row of cells.
            counts: number of the pixels in each column of pixels.
            x: the first of these columns.
        """
        wide = self.cell[1]
        first, last = x // wide, min(ceil((x + len(counts)) / wide), self.quanta.shape[1])
        starts = np.maximum(np.arange(first, last) * wide - x, 0)
        return int(np.add.reduceat(counts, starts, dtype=np.int64) @ self.quanta[row, first:last])


def authalic(latitude: NDArray[np.float64], eccentricity2: float) -> NDArray[np.float64]:
    """Area on an ellipsoid between the equator and a parallel, per radian of longitude and squared semi-major axis.

    From the closed formula for a cell between two parallels (Snyder 1987, Map Projections, eq. 3-12).

    Args:
        latitude: latitudes in radians.
        eccentricity2: squared eccentricity of the ellipsoid; 0 for a sphere.
    """
    sine, e = np.sin(latitude), np.sqrt(eccentricity2)
    bent = np.arctanh(e * sine) / e if e > 0 else sine
    return np.asarray((1 - eccentricity2) / 2 * (sine / (1 - eccentricity2 * sine**2) + bent), np.float64)
