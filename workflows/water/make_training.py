"""Make labelled scenes to learn water from, as GeoTIFFs: made-up country, and halves of real scenes if they are given.

Usage: python make_training.py FOLDER [--scenes 30] [--landsat8 FOLDER] [--landsat5 FILE] [--sentinel2 FILE]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from country import BANDS, LabelledScene, country
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from real import greenland, masked, varied, watered

FIRST_SEED, SIDE = 2000, 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=30, help="number of made-up scenes")
    parser.add_argument("--landsat8", type=Path, help="folder of LC80030172015001LGN00_B2.tif to _B5.tif")
    parser.add_argument("--landsat5", type=Path, help="landsat5.npz of ukis-csmask")
    parser.add_argument("--sentinel2", type=Path, help="sentinel2.npz of ukis-csmask")
    arguments = parser.parse_args()
    for part in ("images", "labels"):
        (arguments.folder / part).mkdir(parents=True, exist_ok=True)
    for name, scene in scenes(arguments):
        write(arguments.folder / "images" / f"{name}.tif", scene.bands, names=BANDS)
        write(arguments.folder / "labels" / f"{name}.tif", scene.labels[None])


def scenes(arguments: argparse.Namespace) -> Iterator[tuple[str, LabelledScene]]:
    """Scenes with their names; real ones as several sensors, suns and airs would have them."""
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.scenes):
        yield f"country-{seed}", country(SIDE, seed)
    if arguments.landsat8:
        for seed in range(4):
            yield f"greenland-{seed}", varied(greenland(arguments.landsat8), seed)
    for archive in filter(None, (arguments.landsat5, arguments.sentinel2)):
        west = masked(archive, half="west")
        for seed in range(12):
            yield f"{archive.stem}-{seed}", varied(watered(west, seed), seed)


def write(path: Path, values: NDArray[Any], *, names: tuple[str, ...] = ()) -> None:
    """Write bands `(channel, y, x)` as a tiled TIFF without a place: made-up country has none."""
    count, height, width = values.shape
    size = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **size, **tiles) as file:
            file.write(np.ascontiguousarray(values))
            if names:
                file.descriptions = names


if __name__ == "__main__":
    main()
