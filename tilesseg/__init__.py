"""Segment images too large for memory, tile by tile, and put the mask back where the image was.

An image opens as a `Source` on a `Grid`. A `Tiling` cuts it into tiles: cores that partition it, and one lattice of
overlapping patches. For each tile, on whichever worker, `segment_tile` reads core and halo, predicts the patches,
blends their scores and stores the core. When every tile is in the ledger, the mask becomes a COG.

Read the modules in this order: window, grid, tiling, blend, segment, plan, run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Grid": "grid",
    "Job": "job",
    "Report": "run",
    "Tiling": "tiling",
    "TilessegError": "errors",
    "Window": "window",
    "export_run": "export",
    "job_status": "run",
    "load_model": "models",
    "open_source": "formats",
    "plan_job": "run",
    "read_job": "job",
    "run_job": "run",
    "segment_tile": "segment",
    "stage_image": "staging",
}

__all__ = [*_HOMES]

if TYPE_CHECKING:
    from tilesseg.errors import TilessegError as TilessegError
    from tilesseg.export import export_run as export_run
    from tilesseg.formats import open_source as open_source
    from tilesseg.grid import Grid as Grid
    from tilesseg.job import Job as Job
    from tilesseg.job import read_job as read_job
    from tilesseg.models import load_model as load_model
    from tilesseg.run import Report as Report
    from tilesseg.run import job_status as job_status
    from tilesseg.run import plan_job as plan_job
    from tilesseg.run import run_job as run_job
    from tilesseg.segment import segment_tile as segment_tile
    from tilesseg.staging import stage_image as stage_image
    from tilesseg.tiling import Tiling as Tiling
    from tilesseg.window import Window as Window


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import tilesseg` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tilesseg' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tilesseg.{_HOMES[name]}"), name)
