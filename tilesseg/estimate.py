"""What a scene will cost, said before it is paid: memory, disk, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.store import ROW_COPIES

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.plan import Plan
    from tilesseg.scenes import ScenePlan

MB = 1e6
GDAL_CACHE_MB = 64.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one scene."""

    tiles: int
    patches: int
    overlap_factor: float
    recompute_factor: float
    work_factor: float
    memory_mb: float
    """Peak resident memory of a worker process, once the model is loaded and both kinds of buffers are full."""
    disk_mb: float
    """Stored mask and product, uncompressed: an upper bound."""
    seconds: float
    """Wall time of predicting alone, over all workers."""


def estimate(
    scene: ScenePlan, plan: Plan, *, loaded_mb: float, seconds_per_batch: float, workers: int, threads: int
) -> Estimate:
    """Estimate a scene from what one process measured.

    Args:
        scene: the scene's plan.
        plan: the plan it belongs to.
        loaded_mb: resident memory of a process that has loaded the model and predicted one batch, in MB.
        seconds_per_batch: wall time of one batch.
        workers: worker processes.
        threads: tiles at the same time in each of them.
    """
    tiling = scene.tiling
    height, width = scene.grid.shape
    batches = -(-tiling.patches // scene.layout.batch)
    return Estimate(
        tiles=len(tiling),
        patches=tiling.patches,
        overlap_factor=tiling.overlap_factor,
        recompute_factor=tiling.recompute_factor,
        work_factor=tiling.work_factor,
        memory_mb=loaded_mb + GDAL_CACHE_MB + min(threads, len(tiling)) * tile_bytes(scene, plan.spec) / MB,
        disk_mb=height * width * (1 + 4 / 3) / MB,
        seconds=batches * seconds_per_batch / workers,
    )


def tile_bytes(scene: ScenePlan, spec: ModelSpec) -> int:
    """Bytes that one tile in flight holds at most: one row of patches, and labels waiting for a row of shards."""
    layout, channels, scores = scene.layout, len(spec.bands), spec.score_channels
    lattice = layout.lattice
    core_width = min(layout.core[1], scene.grid.width)
    read = lattice.patch * (core_width + 2 * lattice.patch) * (channels * scene.itemsize + 1)
    sums = lattice.support * core_width * 4 * (scores + (not lattice.exclusive))
    finished = lattice.stride * core_width * (4 * (scores + 1) + 2)
    band = ROW_COPIES * layout.shard * core_width
    batch = layout.batch * lattice.patch**2 * 4 * (2 * channels + 2 * scores)
    return read + sums + finished + band + batch
