"""What a tile pays to store its labels and their levels, and how fast the products of a mask that tiles made are.

The mask is that of `benchmarks/cog.py`, stored by cores of 4096² as tiles store it. Each route runs in a process of its
own. Run it as `python -m benchmarks.parts.pyramid --size 16384 --threads 2`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import alone, peak_mb
from benchmarks.parts.cog import BAND, CLASSES, CORE, TRANSFORM, main
from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.formats.cog.writer import write_cog
from tilesseg.formats.ome_tiff.writer import write_ome_tiff
from tilesseg.formats.ome_zarr.writer import write_ome_zarr
from tilesseg.formats.writer import Mask
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window
from tilesseg.run.product_inputs import with_levels
from tilesseg.store.scene_store import Store
from tilesseg.store.shard_writer import ShardRows


def read_mask(store: Store) -> Mask:
    grid = Grid(*store.shape, TRANSFORM, unit="metre", metres_per_unit=1)
    return Mask(grid, store.read, CLASSES, {"model": "benchmark"})


def storing(store: Store, threads: int, *, levels: bool) -> float:
    """A row of tiles by row of tiles; what is stored is replaced by the same."""
    del threads
    height, width = store.shape
    seconds = 0.0
    for y in range(0, height, CORE):
        core = Window(y, 0, CORE, width).intersect(Window(0, 0, height, width))
        labels = store.read(core)
        start = time.perf_counter()
        rows = store.mask_rows(core) if levels else ShardRows(store.mask, core)
        for y_in_core in range(0, core.height, BAND):
            rows.write(labels[y_in_core : y_in_core + BAND])
        seconds += time.perf_counter() - start
    return seconds


def finishing(store: Store, threads: int) -> float:
    """The levels that tiles leave to the end."""
    start = time.perf_counter()
    with with_levels(read_mask(store), store, ThreadExecutor(threads)):
        return time.perf_counter() - start


def product(store: Store, threads: int, *, write: Callable[..., Any], target: Path, levels: bool = True) -> float:
    """A product, the levels that tiles leave to the end among it."""
    start = time.perf_counter()
    with ExitStack() as until_written:
        mask = read_mask(store)
        if levels:
            mask = until_written.enter_context(with_levels(mask, store, ThreadExecutor(threads)))
        write(mask, target, threads=threads)
        return time.perf_counter() - start


def reading(store: Store, threads: int) -> float:
    start, (height, width) = time.perf_counter(), store.shape
    for y in range(0, height, BAND):
        store.read(Window(y, 0, min(BAND, height - y), width))
    return time.perf_counter() - start


def measure(route: Callable[[Store, int], float], folder: Path, threads: int) -> tuple[float, float, float]:
    """Seconds, processor seconds and MB of a route, beyond what is imported."""
    store, small = Store(folder), Mask(Grid(1, 1), lambda window: np.zeros(window.shape, np.uint8), CLASSES, {})
    store.read(Window(0, 0, 1, 1))
    write_cog(small, folder.with_name("small.tif"))  # what is imported does not count
    before, worked = peak_mb(), time.process_time()
    return route(store, threads), time.process_time() - worked, peak_mb() - before


def report(folder: Path, arguments: argparse.Namespace) -> None:
    megapixels, tif, ome = arguments.size**2 / 1e6, folder / "mask.tif", folder / "mask.ome.tif"
    routes: dict[str, Callable[[Store, int], float]] = {
        "storing, no levels, 1 thread": partial(storing, levels=False),
        "storing with levels, 1 thread": partial(storing, levels=True),
        "further levels": finishing,
        "COG": partial(product, write=write_cog, target=tif),
        "COG, levels of its own": partial(product, write=write_cog, target=tif, levels=False),
        "OME-TIFF": partial(product, write=write_ome_tiff, target=ome),
        "OME-TIFF, levels of its own": partial(product, write=write_ome_tiff, target=ome, levels=False),
        "OME-Zarr": partial(product, write=write_ome_zarr, target=folder / "mask.ome.zarr"),
        "(reading the mask, 1 thread)": reading,
    }
    print(f"{arguments.size}² = {megapixels:.0f} Mpx, {arguments.threads} threads, best of {arguments.repeat}")
    for name, route in routes.items():
        runs = [alone(measure, route, folder / "scene", arguments.threads) for _ in range(arguments.repeat)]
        seconds, worked, memory = min(runs)[0], min(run[1] for run in runs), max(run[2] for run in runs)
        speed = f"{seconds:6.2f} s  {megapixels / seconds:6.0f} Mpx/s  {worked:6.2f} s of CPU"
        print(f"{name:30} {speed}  peak +{memory:4.0f} MB")
    zarr = sum(file.stat().st_size for file in (folder / "mask.ome.zarr").rglob("*") if file.is_file())
    sizes = {"COG": tif.stat().st_size, "OME-TIFF": ome.stat().st_size, "OME-Zarr": zarr}
    print(", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main(__doc__, report)
