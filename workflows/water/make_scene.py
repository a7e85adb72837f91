"""Stack Landsat 8 band files into one GeoTIFF with named bands, as they are: digital numbers, grid and CRS.

Usage: python make_scene.py LC8…_B2.tif LC8…_B3.tif LC8…_B4.tif LC8…_B5.tif scene.tif
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio

BANDS = ("blue", "green", "red", "nir")


def make_scene(files: list[Path], path: Path) -> None:
    """Write `files`, one band each for BANDS, to `path`."""
    bands = []
    for file in files:
        with rasterio.open(file) as source:
            bands.append(source.read(1))
            where = {"crs": source.crs, "transform": source.transform, "nodata": source.nodata}
    image = np.stack(bands)
    count, height, width = image.shape
    profile = {"driver": "GTiff", "dtype": image.dtype, "count": count, "height": height, "width": width, **where}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2}
    with rasterio.open(path, "w", **profile, **tiles) as target:
        target.write(image)
        target.descriptions = BANDS


if __name__ == "__main__":
    if len(sys.argv) != len(BANDS) + 2:
        sys.exit("usage: python make_scene.py B2.tif B3.tif B4.tif B5.tif SCENE.tif")
    make_scene([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
