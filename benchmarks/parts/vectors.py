"""How fast the polygons of a mask are traced, joined and written, and the peak memory of each step.

The mask is drawn: two kinds of tissue with ragged borders on a background, and nuclei as discs of 4 to 10 pixels.
Every step is a process of its own, whose high-water mark the kernel keeps (Linux only); the first line is what an
empty mask takes, with importing everything.

    python -m benchmarks.parts.vectors --size 8192 --core 2048
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.harness import alone, peak_mb
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.vector import write_tile_polygons
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

CLASSES = tuple(
    MaskClass(name, (40 * k, 200, 90)) for k, name in enumerate(("background", "stroma", "tumour", "nuclei"))
)
FORMS = ("geojson", "gpkg", "flatgeobuf", "geoparquet")


def draw(size: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Labels `(size, size)`."""
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.normal(size=(size // 16 + 2,) * 2), 12)
    field = ndimage.zoom((coarse / coarse.std()).astype(np.float32), 16, order=1)[:size, :size]
    field += ndimage.gaussian_filter(rng.normal(size=(size, size)).astype(np.float32), 2)
    labels = np.digitize(field, [0.0, 1.0]).astype(np.uint8)
    for y, x, radius in zip(
        *rng.integers(0, size, (2, size * size // 2500)), rng.integers(4, 11, size * size), strict=False
    ):
        part = labels[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        disc = (rows - min(y, radius)) ** 2 + (columns - min(x, radius)) ** 2 <= radius**2
        part[disc & (part > 0)] = 3
    return labels


def step(what: str, folder: Path, core: int) -> tuple[float, float]:
    """Seconds of one step, and the peak memory of its process in MB."""

    def read(window: Window) -> NDArray[np.uint8]:
        labels = np.load(folder / "mask.npy", mmap_mode="r")  # mapped anew, or its pages would be counted
        return np.array(labels[window.slices()])

    shape = np.load(folder / "mask.npy", mmap_mode="r").shape
    grid = Grid(*shape, (0.5, 0.0, 0.0, 0.0, 0.5, 0.0), unit="micrometre", metres_per_unit=1e-6)
    windows = [
        Window(y, x, core, core).intersect(grid.window)
        for y in range(0, grid.height, core)
        for x in range(0, grid.width, core)
    ]
    files = tuple(folder / f"{window.y}-{window.x}.npz" for window in windows)

    start = time.perf_counter()
    if what == "trace":
        for window, file in zip(windows, files, strict=True):
            write_tile_polygons(read, window, file)
    else:
        row, nothing = FORMATS[what.removeprefix("empty ")], what.startswith("empty ")
        mask = Mask(grid, read, CLASSES, {}, tile_polygons=() if nothing else files)
        if nothing:
            mask = Mask(Grid(8, 8), lambda window: np.zeros(window.shape, np.uint8), CLASSES, {})
        resolve(str(row.writes))(mask, folder / f"polygons{row.suffixes[0]}")
    return time.perf_counter() - start, peak_mb()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=8192)
    options.add_argument("--core", type=int, default=2048)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "mask.npy", draw(asked.size))
        for what in ("empty geojson", "trace", *FORMS):
            seconds, memory = alone(step, what, folder, asked.core)
            print(f"{what:14} {seconds:7.2f} s {asked.size**2 / 1e6 / seconds:7.1f} Mpx/s {memory:6.0f} MB")
        for file in sorted(folder.glob("polygons.*")):
            print(f"{file.name:20} {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
