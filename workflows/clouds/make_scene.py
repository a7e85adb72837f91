"""Make a GeoTIFF with named bands out of one of the test archives of ukis-csmask.

The archives (`img`: rows, columns, bands; reflectance) carry no place on Earth, so the scene gets one: UTM zone 32
north at 30 m. Usage: python make_scene.py landsat5.npz scene.tif
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
PIXEL = 30.0
WEST, NORTH = 600_000.0, 5_400_000.0


def make_scene(archive: Path, path: Path) -> None:
    """Write `img` of the archive to `path`, float32, one band each for `BANDS`."""
    with np.load(archive) as data:
        image = data["img"].astype(np.float32).transpose(2, 0, 1)
    profile = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": image.shape[0],
        "height": image.shape[1],
        "width": image.shape[2],
        "crs": "EPSG:32632",
        "transform": rasterio.Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 3,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(image)
        target.descriptions = BANDS[: image.shape[0]]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python make_scene.py ARCHIVE.npz SCENE.tif")
    make_scene(Path(sys.argv[1]), Path(sys.argv[2]))
