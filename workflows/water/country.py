"""Country to learn water from: the package's made-up landscapes as a satellite would meet them.

The landscapes know where their water is. What they lack is put on: coarser and finer pixels, mountains that throw
shadow, snow, clouds and their shadows, haze, a low sun, and sensors that are off by some per cent. Values are
reflectance, as `input.scale` and `input.offset` make of a Landsat or Sentinel-2 file. Nothing here is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilesseg.raster.window import Window
from tilesseg.training.synthetic_landscape import WATER, landscape

BANDS = ("blue", "green", "red", "nir")
CLASSES = ("land", "water")
IGNORED = 255
BRIGHTEST = 0.6
"""Clouds and sunlit snow above this are cut off, here and by the model's `clip`: what tells water lies below."""

Floats = NDArray[np.float32]

_SKY = np.array((0.30, 0.21, 0.15, 0.11), np.float32)[:, None, None]
"""Light that reaches a shadow, as a share of the sun's."""
HAZE = np.array((0.080, 0.045, 0.026, 0.012), np.float32)[:, None, None]
_SNOW = np.array((0.92, 0.92, 0.90, 0.80), np.float32)[:, None, None]
_CLOUD = np.array((0.78, 0.76, 0.77, 0.80), np.float32)[:, None, None]


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """An image and its true classes, in memory."""

    bands: NDArray[Any]
    """Reflectance `(4, y, x)`."""
    labels: NDArray[np.uint8]
    """Indices into CLASSES `(y, x)`; IGNORED where nothing is known."""


def country(side: int, seed: int) -> LabelledScene:
    """A square scene of `side` pixels: `bands` reflectance, `labels` indices into CLASSES.

    What lies under a cloud too thick to see through is no water: nobody could know.
    """
    draw = np.random.default_rng(seed)
    ground, labels = _landscape(side, seed, pixel=float(draw.choice([0.5, 1.0, 2.0, 3.0, 6.0])))
    water = labels == WATER
    ground = np.where(water, ground * _tint(draw), _dry(ground))
    lit = _sunlight(side, draw, water)
    if draw.random() < 0.35:
        ground = np.where(_snowed(side, draw) & ~water, _SNOW * draw.uniform(0.7, 1.05), ground)
    cover, shadow = _clouds(side, draw)
    ground *= np.maximum(lit * (1 - shadow), _SKY * draw.uniform(0.5, 1.5))
    seen = (ground + HAZE * draw.uniform(0.0, 3.5)) * (1 - cover) + cover * _CLOUD * draw.uniform(0.4, 1.2)
    water &= cover[0] < 0.5
    return LabelledScene(_sensed(seen, draw), water.astype(np.uint8))


def _landscape(side: int, seed: int, *, pixel: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Ground and labels with pixels `pixel` times as large: means of several, or one drawn out."""
    size = round(side * pixel)
    middle = Window(size // 2, size // 2, size, size)  # away from the wedges without data
    made = landscape((2 * size, 2 * size), seed, window=middle)
    bands = torch.from_numpy(made.bands.astype(np.float32) / 10_000)[None]
    mode = "area" if pixel >= 1 else "bilinear"
    centres = ((np.arange(side) + 0.5) * pixel).astype(int)
    return torch.nn.functional.interpolate(bands, (side, side), mode=mode)[0].numpy(), made.labels[
        np.ix_(centres, centres)
    ]


def _tint(draw: np.random.Generator) -> Floats:
    """Water is clear, green, brown or milky, the same all over a scene."""
    tint = np.exp(0.3 * draw.standard_normal() + 0.15 * draw.standard_normal((4, 1, 1)))
    return np.asarray(
        tint * [[[1.0]], [[1.0]], [[draw.choice([1.0, 1.6])]], [[draw.choice([0.4, 1.0, 1.6])]]], np.float32
    )


def _dry(ground: Floats) -> Floats:
    """Wet peat of the landscapes is meant to pass for turbid water; real soil is brighter in the near infrared."""
    return np.concatenate([ground[:3], np.maximum(ground[3:], 1.25 * ground[1:2])])


def _sunlight(side: int, draw: np.random.Generator, water: NDArray[np.bool_]) -> Floats:
    """How much sun the slopes get, 1 on the level: hills, or mountains with slopes in the dark; water is level."""
    height = noise(side, draw, largest=side // 2, octaves=6)
    slope = np.diff(height, axis=0, prepend=height[:1]) + np.diff(height, axis=1, prepend=height[:, :1])
    strength = draw.choice([0.0, 0.2, 1.2, 2.5], p=[0.3, 0.3, 0.2, 0.2])
    lit = np.clip(1 + strength * slope / (slope.std() + 1e-6), 0.0, 3.0)
    return np.where(water, np.float32(1), lit).astype(np.float32)[None]


def _snowed(side: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Where snow lies: everywhere, or in patches."""
    return np.asarray(noise(side, draw, largest=side // 3, octaves=5) > draw.choice([-9.0, -1.0, 0.5]))


def _clouds(side: int, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """Opacity of the clouds and of their shadows, 0 … 1, each `(1, side, side)`."""
    if draw.random() < 0.35:
        return np.zeros((1, side, side), np.float32), np.zeros((1, side, side), np.float32)
    field = noise(side, draw, largest=int(draw.choice([32, 64, 128])), octaves=5)
    edge, steepness = draw.uniform(0.3, 1.6), draw.choice([0.7, 2.0, 4.0])
    cover = np.clip((field - edge) * steepness, 0, 1).astype(np.float32)
    dy, dx = (int(shift) for shift in draw.integers(-40, 41, 2))
    shadow = np.roll(cover, (dy, dx), (0, 1)) * np.float32(draw.uniform(0.6, 1.0))
    return cover[None], shadow[None]


def _sensed(seen: Floats, draw: np.random.Generator) -> Floats:
    """What the sensor makes of it: the sun's height not divided out, bands off by a little, noise."""
    sun = np.exp(draw.uniform(np.log(0.4), np.log(1.2)))
    gain = (sun * (1 + 0.06 * draw.standard_normal((4, 1, 1)))).astype(np.float32)
    offset = (0.004 * draw.standard_normal((4, 1, 1))).astype(np.float32)
    grain = draw.standard_normal(seen.shape).astype(np.float32) * np.float32(draw.uniform(0.0005, 0.004))
    return np.clip(seen * gain + offset + grain, 0, BRIGHTEST).astype(np.float32)


def noise(side: int, draw: np.random.Generator, *, largest: int, octaves: int) -> Floats:
    """Smooth noise `(side, side)` of mean 0 and deviation 1; `largest` is the size of its largest forms in pixels."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        nodes = max(2, side * 2**octave // largest) + 3
        if nodes > side:
            break
        coarse = torch.from_numpy(draw.standard_normal((1, 1, nodes, nodes)).astype(np.float32))
        fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
        total += fine[0, 0].numpy() * np.float32(0.55**octave)
    return (total - total.mean()) / (total.std() + np.float32(1e-6))
