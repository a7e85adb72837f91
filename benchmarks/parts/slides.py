"""What looking at tissue alone saves: generated slides of glass and tissue, segmented by a model that costs nothing.

A slide of any size is written in seconds: its JPEG tiles are glass, tissue, or a border of the two, so that few
different ones are encoded. It has the pyramid and the description of an Aperio slide.

    python -m benchmarks.parts.slides --size 60000 40000 --share 0.3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.harness import ENVIRONMENT, tilesseg
from benchmarks.parts import memory
from benchmarks.parts.aperio import TILE, write_pyramid
from tilesseg.store.run_directory import RunDirectory

GLASS, STAIN = (243, 242, 244), (172, 96, 160)


def tissue_map(shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """Which tiles of the full resolution are tissue: a few discs in the left of the slide, as a section lies."""
    rows, columns = (-(-side // TILE) for side in shape)
    y, x = np.mgrid[:rows, :columns] + 0.5
    centres = [(0.3, 0.3), (0.7, 0.35), (0.45, 0.7)]
    distance = np.min(
        [np.hypot((y / rows - cy) * shape[0], (x / columns - cx) * shape[1]) for cy, cx in centres], axis=0
    )
    nearest = np.argsort(distance, axis=None, kind="stable")[: round(share * rows * columns)]
    found = np.zeros(rows * columns, np.bool_)
    found[nearest] = True
    return found.reshape(rows, columns)


def write_slide(path: Path, shape: tuple[int, int], *, share: float) -> NDArray[np.bool_]:
    """Write a slide of `shape (height, width)`; returns its tissue, tile by tile."""
    found = tissue_map(shape, share)
    small = np.where(found[..., None], np.array(STAIN), np.array(GLASS)).astype(np.uint8)
    write_pyramid(
        path,
        shape,
        lambda factor, size: _tiles(found, size, factor),
        thumbnail=small,
        subsampling=(1, 1),
    )
    return found


def _tiles(found: NDArray[np.bool_], shape: tuple[int, int], factor: int) -> Iterator[bytes]:
    """The JPEG tiles of a level, each encoded once."""
    known: dict[bytes, bytes] = {}
    for row in range(-(-shape[0] // TILE)):
        for column in range(-(-shape[1] // TILE)):
            part = np.zeros((factor, factor), np.bool_)
            seen = found[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            part[: seen.shape[0], : seen.shape[1]] = seen
            key = part.tobytes()
            if key not in known:
                known[key] = _encoded(part.repeat(TILE // factor, axis=0).repeat(TILE // factor, axis=1))
            yield known[key]


def _encoded(tissue: NDArray[np.bool_]) -> bytes:
    """One tile: texture where there is tissue, a scanner's noise elsewhere."""
    rng = np.random.default_rng(0)
    image = np.where(tissue[..., None], np.array(STAIN), np.array(GLASS))
    image = (
        image + rng.integers(-2, 3, (*tissue.shape, 1)) + tissue[..., None] * rng.integers(-30, 31, (*tissue.shape, 1))
    )
    data = np.clip(image, 0, 255).astype(np.uint8)
    return bytes(imagecodecs.jpeg8_encode(data, level=85, outcolorspace="ycbcr", subsampling="444"))


def write_model(folder: Path) -> Path:
    """The cheap engine of `memory`, for slides."""
    memory.write_model(folder, bands=3, margin=32)
    spec = yaml.safe_load((folder / "model.yaml").read_text())
    spec.update(bands=["red", "green", "blue"], input_range=[0, 255])
    (folder / "model.yaml").write_text(yaml.safe_dump(spec))
    return folder


@dataclass(frozen=True)
class Measured:
    """One run, from its records."""

    seconds: float
    """Of `tilesseg run`, products left out."""
    busy: float
    """Of all tiles together: reading, predicting, writing."""
    peak_mb: float
    """Of a worker process."""
    pixels: int
    outside: int
    read: int
    patches: int
    planned_patches: int
    tiles: int
    unread: int
    """Tiles of which nothing was read or predicted."""

    def __str__(self) -> str:
        return (
            f"{self.pixels / 1e6:.0f} Mpx, not looked at {self.outside / self.pixels:.1%}, "
            f"read {self.read / 1e6:.0f} Mpx, patches {self.patches}, tiles {self.tiles}, unread {self.unread}; "
            f"{self.seconds:.1f} s, in tiles {self.busy:.1f} s; a worker's peak {self.peak_mb:.0f} MB"
        )


def measure(folder: Path, scene: Path, model: Path, *, tissue: str = "auto", workers: int = 2) -> Measured:
    """Plan and run one slide in processes of their own, without products."""
    folder.mkdir(parents=True, exist_ok=True)
    job, run = folder / "job.yaml", folder / "run"
    data: dict[str, Any] = {
        "scenes": str(scene),
        "model": str(model),
        "input": {"tissue": tissue},
        "tiling": {"patch": 1088, "core": 4096},
        "output": {"dir": str(run), "products": [], "preview": False},
        "cluster": {"workers": workers, "threads": 1, "engine_threads": 1},  # one tile at a time: an even peak
    }
    job.write_text(yaml.safe_dump(data))
    planned = json.loads(subprocess.check_output(tilesseg("plan", job, "--json"), env=ENVIRONMENT))
    start = time.monotonic()
    subprocess.run(tilesseg("run", job), env=ENVIRONMENT, check=True, capture_output=True)
    seconds = time.monotonic() - start
    records = list(RunDirectory(run).scene(scene.stem).done().values())
    return Measured(
        seconds=seconds,
        busy=sum(sum(record.seconds.values()) for record in records),
        peak_mb=max(record.peak_mb for record in records),
        pixels=sum(record.pixels for record in records),
        outside=sum(record.outside for record in records),
        read=sum(record.read for record in records),
        patches=sum(record.patches for record in records),
        planned_patches=planned["scenes"][0]["patches"],
        tiles=len(records),
        unread=sum(record.read == record.patches == 0 for record in records),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[60_000, 40_000], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--share", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.6])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--everywhere", action="store_true", help="also look everywhere, to compare")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder / "model")
        for share in asked.share:
            scene = folder / f"slide-{share * 100:.0f}.svs"  # a name without dots
            write_slide(scene, (asked.size[1], asked.size[0]), share=share)
            for tissue in ("auto", "none") if asked.everywhere else ("auto",):
                found = measure(folder / f"{share:g}-{tissue}", scene, model, tissue=tissue, workers=asked.workers)
                print(f"tissue {share:.0%}, {tissue}: {found}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
