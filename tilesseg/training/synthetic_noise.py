"""Noise whose every value is a function of the seed and the position, so that a window equals the whole.

Slow noise is a hashed lattice under cubic B-splines, interpolated by gathers: a matrix product would round
differently for every size. Fine textures repeat every 1024 pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

Floats = NDArray[np.float32]
Positions = NDArray[np.float64]

STEP = 4
"""Slow noise is made at every fourth pixel and interpolated."""
_TILE = 1024


def smooth(window: Window, seed: int, name: str, wavelength: float, octaves: int) -> Floats:
    """`fractal` at every pixel of a window."""
    return interpolate(fractal(*nodes(window), seed, name, wavelength, octaves), window)


def texture(window: Window, seed: int, name: str, short: float, long: float) -> Floats:
    """A repeating texture of unit spread, with wavelengths from `short` to `long` pixels (0: white)."""
    tile = _tile(seed, name, short, long)
    y, x = np.arange(window.y, window.y_stop) % _TILE, np.arange(window.x, window.x_stop) % _TILE
    return tile[y].take(x, axis=1)


def fractal(rows: Positions, columns: Positions, seed: int, name: str, wavelength: float, octaves: int) -> Floats:
    """Noise `(rows, columns)` of mean 0 and a spread of about 1; each octave is half as long and half as strong."""
    total = np.zeros((len(rows), len(columns)), np.float32)
    for octave in range(octaves):
        size = wavelength / 2**octave
        (i, wy), (j, wx) = _spline(rows / size), _spline(columns / size)
        y, x = np.arange(i[0], i[-1] + 4), np.arange(j[0], j[-1] + 4)
        lattice = ((uniform(seed, f"{name} {octave}", y[:, None], x) - 0.5) * 6.2).astype(np.float32)
        part = np.zeros((len(rows), len(x)), np.float32)
        for k in range(4):
            part += wy[k][:, None] * lattice[i - i[0] + k]
        for k in range(4):
            total += wx[k] * part.take(j - j[0] + k, axis=1) * np.float32(0.5**octave)
    return total


def nodes(window: Window, border: int = 0) -> tuple[Positions, Positions]:
    """Positions of the coarse rows and columns that surround a window, and `border` more on each side."""
    rows = np.arange(window.y // STEP - border, (window.y_stop - 1) // STEP + 2 + border)
    columns = np.arange(window.x // STEP - border, (window.x_stop - 1) // STEP + 2 + border)
    return rows * np.float64(STEP), columns * np.float64(STEP)


def interpolate(coarse: Floats, window: Window) -> Floats:
    """Linear interpolation from the nodes of a window to its pixels."""
    y, x = np.arange(window.y, window.y_stop), np.arange(window.x, window.x_stop)
    i, j = y // STEP - window.y // STEP, x // STEP - window.x // STEP
    v, u = (y % STEP / STEP).astype(np.float32)[:, None], (x % STEP / STEP).astype(np.float32)
    rows = coarse[i] + v * (coarse[i + 1] - coarse[i])
    left = rows.take(j, axis=1)
    result: Floats = left + u * (rows.take(j + 1, axis=1) - left)
    return result


def uniform(seed: int, name: str, *keys: NDArray[Any]) -> NDArray[np.float64]:
    """A number in [0, 1) for each combination of whole numbers, by the finaliser of MurmurHash3 (Appleby 2011)."""
    h = _mix(np.array([_salt(seed, name)], np.uint64))  # mixed first, or rows of one seed would occur in another
    for key in keys:
        h = _mix(h ^ key.astype(np.int64).astype(np.uint64))
    result: NDArray[np.float64] = (h >> np.uint64(11)) * np.float64(2.0**-53)
    return result


def _mix(h: NDArray[np.uint64]) -> NDArray[np.uint64]:
    h = h * np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ (h >> np.uint64(33))) * np.uint64(factor)
    return h ^ (h >> np.uint64(33))


def _salt(seed: int, name: str) -> int:
    """Number of a seed and a name; Python's own hash of text changes from process to process."""
    return int.from_bytes(f"{seed} {name}".encode()[-64:], "little") % (2**61 - 1)


def _spline(position: Positions) -> tuple[NDArray[np.int64], list[Floats]]:
    """First of the four lattice points around each position, and their weights."""
    first = np.floor(position).astype(np.int64)
    t = (position - first).astype(np.float32)
    s = np.float32(1) - t
    weights = [s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6]
    return first, [weight.astype(np.float32) for weight in weights]


@lru_cache(maxsize=16)
def _tile(seed: int, name: str, short: float, long: float) -> Floats:
    white = np.random.default_rng(_salt(seed, name)).standard_normal((_TILE, _TILE), np.float32)
    if not long:
        return white
    f = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE))
    band = np.exp(-((f * short) ** 4)) * (1 - np.exp(-((f * long) ** 4))) / (f + 1 / long)
    tile = np.fft.irfft2(np.fft.rfft2(white) * band, s=(_TILE, _TILE))
    result: Floats = (tile / tile.std()).astype(np.float32)
    return result
