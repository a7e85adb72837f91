"""Measure what the checksums of shards cost a run whose network costs nothing.

    python -m benchmarks.parts.checksums [--side 8192] [--runs 5]

A generated scene is segmented by a network that copies its input, each time in a process of its own. The figure is the
share of the process's processor seconds that making the sums and comparing stored shards with them takes, the reading
for the comparison included; runs with and without them differ by less than runs among each other. The scene has labels
in patches of 4 px, so that its shards do not compress to nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.harness import alone
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.formats.zarr.shard_sum import ShardSum
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job


class Copying:
    """Engine whose scores are its input's bands: as little work as a network can do."""

    def __init__(self, spec: object, weights: Path | None = None, *, device: str = "cpu", threads: int | None = None):
        self.spec, self.device = spec, "cpu"

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return patches.copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="side of the scene in pixels")
    parser.add_argument("--runs", type=int, default=5, help="number of runs")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.side)
        shares = []
        for number in range(options.runs):
            sums, whole = alone(spent, folder, f"run-{number}")
            shares.append(sums / whole)
            print(f"sums {sums:.3f} of {whole:.2f} CPU s: {shares[-1]:.2%}", flush=True)
    print(f"share: median {statistics.median(shares):.2%}, at most {max(shares):.2%}")


def write_inputs(folder: Path, side: int) -> None:
    small = np.random.default_rng(0).integers(0, 250, (2, side // 4, side // 4)).astype(np.uint8)
    rows = small.repeat(4, axis=1).repeat(4, axis=2)
    grid = utm_grid((side, side), resolution=10)
    write_image(folder / "scene.tif", grid=grid, rows=[rows], names=["b1", "b2"], dtype="uint8")
    (folder / "model").mkdir()
    spec = {
        "name": "copying",
        "licence": "CC0-1.0",
        "engine": "benchmarks.parts.checksums:Copying",
        "bands": ["b1", "b2"],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "activation": "none",
        "classes": [{"name": "first", "colour": "#208080"}, {"name": "second", "colour": "#802080"}],
        "patch": {"multiple": 16, "stride_multiple": 16, "preferred": 512},
        "margin": 0,
    }
    (folder / "model" / "model.yaml").write_text(yaml.safe_dump(spec))


def spent(folder: str, run: str) -> tuple[float, float]:
    """Processor seconds of a run that its sums take, and of the whole run, its products included."""
    seconds = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*arguments)
            finally:
                seconds[0] += time.thread_time() - begun

        return called

    ShardSum.of = staticmethod(timed(ShardSum.of))  # type: ignore[method-assign, assignment]
    ShardSum.compare = timed(ShardSum.compare)  # type: ignore[method-assign]
    job = {
        "scenes": f"{folder}/scene.tif",
        "model": f"{folder}/model",
        "tiling": {"blend": "crop", "core": 1024},
        "output": {"dir": f"{folder}/{run}", "preview": False},
        "cluster": {"kind": "serial", "engine_threads": 1},
    }
    begun = time.process_time()
    run_job(parse_job(job, where="checksums.py"))
    return seconds[0], time.process_time() - begun


if __name__ == "__main__":
    main()
