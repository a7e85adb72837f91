"""Peak memory of every process of a run, for a small and a large generated scene, and what `plan` said it would be.

The law: memory does not grow with the image. A scene of stripes is written by windows, planned and run by the
command line in processes of its own, and the kernel's high-water mark of each process (VmHWM) is read while they
live: the client, which holds scheduler and nannies and writes the products, and each worker. Linux only.

    python -m benchmarks.parts.memory --sizes 8192 32768 --workers 2 --blend gaussian
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.harness import ENVIRONMENT, peaks_of, tilesseg
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.models.spec import ModelSpec
from tilesseg.raster.window import Window
from tilesseg.training.synthetic_landscape import stripes

ROWS = 512


class Cheap:
    """An engine that costs next to nothing: the score of a class is how near the first band comes to its value."""

    device = "cpu"

    def __init__(self, spec: ModelSpec, weights: Path | None = None, *, device: str = "cpu", threads: int = 1):
        self._classes = spec.score_channels

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty((len(patches), self._classes, *patches.shape[2:]), np.float32)
        for k in range(self._classes):
            np.multiply(patches[:, 0], np.float32((k + 1) / self._classes), out=scores[:, k])
        return scores


@dataclass(frozen=True)
class Measured:
    """One run. Figures in MB."""

    size: int
    client: float
    workers: tuple[float, ...]
    planned: float
    recompute_factor: float
    core: tuple[int, int]
    tiles: int
    seconds: float

    @property
    def worker(self) -> float:
        return max(self.workers)

    def __str__(self) -> str:
        workers = " ".join(f"{mb:.0f}" for mb in self.workers)
        return (
            f"{self.size:6d}²: client {self.client:.0f} MB, workers {workers} MB, planned {self.planned:.0f} MB "
            f"({self.planned / self.worker:.2f}), recompute {self.recompute_factor:.3f}, "
            f"{self.tiles} cores of {self.core}, {self.seconds:.0f} s"
        )


def write_scene(path: Path, shape: tuple[int, int], *, bands: int = 1, dtype: str = "uint8") -> Path:
    """A scene of stripes, made and written window by window."""
    height, width = shape
    rows = (
        stripes(Window(y, 0, min(ROWS, height - y), width), bands=bands)[0].astype(dtype, copy=False)
        for y in range(0, height, ROWS)
    )
    names = [f"b{k + 1}" for k in range(bands)]
    return write_image(path, grid=utm_grid(shape, resolution=10), rows=rows, names=names, dtype=dtype)


def write_model(folder: Path, *, bands: int = 1, classes: int = 1, margin: int | None = None) -> Path:
    """A bundle of the cheap engine; with a margin it may be cropped."""
    spec: dict[str, Any] = {
        "name": "cheap",
        "licence": "CC0-1.0",
        "engine": "benchmarks.parts.memory:Cheap",
        "bands": [f"b{k + 1}" for k in range(bands)],
        "input_range": [0, 240],
        "normalise": {"kind": "mean_std", "mean": [0.0] * bands, "std": [240.0] * bands},
        "activation": "none",
        "decision": {"kind": "threshold", "threshold": 0.5} if classes == 1 else {"kind": "argmax"},
        "classes": [{"name": f"class {k}", "colour": f"#{k * 16:02x}8080"} for k in range(max(2, classes))],
        "patch": {"multiple": 16, "stride_multiple": 16},
        **({} if margin is None else {"margin": margin}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(spec))
    return folder


TILINGS: dict[str, dict[str, Any]] = {
    "gaussian": {"blend": "gaussian", "patch": 512, "overlap": 64},
    "crop": {"blend": "crop", "patch": 1216},  # stated, else it is measured, and every machine has another one
}


def measure(
    folder: Path,
    scene: Path,
    model: str | Path,
    *,
    tiling: dict[str, Any],
    workers: int = 1,
    threads: int = 2,
    stage: str = "never",
    **cluster: Any,
) -> Measured:
    """Plan and run one scene in processes of their own."""
    job = folder / "job.yaml"
    run = folder / "run"
    job.write_text(
        yaml.safe_dump(
            {
                "scenes": str(scene),
                "model": str(model),
                "input": {"stage": stage},
                "tiling": tiling,
                "output": {"dir": str(run)},
                "cluster": {"workers": workers, "threads": threads, **cluster},
            }
        )
    )
    planned = json.loads(subprocess.check_output(tilesseg("plan", job, "--json"), env=ENVIRONMENT))["scenes"][0]
    start = time.monotonic()
    process = subprocess.Popen(tilesseg("run", job), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    peaks = peaks_of(process)
    seconds = time.monotonic() - start
    if process.returncode:
        raise RuntimeError(f"tilesseg run ended with {process.returncode}")
    client = peaks.pop(process.pid)[1]
    return Measured(
        size=planned["size"][0],
        client=client,
        workers=tuple(mb for role, mb in peaks.values() if role == "worker"),
        planned=planned["memory_mb"],
        recompute_factor=planned["recompute_factor"],
        core=tuple(planned["core"]),
        tiles=planned["tiles"],
        seconds=seconds,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--bands", type=int, default=1)
    parser.add_argument("--dtype", default="uint8")
    parser.add_argument("--classes", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blend", nargs="+", choices=sorted(TILINGS), default=sorted(TILINGS))
    parser.add_argument("--core", type=int)
    parser.add_argument("--model", help="a bundle instead of the cheap model; give the bands that it takes")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = {
            size: write_scene(folder / f"scene{size}.tif", (size, size), bands=asked.bands, dtype=asked.dtype)
            for size in asked.sizes
        }
        for blend in asked.blend:
            margin = 96 if blend == "crop" else None
            model = asked.model or write_model(folder / blend, bands=asked.bands, classes=asked.classes, margin=margin)
            tiling = {**TILINGS[blend], **({"core": asked.core} if asked.core else {})}
            for workers in asked.workers:
                print(f"{blend}, {workers} worker processes, {asked.threads} tiles at a time in each", flush=True)
                for scene in scenes.values():
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        print(
                            measure(Path(place), scene, model, tiling=tiling, workers=workers, threads=asked.threads),
                            flush=True,
                        )


if __name__ == "__main__":
    main()
