"""What copying to Zarr costs and saves: seconds, and the peak memory of each process.

    python -m benchmarks.parts.staging [--size 16384] [--only one-strip-rgb]

For each way in which a file is stored: `tilesseg stage` on its own, beside a bare copy (GDAL reading from top to
bottom in one process, nothing written), and the same cheap job with `stage: never` and `stage: always`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterioWindow

from benchmarks.harness import ENVIRONMENT, peaks_of, tilesseg
from benchmarks.parts import memory
from tilesseg.raster.window import Window
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.synthetic_landscape import stripes

ROWS = 512
KINDS: dict[str, dict[str, Any]] = {
    "striped": {"compress": "deflate", "zlevel": 1, "blockysize": 16},
    "one-strip": {"compress": "deflate", "zlevel": 1, "bands": 1},
    "one-strip-rgb": {"compress": "deflate", "zlevel": 1, "bands": 3, "interleave": "pixel"},
    "one-strip-uint16": {"compress": "deflate", "zlevel": 1, "bands": 1, "dtype": "uint16"},
    "jpeg-2000": {
        "driver": "JP2OpenJPEG",
        "QUALITY": "100",
        "REVERSIBLE": "YES",
        "BLOCKXSIZE": 1024,
        "BLOCKYSIZE": 1024,
    },
}


def write(path: Path, size: int, *, bands: int = 1, dtype: str = "uint8", **profile: Any) -> Path:
    """An image of stripes with noise of four bits, so that it compresses as real scenes do, stored as asked."""
    noise = np.random.default_rng(0).integers(0, 16, (1, ROWS, size))
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 600_000, 0, -10, 5_400_000)}
    shape = {"count": bands, "height": size, "width": size, "dtype": dtype}
    options = {"driver": "GTiff", "blockysize": size, **place, **shape, **profile}
    if options["driver"] != "GTiff":
        del options["blockysize"]
    with rasterio.open(path, "w", **options) as file:
        for y in range(0, size, ROWS):
            rows = stripes(Window(y, 0, min(ROWS, size - y), size), bands=bands)[0]
            rows = (rows + np.roll(noise, y, axis=2)[:, : rows.shape[1]]).astype(dtype)
            file.write(rows, window=RasterioWindow(0, y, size, rows.shape[1]))
    return path


def bare(path: Path) -> float:
    """Seconds in which one process reads the file from top to bottom."""
    start = time.monotonic()
    with rasterio.open(path) as file:
        for y in range(0, file.height, ROWS):
            file.read(window=RasterioWindow(0, y, file.width, min(ROWS, file.height - y)))
    return time.monotonic() - start


def staged(path: Path, out: Path) -> tuple[float, float]:
    """Seconds of `tilesseg stage`, and the largest peak of any of its processes in MB."""
    start = time.monotonic()
    process = subprocess.Popen(tilesseg("stage", path, out), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    peaks = peaks_of(process)
    if process.returncode:
        raise RuntimeError(f"tilesseg stage ended with {process.returncode}")
    return time.monotonic() - start, max(mb for _, mb in peaks.values())


def compare(folder: Path, name: str, size: int) -> str:
    options = dict(KINDS[name])
    suffix = ".tif" if options.get("driver") is None else ".jp2"
    scene = write(folder / f"{name}{suffix}", size, **options)
    bands = int(options.get("bands", 1))
    model = memory.write_model(folder / f"model-{name}", bands=bands, margin=32)
    read = bare(scene)
    seconds, peak = staged(scene, folder / f"{name}.zarr")
    runs = {}
    for stage in ("never", "always"):
        place = folder / f"{name}-{stage}"
        place.mkdir()
        runs[stage] = memory.measure(place, scene, model, tiling={"blend": "crop"}, workers=2, threads=2, stage=stage)
    same = same_masks(*(folder / f"{name}-{stage}" / "run" for stage in runs), scene=name, size=size)
    return (
        f"{name:17s} stage {seconds:5.1f} s, {seconds / read:.2f} × a bare read, peak {peak:.0f} MB; job as it is "
        f"{runs['never'].seconds:.0f} s, {runs['never'].worker:.0f} MB a worker; copied first "
        f"{runs['always'].seconds:.0f} s, {runs['always'].worker:.0f} MB; masks {'equal' if same else 'DIFFER'}"
    )


def same_masks(one: Path, two: Path, *, scene: str, size: int) -> bool:
    left, right = (RunDirectory(run).scene(scene) for run in (one, two))
    windows = [Window(y, 0, min(2048, size - y), size) for y in range(0, size, 2048)]
    return all(np.array_equal(left.read(window), right.read(window)) for window in windows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--only", choices=KINDS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in [asked.only] if asked.only else KINDS:
            print(compare(Path(folder), name, asked.size), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
