"""Make a picture of nuclei as a fluorescence microscope would: 16 bit, uneven light, noise; and where they are.

`python make_image.py cells.tif truth.tif`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SHAPE = (1400, 1800)
SPACING = 45
"""Pixels between the places where nuclei may be."""
MPP = 0.65
"""Micrometres per pixel: that of a 10× objective."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("truth", type=Path, help="1 where a nucleus is")
    arguments = parser.parse_args()
    image, truth = cells(SHAPE, seed=4)
    place = {"metadata": {"axes": "YX", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP, "Channel": {"Name": "DAPI"}}}
    tifffile.imwrite(arguments.image, image, ome=True, tile=(256, 256), compression="zlib", **place)
    tifffile.imwrite(arguments.truth, truth.astype(np.uint8), compression="zlib")


def cells(shape: tuple[int, int], *, seed: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Camera counts `(y, x)`, and True where a nucleus is."""
    random = np.random.default_rng(seed)
    light, truth = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    for y in range(0, shape[0], SPACING):
        for x in range(0, shape[1], SPACING):
            if random.random() < 0.55:
                nucleus(light, truth, y + random.uniform(5, 40), x + random.uniform(5, 40), random)
    texture = gaussian_filter(random.standard_normal(shape, np.float32), 2) * 1.2
    sharp = gaussian_filter(light * (1 + texture), 1.2)
    down, right = (np.linspace(-1, 1, side) for side in shape)
    shade = 1 - 0.35 * np.hypot(down[:, None], right)
    counts = 110 + shade * (40 + 900 * sharp + 250 * gaussian_filter(light, 14))
    return random.poisson(counts).astype(np.uint16), truth


def nucleus(
    light: NDArray[np.float32], truth: NDArray[np.bool_], y: float, x: float, random: np.random.Generator
) -> None:
    """Add one: an ellipse, turned, of its own brightness."""
    long, ratio, turn = random.uniform(9, 15), random.uniform(0.6, 1), random.uniform(0, np.pi)
    top, left = max(0, int(y) - 20), max(0, int(x) - 20)
    part = np.s_[top : int(y) + 21, left : int(x) + 21]
    down, right = np.ogrid[part[0], part[1]]
    rows, columns = light[part].shape
    dy, dx = down[:rows] - y, right[:, :columns] - x
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = (along / long) ** 2 + (across / (long * ratio)) ** 2 < 1
    light[part] = np.where(inside, np.maximum(light[part], random.uniform(0.4, 1)), light[part])
    truth[part] |= inside


if __name__ == "__main__":
    main()
