"""A synthetic landscape whose true classes are known to the pixel: for the demo, for training its model, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window
from tilesseg.training.synthetic_noise import STEP, Floats, fractal, interpolate, nodes, smooth, texture
from tilesseg.training.synthetic_parcels import PLANTATION, farmland

BANDS = ("blue", "green", "red", "nir")
CLASSES = ("open", "water", "field", "forest")
OPEN, WATER, FIELD, FOREST = range(4)
NODATA = 0
"""Value of all bands beside the swath; no valid pixel has it."""

_STRIP = 256
"""Rows that are made at a time, so that they stay in the cache, and memory is little more than the result."""
# Reflectance × 10000 in the order of BANDS. Two colours make a range that slow noise mixes.
_DRY, _LUSH = (640, 900, 1010, 2050), (430, 760, 560, 3050)
_CONIFER, _BROADLEAF = (300, 430, 300, 1900), (350, 640, 400, 3300)
_DEEP, _TURBID = (420, 430, 280, 180), (760, 980, 800, 560)
_HAZE = np.array((2700, 2550, 2450, 2700), np.float32)


class Landscape(NamedTuple):
    """Image of the sensor, and true classes of the ground."""

    bands: NDArray[np.uint16]
    """`(4, y, x)`: BANDS as reflectance × 10000; NODATA where not valid."""
    labels: NDArray[np.uint8]
    """`(y, x)`: index into CLASSES, known beside the swath too."""
    valid: NDArray[np.bool_]
    """`(y, x)`: inside the swath."""


def landscape(shape: tuple[int, int], seed: int, *, window: Window | None = None) -> Landscape:
    """Make a scene, or a window of it: about 5 Mpx/s on one core.

    Args:
        shape: height and width of the whole scene in pixels; only the swath depends on it.
        seed: seed of the landscape.
        window: requested pixels, inside the scene; default: all of it.

    Raises:
        ValueError: the window leaves the scene.
    """
    whole = Window(0, 0, *shape)
    window = whole if window is None else window
    if not whole.contains(window):
        raise ValueError(f"{window} leaves the scene of {shape[0]} × {shape[1]} pixels; give a window inside it")
    scene = Landscape(
        np.empty((len(BANDS), *window.shape), np.uint16), np.empty(window.shape, np.uint8), _swath(shape, window)
    )
    for y in range(window.y, window.y_stop, _STRIP):
        strip = Window(y, window.x, min(_STRIP, window.y_stop - y), window.width)
        rows = strip.slices(window)[0]
        _see(strip, seed, scene.bands[:, rows], scene.labels[rows])
    scene.bands[:, ~scene.valid] = NODATA
    return scene


def stripes(window: Window, *, bands: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Diagonal stripes with a fine pattern, made at the speed of memory: for very large images.

    Returns:
        Values `(bands, y, x)`, and labels `(y, x)` of 0 … 3, equal to `value // 60` of each band.
    """
    diagonal = np.arange(window.y + window.x, window.y_stop + window.x_stop) // 96 % 4
    # row k of all stretches of the diagonals is row k of the image: copied, not computed
    labels = np.lib.stride_tricks.sliding_window_view(diagonal.astype(np.uint8), window.width)[: window.height].copy()
    values = np.empty((bands, *window.shape), np.uint8)
    rows, columns = np.arange(window.y, window.y_stop) % 59, np.arange(window.x, window.x_stop) % 59
    for band in range(bands):
        grain = ((np.arange(59)[:, None] * 7 + columns * 13 + 17 * band) % 59).astype(np.uint8)
        np.multiply(labels, np.uint8(60), out=values[band])
        values[band] += grain[rows]
    return values, labels


def _swath(shape: tuple[int, int], window: Window) -> NDArray[np.bool_]:
    """Valid pixels: the orbit crosses the scene at a slant, so two wedges have no data, upper left and lower right."""
    height, width = shape
    down = (np.arange(window.y, window.y_stop)[:, None] + 0.5) / height
    across = (np.arange(window.x, window.x_stop) + 0.5) / width
    result: NDArray[np.bool_] = np.abs(across + 0.2 * down - 0.6) < 0.46
    return result


def _see(strip: Window, seed: int, bands: NDArray[np.uint16], labels: NDArray[np.uint8]) -> None:
    """Fill `bands` and `labels` of a strip: ground, light, haze, optics, noise."""
    near = strip.inset(-1, -1)  # with the pixels that the optics blur in
    ground = _ground(near, seed)
    labels[:] = ground.labels[1:-1, 1:-1]
    haze = np.clip(0.22 * smooth(near, seed, "haze", 1000, 5) - 0.08, 0.01, 0.5)
    light = (1 + 0.05 * smooth(near, seed, "light", 2500, 2)) * (1 - haze) * ground.shade
    for band in range(len(BANDS)):
        seen = _blur(_colour(ground, band) * light + haze * _HAZE[band])
        seen += texture(strip, seed, f"sensor {BANDS[band]}", 0, 0) * (18 + 0.012 * seen)
        np.clip(seen, 1, 10000, out=seen)
        bands[band] = seen


def _blur(image: Floats) -> Floats:
    """Image as the optics blur it: a pixel receives a little of its neighbours."""
    rows = image[:-2] + 2 * image[1:-1] + image[2:]
    result: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 16)
    return result


@dataclass(frozen=True, slots=True)
class _Ground:
    labels: NDArray[np.uint8]
    shade: Floats
    """Share of the light that relief and canopy reflect."""
    mixture: Floats
    """Position of a class between its two colours, about 0 … 1."""
    parcels: NDArray[np.int32]
    """Row of `crops` under each pixel."""
    crops: Floats


def _ground(window: Window, seed: int) -> _Ground:
    farm = farmland(window, seed)
    canopy, mottle = texture(window, seed, "canopy", 3.2, 7), texture(window, seed, "mottle", 5, 160)
    depth, slow = _depth(window, seed), smooth(window, seed, "mixture", 300, 3)
    labels = np.where(farm.kinds == PLANTATION, FOREST, FIELD).astype(np.uint8)[farm.parcels]
    labels[farm.parcels == 0] = OPEN
    labels[_woods(window, seed) + np.float32(0.06) * mottle > 0.75] = FOREST
    labels[depth > 0] = WATER
    water = np.clip(0.4 + 0.3 * slow - 0.012 * depth, 0, 1)
    land = np.clip(0.5 + 0.28 * slow + np.where(labels == OPEN, 0.2, 0.03) * mottle, -0.2, 1.2)
    grain = (0.05 * canopy + 0.05 * mottle, np.zeros_like(canopy), farm.streaks + 0.04 * slow, 0.26 * canopy)
    shade = (1 + _slope(window, seed)) * (1 + _by_class(labels, grain))
    mixture = np.where(labels == WATER, water, land)
    return _Ground(labels, shade.astype(np.float32), mixture.astype(np.float32), farm.parcels, farm.crops)


def _woods(window: Window, seed: int) -> Floats:
    """Suitability for forest, which grows where it is high; the mottling of the ground frays the forest's edge."""
    wood, upland = smooth(window, seed, "wood", 450, 5), smooth(window, seed, "upland", 1100, 5)
    result: Floats = wood + np.float32(0.3) * upland
    return result


def _colour(ground: _Ground, band: int) -> Floats:
    """Reflectance × 10000, before light and haze."""
    open_, water, forest = (
        np.float32(a[band]) + ground.mixture * np.float32(b[band] - a[band])
        for a, b in ((_DRY, _LUSH), (_DEEP, _TURBID), (_CONIFER, _BROADLEAF))
    )
    return _by_class(ground.labels, (open_, water, ground.crops[:, band][ground.parcels], forest))


def _by_class(labels: NDArray[np.uint8], values: tuple[NDArray[Any], ...]) -> Floats:
    """Take each pixel from the array of its class."""
    result: Floats = np.asarray(np.choose(labels, list(values)), np.float32)
    return result


def _depth(window: Window, seed: int) -> Floats:
    """Distance to the shore in pixels, positive in water: the zero line of a noise meanders as a river does."""
    rows, columns = nodes(window, 1)
    river = fractal(rows, columns, seed, "river", 850, 3)
    width = np.maximum(5.5 + 3 * fractal(rows, columns, seed, "width", 700, 1), 3)
    basin = fractal(rows, columns, seed, "basin", 620, 5) - 1.2
    away = np.abs(river[1:-1, 1:-1]) / _steepness(river)
    shore = np.maximum(width[1:-1, 1:-1] - away, basin[1:-1, 1:-1] * 100)
    return interpolate(np.clip(shore, -60, 60), window)


def _slope(window: Window, seed: int) -> Floats:
    """Relief lit from the upper left."""
    rows, columns = nodes(window, 1)
    height = fractal(rows, columns, seed, "relief", 450, 4)
    lit = (height[2:, 1:-1] - height[:-2, 1:-1]) + (height[1:-1, 2:] - height[1:-1, :-2])
    return interpolate(np.clip(1.4 * lit, -0.25, 0.25), window)


def _steepness(values: Floats) -> Floats:
    dy, dx = values[2:, 1:-1] - values[:-2, 1:-1], values[1:-1, 2:] - values[1:-1, :-2]
    result: Floats = np.sqrt(dy * dy + dx * dx) / np.float32(2 * STEP) + np.float32(2e-4)
    return result
