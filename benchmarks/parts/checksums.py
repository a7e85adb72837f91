"""Measure what the checksums of shards cost a run whose network costs nothing.

    python -m benchmarks.parts.checksums [--side 8192] [--pairs 5]

A generated scene is segmented by a network that copies its input, with the sums and without them in turn; each run is a
process of its own. The figures are the processor seconds of the whole process, and their ratio pair by pair. The scene
has labels in patches of 4 px, so that its shards do not compress to nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.harness import alone
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.formats.zarr import shard_sum
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
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of runs")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.side)
        ratios = []
        for pair in range(options.pairs):
            seconds = {}
            for sums in (True, False) if pair % 2 else (False, True):
                seconds[sums] = alone(spent, folder, f"run-{pair}-{sums}", sums)
            ratios.append(seconds[True] / seconds[False])
            print(f"with {seconds[True]:.2f} CPU s, without {seconds[False]:.2f}: {ratios[-1]:.4f}", flush=True)
    print(f"ratio: median {statistics.median(ratios):.4f}, {min(ratios):.4f} to {max(ratios):.4f}")


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


def spent(folder: str, run: str, sums: bool) -> float:
    """Processor seconds of a run, its products included."""
    if not sums:
        shard_sum.ShardSum.of = classmethod(lambda cls, data: cls(len(data), 0))  # type: ignore[method-assign]
        shard_sum.ShardSum.compare = ShardSum.compare_size  # type: ignore[method-assign]
    job = {
        "scenes": f"{folder}/scene.tif",
        "model": f"{folder}/model",
        "tiling": {"blend": "crop", "core": 1024},
        "output": {"dir": f"{folder}/{run}", "preview": False},
        "cluster": {"kind": "serial", "engine_threads": 1},
    }
    begun = resource.getrusage(resource.RUSAGE_SELF)
    run_job(parse_job(job, where="checksums.py"))
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime


if __name__ == "__main__":
    main()
