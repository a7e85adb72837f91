"""The slides of `bench.py`: generated tissue with its truth, as JPEG-tiled pyramids of any size, written in seconds.

One picture of 4096² has no seam where it meets itself, so a slide of any multiple repeats it, and each of its JPEG
tiles is encoded once. No pixel is 0 in any band: geo-inference takes that for nodata.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.parts.aperio import TILE, write_pyramid

PERIOD = 4096
CLASSES = ("glass", "stroma", "tumour")
COLOURS = ((242, 241, 243), (214, 150, 190), (176, 108, 170))
NUCLEUS = (92, 66, 132)
_SPREAD = {"glass": 0.0, "stroma": 26.0, "tumour": 13.0}
"""Pixels between nuclei, about."""


class Picture(NamedTuple):
    """A stained section; it repeats without a seam."""

    pixels: NDArray[np.uint8]
    """`(y, x, 3)`."""
    truth: NDArray[np.uint8]
    """`(y, x)`: places in `CLASSES`. A nucleus has the class of what is around it."""


def tissue(side: int = PERIOD, seed: int = 0) -> Picture:
    """Glass, stroma with fibres and few nuclei, and islands of tumour with many."""
    rng = np.random.default_rng(seed)
    section, islands = _smooth(rng, side, 300), _smooth(rng, side, 60)
    truth = np.where(section < -0.7, 0, np.where(islands > 0.35, 2, 1)).astype(np.uint8)
    colour = np.array(COLOURS, np.float32)[truth]
    fibres = _smooth(rng, side, (1.2, 9.0)) * (truth == 1) * 14
    clouds = _smooth(rng, side, 8) * (truth > 0) * 7
    colour += (fibres + clouds)[..., None] * np.array((0.6, 1.0, 0.8), np.float32)
    dark = _nuclei(rng, truth)
    colour += dark[..., None] * (np.array(NUCLEUS, np.float32) - colour)
    colour += rng.standard_normal((side, side, 1), np.float32) * 5 + rng.standard_normal(colour.shape, np.float32) * 2
    return Picture(np.clip(colour, 40, 255).astype(np.uint8), truth)


def _smooth(rng: np.random.Generator, side: int, sigma: float | tuple[float, float]) -> NDArray[np.float32]:
    """Noise of mean 0 and deviation 1 that repeats; wide ones are drawn small."""
    factor = max(1, int(np.min(sigma)) // 8)
    while side % factor:
        factor -= 1
    noise = rng.standard_normal((side // factor,) * 2, np.float32)
    field = ndimage.gaussian_filter(noise, np.divide(sigma, factor), mode="wrap")
    if factor > 1:
        field = ndimage.zoom(field, factor, order=1, mode="grid-wrap", grid_mode=True)
    return (field / field.std()).astype(np.float32)


def _nuclei(rng: np.random.Generator, truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much of each pixel is nucleus, 0 … 1: blurred discs of three sizes."""
    side = len(truth)
    rate = np.array([0 if not _SPREAD[name] else _SPREAD[name] ** -2 for name in CLASSES], np.float32)[truth]
    dark = np.zeros((side, side), np.float32)
    for radius in (3, 4, 5):
        seeds = (rng.random((side, side), np.float32) < rate / 3).astype(np.float32)
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        disc = (np.hypot(y, x) <= radius + 0.3).astype(np.float32)
        dark += np.rint(_convolved(seeds, disc))
    return ndimage.gaussian_filter(np.minimum(dark, 1), 0.7, mode="wrap") * 0.85


def _convolved(seeds: NDArray[np.float32], disc: NDArray[np.float32]) -> NDArray[np.float32]:
    """`seeds` are few: by Fourier's transform, which repeats as the picture does."""
    from scipy import fft

    kernel = np.zeros_like(seeds)
    kernel[: disc.shape[0], : disc.shape[1]] = disc
    kernel = np.roll(kernel, (-(disc.shape[0] // 2), -(disc.shape[1] // 2)), (0, 1))
    return fft.irfft2(fft.rfft2(seeds, workers=-1) * fft.rfft2(kernel, workers=-1), seeds.shape, workers=-1)


def write_slide(path: Path, side: int, picture: Picture) -> Path:
    """A slide of `side`², a multiple of `PERIOD`, as Aperio's scanners write them.

    Raises:
        ValueError: of another side.
    """
    if side % PERIOD:
        raise ValueError(f"a slide repeats a picture of {PERIOD}², so its side cannot be {side}; give a multiple")

    def tiles(factor: int, shape: tuple[int, int]) -> Iterator[bytes]:
        return _tiles(np.ascontiguousarray(picture.pixels[factor // 2 :: factor, factor // 2 :: factor]), shape[0])

    write_pyramid(
        path,
        (side, side),
        tiles,
        thumbnail=picture.pixels[::16, ::16].copy(),
        subsampling=(2, 2),
        kind="JPEG/RGB Q=85",
        reduced=True,
    )
    return path


def _tiles(picture: NDArray[np.uint8], side: int) -> Iterator[bytes]:
    """The JPEG tiles of a level, row by row; each is encoded once."""
    known: dict[tuple[int, int], bytes] = {}
    for y in range(0, side, TILE):
        for x in range(0, side, TILE):
            at = (y % len(picture), x % len(picture))
            if at not in known:
                part = picture[at[0] : at[0] + TILE, at[1] : at[1] + TILE]
                known[at] = bytes(imagecodecs.jpeg8_encode(part, level=85, outcolorspace="ycbcr", subsampling="420"))
            yield known[at]


def truth_of(side: int, picture: Picture) -> NDArray[np.uint8]:
    """The truth of a slide of `side`²."""
    return np.tile(picture.truth, (side // PERIOD, side // PERIOD))
