"""The demo: a made-up landscape whose truth is known, segmented by the bundled model on a local Dask cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.events import Listener, Note
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.planning.job import parse_job
from tilesseg.raster.labels import NODATA
from tilesseg.raster.metrics import confusion, iou
from tilesseg.raster.window import Window
from tilesseg.reporting.results import Report
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.synthetic_landscape import BANDS, CLASSES, landscape
from tilesseg.training.synthetic_landscape import NODATA as SCENE_NODATA

MODEL = "landscape"
STRIP = 512
"""Number of rows that are generated and compared at a time."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Outcome of the demo."""

    report: Report
    scene: Path
    mask: Path
    picture: Path
    iou: dict[str, float]
    """Intersection over union with the truth, by class."""
    seconds: float

    @property
    def mean_iou(self) -> float:
        return float(np.nanmean(list(self.iou.values())))

    @property
    def text(self) -> str:
        """Outcome as text for people."""
        classes = ", ".join(f"{name} {value:.3f}" for name, value in self.iou.items())
        return (
            f"mean IoU {self.mean_iou:.3f} against the truth ({classes}), {self.seconds:.0f} s in all\n"
            f"scene    {self.scene}\nmask     {self.mask}\npicture  {self.picture}"
        )


def run_demo(
    directory: Path, *, size: int, seed: int, listener: Listener, engine: str = "auto", precision: str = "auto"
) -> DemoResult:
    """Make the scene, segment it, compare the mask with the truth.

    Args:
        directory: folder for scene, run, mask and picture.
        size: side of the scene in pixels.
        seed: seed of the landscape.
        listener: called with every event.
        engine: `engine` of the job.
        precision: `precision` of the job.

    Raises:
        TilessegError: the directory cannot be written, or holds the run of another scene.
    """
    begun = time.monotonic()
    RunDirectory.create(directory)
    scene = directory / f"scene-{size}-{seed}.tif"
    if not scene.exists():
        listener(Note(f"making a landscape of {size} × {size} px"))
        grid = utm_grid((size, size), resolution=10.0)
        write_image(scene, grid=grid, rows=_strips(size, seed), names=BANDS, dtype="uint16", nodata=SCENE_NODATA)
    run = directory / f"run-{size}-{seed}"
    mask = directory / f"mask-{size}-{seed}.tif"
    products = [
        {"format": "cog", "path": str(mask)},
        {"format": "ome-zarr", "path": str(mask.with_suffix(".ome.zarr"))},
    ]
    job = parse_job(
        {
            "name": "demo",
            "scenes": {"image": str(scene)},
            "model": MODEL,
            "engine": engine,
            "precision": precision,
            "output": {"dir": str(run), "products": products},
        },
        where="demo",
    )
    report = run_job(job, listeners=[listener])
    agreement = _agreement(RunDirectory(run).scene(scene.stem).read, size=size, seed=seed)
    return DemoResult(report, scene, mask, mask.with_suffix(".png"), agreement, time.monotonic() - begun)


def _windows(size: int) -> Iterator[Window]:
    return (Window(y, 0, min(STRIP, size - y), size) for y in range(0, size, STRIP))


def _strips(size: int, seed: int) -> Iterator[NDArray[Any]]:
    return (landscape((size, size), seed, window=window).bands for window in _windows(size))


def _agreement(read: Callable[[Window], NDArray[np.uint8]], *, size: int, seed: int) -> dict[str, float]:
    """IoU of each class between the stored mask and the truth, over valid pixels."""
    total = np.zeros((len(CLASSES), len(CLASSES) + 1), np.int64)
    for window in _windows(size):
        truth = landscape((size, size), seed, window=window)
        total += confusion(np.where(truth.valid, truth.labels, NODATA).astype(np.uint8), read(window), len(CLASSES))
    return {name: round(float(value), 4) for name, value in zip(CLASSES, iou(total), strict=True)}
