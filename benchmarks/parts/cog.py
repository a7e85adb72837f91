"""Writing a mask as a COG: ours, of the levels that tiles made or of its own, against GDAL's driver making overviews.

All read the same stored mask and write DEFLATE with the same threads, each in a process of its own. Run it as
`python -m benchmarks.parts.cog --size 16384 --threads 2`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from benchmarks.harness import alone, peak_mb
from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.formats.cog.writer import write_cog
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.run.product_inputs import with_levels
from tilesseg.store.scene_store import Store

TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
BAND, CORE = 512, 4096
CLASSES = tuple(MaskClass(f"class {k}", (50 * k, 255 - 50 * k, 90)) for k in range(5))


def smooth_labels(size: int, cells: int = 150) -> Iterator[np.ndarray[Any, Any]]:
    """Bands of a random field, interpolated and cut into five classes, with a nodata wedge and grain on the edges."""
    rng = np.random.default_rng(0)
    field = rng.random((cells + 2, cells + 2), np.float32)
    x = np.linspace(0, cells, size, dtype=np.float32)
    column, right = x.astype(int), x - x.astype(int)
    for y in range(0, size, BAND):
        rows = x[y : y + BAND]
        row, down = rows.astype(int), (rows - rows.astype(int))[:, None]
        strip = field[row] * (1 - down) + field[row + 1] * down
        values = strip[:, column] * (1 - right) + strip[:, column + 1] * right
        values += rng.normal(0, 0.004, values.shape).astype(np.float32)
        labels = np.digitize(values, [0.3, 0.45, 0.55, 0.7]).astype(np.uint8)
        labels[np.arange(size)[None] + np.arange(y, y + len(labels))[:, None] < size // 3] = 255
        yield labels


def make_store(folder: Path, size: int) -> Store:
    """A mask in a run's store, by cores of 4096² as tiles store it, with the levels that they make."""
    store = Store(folder)
    store.create(shape=(size, size), shard=1024, chunk=512, fingerprint="benchmark", core=(CORE, CORE))
    for number, labels in enumerate(smooth_labels(size)):
        if number * BAND % CORE == 0:
            tops = [Window(number * BAND, x, CORE, CORE) for x in range(0, size, CORE)]
            rows_of_cores = [(core.x, store.mask_rows(core.intersect(Window(0, 0, size, size)))) for core in tops]
        for x, rows in rows_of_cores:
            rows.write(labels[:, x : x + CORE])
    return store


def read_mask(store: Store) -> Mask:
    grid = Grid(*store.shape, transform=TRANSFORM, crs=rasterio.CRS.from_epsg(32633).to_wkt())
    return Mask(grid, store.read, CLASSES, {"model": "benchmark"})


def ours(mask: Mask, store: Store, path: Path, *, threads: int) -> None:
    with with_levels(mask, store, ThreadExecutor(threads)) as ready:
        write_cog(ready, path, threads=threads)


def ours_alone(mask: Mask, store: Store, path: Path, *, threads: int) -> None:
    del store
    write_cog(mask, path, threads=threads)


def gdal(mask: Mask, store: Store, path: Path, *, threads: int) -> None:
    del store
    height, width = mask.grid.shape
    plain = path.with_name("plain.tif")
    where = {"height": height, "width": width, "crs": mask.grid.crs, "transform": rasterio.Affine(*TRANSFORM)}
    where |= {"nodata": 255, "num_threads": threads}
    stored = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1}
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20):
        with rasterio.open(plain, "w", driver="GTiff", dtype="uint8", count=1, **where, **stored) as file:
            for y in range(0, height, BAND):
                band = mask.read(Window(y, 0, min(BAND, height - y), width))
                file.write(band, 1, window=((y, y + len(band)), (0, width)))
        rasterio.shutil.copy(
            plain, path, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=512, BIGTIFF="IF_SAFER",
            OVERVIEW_RESAMPLING="MODE", NUM_THREADS=threads,
        )  # fmt: skip
    plain.unlink()


def read_only(mask: Mask, store: Store, path: Path, *, threads: int) -> None:
    del store, path, threads
    for y in range(0, mask.grid.height, BAND):
        mask.read(Window(y, 0, min(BAND, mask.grid.height - y), mask.grid.width))


ROUTES = {
    "tilesseg, its tiles' levels": ours,
    "tilesseg, levels of its own": ours_alone,
    "GDAL COG, MODE": gdal,
    "(reading the mask)": read_only,
}


def measure(route: str, source: Path, target: Path, threads: int) -> tuple[float, float]:
    """Seconds of a route, and MB that it took beyond what is imported."""
    store = Store(source)
    mask = read_mask(store)
    small = Mask(Grid(1, 1), lambda w: np.zeros(w.shape, np.uint8), CLASSES, {})
    write_cog(small, target, threads=threads)  # what is imported does not count
    before, start = peak_mb(), time.perf_counter()
    ROUTES[route](mask, store, target, threads=threads)
    return time.perf_counter() - start, peak_mb() - before


def main(about: str, report: Callable[[Path, argparse.Namespace], None]) -> None:
    """Store a mask, let a benchmark report on it, remove it."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--size", type=int, default=16384, help="side of the mask in pixels, a multiple of 512")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="the best time counts")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tilesseg-benchmark-"))
    try:
        make_store(folder / "scene", arguments.size)
        report(folder, arguments)
    finally:
        shutil.rmtree(folder)


def report(folder: Path, arguments: argparse.Namespace) -> None:
    print(f"{arguments.size}² labels, {arguments.threads} threads, best of {arguments.repeat}")
    print(f"{'route':28} {'s':>7} {'Mpx/s':>7} {'peak above start':>17} {'size':>9}")
    best: dict[str, float] = {}
    for route in ROUTES:
        target = folder / "out.tif"
        runs = [alone(measure, route, folder / "scene", target, arguments.threads) for _ in range(arguments.repeat)]
        best[route], peak = min(runs)[0], max(run[1] for run in runs)
        size = f"{target.stat().st_size / 2**20:6.1f} MB" if target.exists() else ""
        print(f"{route:28} {best[route]:7.2f} {arguments.size**2 / best[route] / 1e6:7.0f} {peak:14.0f} MB {size:>9}")
        target.unlink(missing_ok=True)
    first, _, second, *_ = best
    print(f"{first} takes {best[first] / best[second]:.2f} × the time of {second}")


if __name__ == "__main__":
    main(__doc__, report)
