"""Segment images too large for memory, tile by tile, and put the mask back where the image was.

An image opens as a `Source` on a `Grid`. A `Tiling` cuts it into tiles: cores that partition it, and one lattice of
overlapping patches. For each tile, on whichever worker, `segment_tile` reads core and halo, predicts the patches,
blends their scores and stores the core. When every tile is in the ledger, the mask becomes a COG.

Read in this order: raster.window, raster.grid, raster.tiling, inference.blending, inference.segment_tile,
planning.plan, run.run_job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilesseg.version import __version__ as __version__

_HOMES = {
    "Grid": "raster.grid",
    "Job": "planning.job",
    "Report": "reporting.results",
    "Tiling": "raster.tiling",
    "TilessegError": "errors",
    "Window": "raster.window",
    "evaluate": "evaluation.evaluate_masks",
    "export_run": "run.write_products",
    "job_status": "run.run_job",
    "load_model": "models.load",
    "open_source": "formats.open",
    "plan_job": "planning.plan",
    "read_job": "planning.job",
    "run_job": "run.run_job",
    "segment_tile": "inference.segment_tile",
    "stage_image": "run.copy_to_zarr",
    "train": "training.train_job",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from tilesseg.errors import TilessegError as TilessegError
    from tilesseg.evaluation.evaluate_masks import evaluate as evaluate
    from tilesseg.formats.open import open_source as open_source
    from tilesseg.inference.segment_tile import segment_tile as segment_tile
    from tilesseg.models.load import load_model as load_model
    from tilesseg.planning.job import Job as Job
    from tilesseg.planning.job import read_job as read_job
    from tilesseg.planning.plan import plan_job as plan_job
    from tilesseg.raster.grid import Grid as Grid
    from tilesseg.raster.tiling import Tiling as Tiling
    from tilesseg.raster.window import Window as Window
    from tilesseg.reporting.results import Report as Report
    from tilesseg.run.copy_to_zarr import stage_image as stage_image
    from tilesseg.run.run_job import job_status as job_status
    from tilesseg.run.run_job import run_job as run_job
    from tilesseg.run.write_products import export_run as export_run
    from tilesseg.training.train_job import train as train


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import tilesseg` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tilesseg' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tilesseg.{_HOMES[name]}"), name)
