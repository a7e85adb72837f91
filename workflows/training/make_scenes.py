"""Make labelled scenes to learn from: made-up landscapes as GeoTIFFs, and their true classes beside them.

Usage: python make_scenes.py FOLDER [--scenes 20] [--side 1024]

The seeds of the scenes are training's alone: the demo and the tests use others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from tilesseg.training.synthetic_landscape import BANDS, NODATA, landscape

FIRST_SEED = 1000
IGNORED = 255
PLACE = {"crs": "EPSG:32632", "transform": from_origin(600_000, 5_300_000, 10, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--side", type=int, default=1024)
    arguments = parser.parse_args()
    for part in ("images", "labels"):
        (arguments.folder / part).mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.scenes):
        made = landscape((arguments.side, arguments.side), seed)
        labels = np.where(made.valid, made.labels, IGNORED).astype(np.uint8)
        write(arguments.folder / "images" / f"{seed}.tif", made.bands, nodata=NODATA, names=BANDS)
        write(arguments.folder / "labels" / f"{seed}.tif", labels[None])


def write(path: Path, values: NDArray[Any], *, nodata: int | None = None, names: tuple[str, ...] = ()) -> None:
    """Write bands `(channel, y, x)` as a tiled GeoTIFF."""
    count, height, width = values.shape
    size = {"count": count, "height": height, "width": width, "dtype": values.dtype, "nodata": nodata}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", **size, **PLACE, **tiles) as file:
        file.write(values)
        if names:
            file.descriptions = names


if __name__ == "__main__":
    main()
