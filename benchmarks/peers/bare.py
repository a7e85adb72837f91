"""The limits of `bench.py`: the network and nothing else, and the files and no network.

    python -m benchmarks.peers.bare network MODEL IMAGE --patch 1216 --batch 1 --processes 2 --threads 1
    python -m benchmarks.peers.bare files IMAGE MASK COPY

The network predicts patches of the image, of tilesseg's own shape, in as many processes with as many threads and
batches at a time as its workers have and in their environment, and says how many pixels it did a second. The files are
read and written as tilesseg's are, by windows of whole rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
import tifffile
from rasterio.windows import Window

from benchmarks import harness
from tilesseg.cluster.launch_arguments import WORKER_ENVIRONMENT
from tilesseg.models.load import load_model
from tilesseg.models.network import Call, Network

ROWS = 512


def files(image: Path, mask: Path, copy: Path) -> None:
    """Read the image once from top to bottom, and write the labels of a mask of it."""
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS", GDAL_CACHEMAX=256 * 2**20), rasterio.open(image) as file:
        for y in range(0, file.height, ROWS):
            file.read(window=Window(0, y, file.width, min(ROWS, file.height - y)))
    tifffile.imwrite(copy, tifffile.imread(mask, level=0), tile=(512, 512), compression="deflate")


def network(asked: argparse.Namespace) -> None:
    """Start the processes, let them begin together, add up their rates."""
    call = harness.python("-m", "benchmarks.peers.bare", "one", asked.model, asked.image)
    for name in ("patch", "batch", "threads", "lanes", "discarded", "seconds", "engine", "precision", "device"):
        value = getattr(asked, name)
        call += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(call, env=environment, **pipes) for _ in range(asked.processes)]
    for process in started:
        process.stdout.readline()  # "ready": loading and compiling must not be in the figure
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    print(json.dumps({key: sum(answer[key] for answer in answers) for key in ("pixels", "rate", "cpu")}))


def one(asked: argparse.Namespace) -> None:
    """A process of `network`."""
    choice = {"device": asked.device, "engine": asked.engine, "precision": asked.precision}
    model = load_model(asked.model, threads=asked.threads, parallel_batches=asked.lanes, **choice)
    patches = _patches(asked.image, asked.patch, asked.batch)
    margin = max(0, asked.discarded - model.spec.patch.shrink // 2)
    predict = model.network(Call(patches.dtype, model.spec.normalisation(), labels=True, margin=margin))
    with ThreadPoolExecutor(asked.lanes) as pool:
        for _ in range(2):
            list(pool.map(predict, [patches] * asked.lanes))
        print("ready", flush=True)
        sys.stdin.readline()
        used = time.process_time()
        until = time.perf_counter() + asked.seconds
        done = list(pool.map(lambda lane: lane_rate(predict, patches, until), range(asked.lanes)))
    pixels, rate = (sum(column) for column in zip(*done, strict=True))
    print(json.dumps({"pixels": pixels, "rate": rate, "cpu": time.process_time() - used}))


def lane_rate(predict: Network, patches: np.ndarray, until: float) -> tuple[int, float]:
    """Pixels that one thread predicts until some time, and how many a second."""
    begin, pixels = time.perf_counter(), 0
    while time.perf_counter() < until:
        predict(patches)
        pixels += patches[:, 0].size
    return pixels, pixels / (time.perf_counter() - begin)


def _patches(image: Path, side: list[int], batch: int) -> np.ndarray:
    """`(batch, channel, P, Q)` from the image, one after the other along its top."""
    height, width = side[0], side[-1]
    with rasterio.open(image) as file:
        at = [(k * width) % max(1, file.width - width + 1) for k in range(batch)]
        return np.stack([file.read(window=Window(x, 0, width, height)) for x in at])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["network", "one", "files"])
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--patch", type=int, nargs="+", default=[1216])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of the engine in each process")
    parser.add_argument("--lanes", type=int, default=1, help="batches at a time in each process")
    parser.add_argument("--discarded", type=int, default=0, help="pixels on each side of a patch that do not count")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    if asked.what == "files":
        files(*asked.paths)
        return
    asked.model, asked.image = asked.paths
    (network if asked.what == "network" else one)(asked)


if __name__ == "__main__":
    main()
