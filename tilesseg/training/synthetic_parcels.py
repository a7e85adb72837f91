"""Farmland: a bent lattice of cells, each cut into parcels with straight sides, one crop, and traces of the plough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window
from tilesseg.training.synthetic_noise import Floats, fractal, uniform

if TYPE_CHECKING:
    from collections.abc import Iterator


Indices = NDArray[np.int64]
Points = NDArray[np.float64]

CROPS = np.array(
    [
        (380, 720, 430, 3500),  # winter wheat
        (560, 1180, 1000, 3300),  # rape in flower
        (420, 640, 480, 2500),  # maize, near forest
        (620, 900, 820, 2500),  # ley, near rough grass
        (720, 1120, 1420, 2350),  # stubble
        (640, 930, 1190, 1750),  # bare soil
        (480, 530, 460, 460),  # wet peat, near turbid water
        (300, 520, 330, 2900),  # beet, darker than most forest
    ],
    np.float32,
)
"""Blue, green, red, near infrared: reflectance × 10000."""
PLANTATION = len(CROPS)
"""Kind of a parcel planted with trees; the other kinds are rows of CROPS."""
_CELL = 144
_WARP = 150.0


@dataclass(frozen=True, slots=True)
class Farmland:
    """Parcels in a window; number 0 is no parcel."""

    parcels: NDArray[np.int32]
    """`(y, x)`: number of the parcel at each pixel."""
    streaks: Floats
    """`(y, x)`: relative brightness along the plough, and dark verges."""
    kinds: Indices
    """Kind of each parcel, by its number."""
    crops: Floats
    """`(number, band)`: colour of each parcel."""


def farmland(window: Window, seed: int) -> Farmland:
    """Draw all parcels that touch a window, in the order of the lattice."""
    corners, keys = _parcels(window, seed)
    kinds = (uniform(seed, "crop", keys) * (PLANTATION + 0.7)).astype(np.int64)
    tint = 1 + 0.16 * (uniform(seed, "hue", keys[:, None], np.arange(CROPS.shape[1])) - 0.5)
    tint *= 1 + 0.3 * (uniform(seed, "tint", keys) - 0.5)[:, None]
    crops = CROPS[np.minimum(kinds, PLANTATION - 1)] * tint
    drawn = Farmland(
        np.zeros(window.shape, np.int32),
        np.zeros(window.shape, np.float32),
        np.concatenate([[0], kinds]),
        np.concatenate([CROPS[:1], crops]).astype(np.float32),
    )
    ploughs = (uniform(seed, "plough", keys) * len(_ploughs(seed))).astype(np.int64)
    for number, corner in enumerate(corners):
        _draw(drawn, window, corner, number + 1, _ploughs(seed)[ploughs[number]])
    return drawn


def _draw(drawn: Farmland, window: Window, corner: Points, number: int, plough: Floats) -> None:
    """Draw a convex parcel by the distance to its four sides; coordinates count from its own upper left."""
    (y0, x0), (y1, x1) = np.floor(corner.min(0)).astype(int), np.ceil(corner.max(0)).astype(int) + 1
    box = Window.from_bounds(y0, x0, y1, x1).intersect(window)
    y = np.arange(box.y - y0, box.y_stop - y0, dtype=np.float32)[:, None]
    x = np.arange(box.x - x0, box.x_stop - x0, dtype=np.float32)
    points = corner - (y0, x0)
    sides = [_distance(y, x, points[n - 4], points[n - 3]) for n in range(4)]
    edge = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    inside, at = edge >= 0, box.slices(window)
    furrow = plough[np.clip(2 * sides[0], 0, len(plough) - 1).astype(np.int32)]
    verge = np.where(edge < 1.3, np.float32(-0.18), np.float32(0))
    drawn.parcels[at][inside] = number
    drawn.streaks[at][inside] = (furrow + verge)[inside]


def _distance(y: Floats, x: Floats, a: Points, b: Points) -> Floats:
    """Distance of pixels from the line a–b, positive on its right hand."""
    dy, dx = (b - a) / (np.hypot(*(b - a)) + 1e-6)
    result: Floats = (y - np.float32(a[0])) * np.float32(dx) - (x - np.float32(a[1])) * np.float32(dy)
    return result


def _parcels(window: Window, seed: int) -> tuple[Points, Indices]:
    """Corners `(n, 4, (y, x))`, clockwise from the upper left, and a key of each parcel that touches the window."""
    reach = int(_WARP * 2.5) // _CELL + 2
    i = np.arange(window.y // _CELL - reach, window.y_stop // _CELL + reach + 1)
    j = np.arange(window.x // _CELL - reach, window.x_stop // _CELL + reach + 1)
    mesh = _mesh(i, j, seed)
    farmed = fractal(i * np.float64(_CELL), j * np.float64(_CELL), seed, "farmed", 750, 3) > -0.35
    quads = np.stack([mesh[:-1, :-1], mesh[:-1, 1:], mesh[1:, 1:], mesh[1:, :-1]], axis=2)
    cells = np.argwhere(_touches(quads, window) & farmed[:-1, :-1])
    parcels = [
        parcel for row, column in cells for parcel in _cut(quads[row, column], int(i[row]), int(j[column]), seed)
    ]
    corners = np.array([corner for corner, _ in parcels]).reshape(-1, 4, 2)
    keys = np.array([key for _, key in parcels], np.int64)
    near = _touches(corners, window)
    return corners[near], keys[near]


def _touches(corners: Points, window: Window) -> NDArray[np.bool_]:
    """Whether polygons `(…, corner, (y, x))` may hold a pixel of the window."""
    before = (corners.min(-2) < (window.y_stop, window.x_stop)).all(-1)
    after = (corners.max(-2) >= (window.y - 1, window.x - 1)).all(-1)
    result: NDArray[np.bool_] = before & after
    return result


def _mesh(i: Indices, j: Indices, seed: int) -> Points:
    """Corners of the cells `(i, j, (y, x))`: a square lattice, bent by slow noise and shaken."""
    rows, columns = i * np.float64(_CELL), j * np.float64(_CELL)
    y, x = (fractal(rows, columns, seed, f"bent {axis}", 1400, 1) * np.float64(_WARP) for axis in "yx")
    v, u = ((uniform(seed, f"shaken {axis}", i[:, None], j) - 0.5) * 0.36 * _CELL for axis in "yx")
    return np.stack([rows[:, None] + y + v, columns + x + u], axis=-1)


def _cut(quad: Points, i: int, j: int, seed: int) -> Iterator[tuple[Points, int]]:
    """Cut a cell into parcels with their keys: few across, more along."""
    draw = uniform(seed, "cut", np.array([i]), np.array([j]), np.arange(3))
    few, many = 1 + int(draw[0] * 2.2), 1 + int(draw[1] * 4)
    down, across = (few, many) if draw[2] < 0.5 else (many, few)
    s, t = np.linspace(0, 1, down + 1)[:, None, None], np.linspace(0, 1, across + 1)[:, None]
    a, b, c, d = quad
    points = (1 - s) * ((1 - t) * a + t * b) + s * ((1 - t) * d + t * c)
    for p in range(down):
        for q in range(across):
            corner = np.stack([points[p, q], points[p, q + 1], points[p + 1, q + 1], points[p + 1, q]])
            wide = np.hypot(*(corner[1] - corner[0])) >= np.hypot(*(corner[2] - corner[1]))
            yield (corner if wide else np.roll(corner, -1, 0)), (i * 65536 + j) * 16 + p * 4 + q  # plough the long way


@lru_cache(maxsize=4)
def _ploughs(seed: int) -> Floats:
    """Sixty-four ways to plough: relative brightness across a parcel, in half pixels."""
    step = uniform(seed, "furrow", np.arange(64)[:, None], np.arange(2048)) - 0.5
    strips = step + np.roll(step, 1, 1) + np.roll(step, 2, 1) + np.roll(step, 3, 1)
    strength = 0.05 + 0.07 * uniform(seed, "depth of furrow", np.arange(64))[:, None]
    return (strips * strength).astype(np.float32)
