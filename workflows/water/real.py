"""Real scenes to learn water from, with McFeeters' NDWI as the teacher, where it can be believed.

NDWI is (green − nir) ÷ (green + nir): McFeeters (1996), doi:10.1080/01431169608948714. It takes shaded snow, cloud
and cloud shadow for water; there it is overruled, or the pixels teach nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from tilesseg.train import IGNORED, LabelledScene

SCALE, OFFSET = 2.442e-4, -1.221
"""Landsat 8 level 1: 2e-5 · value − 0.1, divided by the sine of the sun's elevation, 4.7° in the Greenland scene."""
DARK = 0.104
"""Reflectance in the near infrared, with that sun, below which nothing in that scene but open water lies."""


def greenland(folder: Path) -> LabelledScene:
    """The west half of a Landsat 8 scene, files B2 to B5: water is dark and of high NDWI; the east is for judging."""
    files = [next(iter(sorted(folder.glob(f"*_B{number}.tif*")))) for number in (2, 3, 4, 5)]
    bands = np.stack([_read(file) for file in files])[:, :, : 1310 // 2] * np.float32(SCALE) + np.float32(OFFSET)
    wet, dark = ndwi(bands), bands[3] < DARK
    labels = np.where((wet > 0.2) & dark, 1, np.where(dark, IGNORED, 0)).astype(np.uint8)
    return LabelledScene(np.clip(bands, 0, 1.2), labels, np.ones(labels.shape, np.bool_))


def farmland(archive: Path) -> LabelledScene:
    """`sentinel2.npz` of ukis-csmask: NDWI above 0 is water; cloud and shadow with such a value teach nothing."""
    with np.load(archive) as data:
        bands = data["img"].astype(np.float32).transpose(2, 0, 1)[:4]
        reference = data["msk"][..., 0]
    wet = ndwi(bands) > 0
    labels = np.where(wet & np.isin(reference, (0, 4)), IGNORED, wet).astype(np.uint8)
    return LabelledScene(np.clip(bands, 0, 1.2), labels, np.ones(labels.shape, np.bool_))


def ndwi(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """NDWI `(y, x)` of bands blue, green, red, nir `(4, y, x)`."""
    result: NDArray[np.float32] = (bands[1] - bands[3]) / (bands[1] + bands[3] + np.float32(1e-6))
    return result


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1), np.float32)
