"""Real scenes to learn water from, with McFeeters' NDWI as the teacher, where it can be believed.

NDWI is (green − nir) ÷ (green + nir): McFeeters (1996), doi:10.1080/01431169608948714. It takes shaded snow, cloud
and cloud shadow for water; there it is overruled, or the pixels teach nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from country import BRIGHTEST, HAZE, IGNORED, LabelledScene, noise
from numpy.typing import NDArray

SHADOW, WATER, CLOUD = 0, 1, 4
"""In the masks of ukis-csmask."""
SCALE, OFFSET = 2.442e-4, -1.221
"""Landsat 8 level 1: 2e-5 · value − 0.1, divided by the sine of the sun's elevation, 4.7° in the Greenland scene."""
DARK = 0.104
"""Reflectance in the near infrared, with that sun, below which nothing in that scene but open water lies."""


def greenland(folder: Path, *, half: Literal["west", "east"] = "west") -> LabelledScene:
    """Half of a Landsat 8 scene, files B2 to B5: water is dark and of high NDWI; the east is for judging."""
    files = [next(iter(sorted(folder.glob(f"*_B{number}.tif*")))) for number in (2, 3, 4, 5)]
    columns = slice(0, 1310 // 2) if half == "west" else slice(1310 // 2, None)
    bands = np.stack([_read(file) for file in files])[:, :, columns] * np.float32(SCALE) + np.float32(OFFSET)
    wet, dark = ndwi(bands), bands[3] < DARK
    labels = np.where((wet > 0.2) & dark, 1, np.where(dark, IGNORED, 0)).astype(np.uint8)
    return LabelledScene(bands, labels)


def masked(archive: Path, *, half: Literal["west", "east"]) -> LabelledScene:
    """Half of a scene of ukis-csmask, by its mask, which is drawn roughly: where NDWI disagrees nothing is taught.

    Cloud is land; what is dark and wet in a shadow may be either.
    """
    bands, reference = archive_of(archive, half=half)
    wet = ndwi(bands)
    water, shadow, cloud = reference == WATER, reference == SHADOW, reference == CLOUD
    labels = np.where(water & (wet > -0.2), 1, 0).astype(np.uint8)
    doubtful = (water & (wet <= -0.2)) | (~water & ~cloud & (wet > -0.1)) | (shadow & (wet > -0.2))
    labels[doubtful] = IGNORED
    return LabelledScene(bands, labels)


def archive_of(
    archive: Path, *, half: Literal["west", "east", "both"]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Reflectance `(4, y, x)` and reference mask `(y, x)` of a scene of ukis-csmask, or of half of it."""
    with np.load(archive) as data:
        bands = data["img"].astype(np.float32).transpose(2, 0, 1)[:4]
        reference = data["msk"][..., 0]
    middle = reference.shape[1] // 2
    columns = {"west": slice(0, middle), "east": slice(middle, None), "both": slice(None)}[half]
    return bands[:, :, columns], reference[:, columns]


def watered(scene: LabelledScene, seed: int) -> LabelledScene:
    """The scene with rivers and ponds put in where it is clear land, for real ones are too few to learn from."""
    draw = np.random.default_rng(seed)
    side = max(scene.labels.shape)
    at = tuple(slice(0, size) for size in scene.labels.shape)
    rivers = noise(side, draw, largest=int(draw.choice([100, 200])), octaves=4)[at]
    fine = noise(side, draw, largest=int(draw.choice([12, 24, 48])), octaves=2)[at]
    cover = np.maximum(1.2 - np.abs(rivers) / draw.uniform(0.03, 0.1), (fine - draw.uniform(1.6, 2.4)) * 4)
    cover = np.where(scene.labels == 0, np.clip(cover, 0, 1), 0).astype(np.float32)
    nir, green = draw.uniform(0.03, 0.13), draw.uniform(0.06, 0.13)
    nir = min(nir, green * 1.15)
    colour = np.array([green * draw.uniform(1.0, 1.4), green, green * draw.uniform(0.6, 1.1), nir], np.float32)
    bands = scene.bands * (1 - cover) + cover * colour[:, None, None]
    labels = np.where(cover >= 0.4, 1, np.where(cover > 0.2, IGNORED, scene.labels)).astype(np.uint8)
    return LabelledScene(bands, labels)


def varied(scene: LabelledScene, seed: int) -> LabelledScene:
    """The scene as another sensor, sun and air would have it: gain, haze and offset."""
    draw = np.random.default_rng(seed)
    gain = np.exp(draw.uniform(np.log(0.6), np.log(1.3))) * (1 + 0.04 * draw.standard_normal((4, 1, 1)))
    offset = HAZE * draw.uniform(-0.5, 0.7) + 0.004 * draw.standard_normal((4, 1, 1))
    bands = np.clip(scene.bands * gain + offset, 0, BRIGHTEST).astype(np.float32)
    return LabelledScene(bands, scene.labels)


def ndwi(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """NDWI `(y, x)` of bands blue, green, red, nir `(4, y, x)`."""
    result: NDArray[np.float32] = (bands[1] - bands[3]) / (bands[1] + bands[3] + np.float32(1e-6))
    return result


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1), np.float32)
