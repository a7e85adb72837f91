"""Pyramids of a stored mask: the levels that workers make, and an OME-TIFF with them or with levels of its own.

The mask is that of `benchmarks/cog.py`, in a run's store. Each route runs in a process of its own; the time of the
OME-TIFF with stored levels is without making them. Run it as `python benchmarks/pyramid.py --size 16384 --threads 2`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cog import BAND, peak_memory, smooth_labels

from tilesseg.executors import ThreadExecutor
from tilesseg.finishing import with_levels
from tilesseg.formats import Mask, MaskClass
from tilesseg.formats.ome_tiff import write_ome_tiff
from tilesseg.grid import Grid
from tilesseg.store import Store
from tilesseg.window import Window

CLASSES = tuple(MaskClass(f"class {k}", (50 * k, 255 - 50 * k, 90)) for k in range(5))


def make_store(folder: Path, size: int) -> None:
    store = Store(folder)
    store.create(shape=(size, size), shard=1024, chunk=512, fingerprint="benchmark")
    band = store.band(Window(0, 0, size, size))
    for labels in smooth_labels(size):
        band.write(labels)


def read_mask(store: Store) -> Mask:
    grid = Grid(*store.shape, (0.5, 0, 0, 0, 0.5, 0), unit="micrometre", metres_per_unit=1e-6)
    return Mask(grid, store.read, CLASSES, {"model": "benchmark"})


def levels(store: Store, threads: int) -> float:
    start = time.perf_counter()
    with with_levels(read_mask(store), store, ThreadExecutor(threads)):
        return time.perf_counter() - start


def ome_tiff(store: Store, threads: int, *, target: Path) -> float:
    start = time.perf_counter()
    write_ome_tiff(read_mask(store), target, threads=threads)
    return time.perf_counter() - start


def ome_tiff_of_levels(store: Store, threads: int, *, target: Path) -> float:
    with with_levels(read_mask(store), store, ThreadExecutor(threads)) as mask:
        start = time.perf_counter()
        write_ome_tiff(mask, target, threads=threads)
        return time.perf_counter() - start


def reading(store: Store, threads: int) -> float:
    start, (height, width) = time.perf_counter(), store.shape
    for y in range(0, height, BAND):
        store.read(Window(y, 0, min(BAND, height - y), width))
    return time.perf_counter() - start


def measure(route: Callable[[Store, int], float], folder: Path, threads: int, results: Any) -> None:
    store = Store(folder)
    store.read(Window(0, 0, 1, 1))
    before, worked = peak_memory(), time.process_time()
    results.put((route(store, threads), time.process_time() - worked, peak_memory() - before))


def in_a_process(*args: Any) -> tuple[float, float, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(*args, results))
    process.start()
    answer: tuple[float, float, float] = results.get(timeout=3600)
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    target, megapixels = folder / "mask.ome.tif", arguments.size**2 / 1e6
    routes = {
        "levels by threads": levels,
        "OME-TIFF, levels stored": partial(ome_tiff_of_levels, target=target),
        "OME-TIFF, own levels": partial(ome_tiff, target=target),
        "(reading the mask)": reading,
    }
    print(f"{arguments.size}² = {megapixels:.0f} Mpx, {arguments.threads} threads, best of {arguments.repeat}")
    for name, route in routes.items():
        runs = [in_a_process(route, folder / "scene", arguments.threads) for _ in range(arguments.repeat)]
        seconds, worked, memory = min(runs)[0], min(run[1] for run in runs), max(run[2] for run in runs)
        speed = f"{seconds:6.2f} s  {megapixels / seconds:6.0f} Mpx/s  {worked:6.2f} s of CPU"
        print(f"{name:24} {speed}  peak +{memory:4.0f} MB")
    print(f"the file: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
