"""Small georeferenced rasters for tests: written, and read again, by rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

SIDE = 120  # metres of the smallest scene: 12 pixels of 10 m
RNG = np.random.default_rng(3)


def numbers(pixels: int, *, high: int = 12_000) -> NDArray[np.uint16]:
    values = RNG.integers(1, high, (pixels, pixels)).astype(np.uint16)
    values[: pixels // 4, : pixels // 3] = 0
    return values


def write(
    path: Path, values: NDArray[Any], size: float, *, x: float = 399_960, y: float = 5_700_000, **how: Any
) -> Path:
    """A file of one band, or of the first axis, with its top-left corner at `(x, y)`."""
    values = values if values.ndim == 3 else values[None]
    jp2 = path.suffix.lower() == ".jp2"
    lossless = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True} if jp2 else {"driver": "GTiff"}
    shape = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(size, 0, x, 0, -size, y)}
    with rasterio.open(path, "w", **lossless, **shape, **place, **how) as file:
        file.write(values)
    return path


def held(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return file.read(1)


def band_of(source: Any, name: str) -> Any:
    return source.select([source.bands.index(name)]).read(source.grid.window)
