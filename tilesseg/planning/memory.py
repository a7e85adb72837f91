"""Memory, disk and time of a scene, estimated before it is segmented; and the limits of the buffers of a tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilesseg.planning.staging import REGION_BYTES
from tilesseg.process import KEPT
from tilesseg.raster.region_of_interest import RoiWork, roi_work
from tilesseg.store.staged_copy import SHARD_COPIES

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan
    from tilesseg.raster.tiling import Tiling


MB = 1e6
GDAL_CACHE_MB = 64.0
SURPLUS = 256
"""Number of rows read before they are needed, so that whole blocks are read: half a block of the usual size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one scene."""

    tiles: int
    tiles_looked_at: int
    """Number of tiles that touch the region of interest, and read the image."""
    outside: float
    """Share of the pixels outside the region of interest."""
    patches: int
    """Largest number of predicted patches: a patch without a valid pixel is not predicted."""
    overlap_factor: float
    recompute_factor: float
    work_factor: float
    memory_mb: float
    """Peak resident memory of a worker process, once the model is loaded and both kinds of buffers are full."""
    disk_mb: float
    """Stored mask and scores, their products, and the copy of the image, uncompressed: an upper bound."""
    seconds: float
    """Wall time of predicting alone, over all workers."""


def estimate(
    scene: ScenePlan, plan: Plan, *, loaded_mb: float, seconds_per_batch: float, workers: int, threads: int
) -> Estimate:
    """Estimate a scene from measurements in one process.

    Args:
        scene: the scene's plan.
        plan: the plan of the job.
        loaded_mb: resident memory of a process that has loaded the model and predicted one batch, in MB.
        seconds_per_batch: wall time of one batch.
        workers: number of worker processes.
        threads: number of tiles at the same time in each of them.
    """
    tiling = scene.tiling
    height, width = scene.grid.shape
    planes = 1 + len(plan.scores)
    of_tiles = min(threads, len(tiling)) * tile_bytes(
        scene, plan.spec, planes=planes, parallel_batches=plan.compute.parallel_batches
    )
    in_flight = max(of_tiles, threads * region_bytes(scene))
    copied = 0 if scene.stage is None else height * width * len(scene.bands) * scene.itemsize
    work = roi_work(scene.cells, tiling) if scene.cells else _all_of(tiling)
    batches = -(-work.patches // scene.layout.batch)
    return Estimate(
        tiles=len(tiling),
        tiles_looked_at=work.tiles,
        outside=scene.outside / (height * width),
        patches=work.patches,
        overlap_factor=tiling.overlap_factor,
        recompute_factor=work.patches / work.lattice_patches if work.lattice_patches else 1.0,
        work_factor=plan.predictions * work.patches * tiling.lattice.patch**2 / (height * width),
        memory_mb=loaded_mb + GDAL_CACHE_MB + (KEPT + in_flight) / MB,
        disk_mb=(height * width * (1 + 4 / 3) * planes + copied) / MB,
        seconds=batches * seconds_per_batch / workers,
    )


def _all_of(tiling: Tiling) -> RoiWork:
    height, width = (tiling.lattice.cells(size) for size in tiling.shape)
    return RoiWork(len(tiling), tiling.patches, height * width)


def region_bytes(scene: ScenePlan) -> int:
    """Largest number of bytes of a task that copies a region: the pixels read, and copies of the shard written."""
    if scene.stage is None:
        return 0
    shard = scene.stage.shard[0] * scene.stage.shard[1] * scene.itemsize
    return 2 * REGION_BYTES + SHARD_COPIES * shard


def tile_bytes(scene: ScenePlan, spec: ModelSpec, *, planes: int = 1, parallel_batches: int = 1) -> int:
    """Largest number of bytes of a tile in work, beside the memory of the network.

    Rows for a row of patches and for the next one, batches that wait for the network and its outputs, sums where
    patches overlap, labels that wait for a whole row of shards, and a shard while it is compressed. The height of the
    core hardly counts.

    Args:
        scene: the scene's plan.
        spec: the model's contract.
        planes: number of stored planes: the mask, and scores by class.
        parallel_batches: number of batches predicted at the same time.
    """
    layout, channels, scores = scene.layout, len(spec.bands), spec.score_channels
    lattice, width = layout.lattice, min(layout.core[1], scene.grid.width)
    around = lattice.patch - lattice.stride if lattice.exclusive else lattice.patch
    tall = min(lattice.patch + SURPLUS, layout.core[0] + around, scene.grid.height)
    rows = tall * min(width + around, scene.grid.width) * (channels * scene.itemsize + 1)
    patch = lattice.patch**2 * channels * scene.itemsize
    ahead = batches_ahead(layout.batch, patch_bytes=patch, row=-(-width // lattice.stride))
    cells = lattice.cells(layout.core[0]) * lattice.cells(width)
    most = -(-cells // layout.batch) if lattice.exclusive else cells
    batches = min(ahead + 1, most) * layout.batch * patch
    predicted = 1 if lattice.exclusive and planes == 1 else 4 * scores
    outputs = min(BEHIND + 1 + parallel_batches, most) * layout.batch * lattice.patch**2 * predicted
    labels = planes * lattice.stride * width
    waiting = 0 if lattice.stride % layout.shard == 0 else planes * layout.shard * width
    sums = 0
    if not lattice.exclusive:
        shared = lattice.support - lattice.stride
        sums = SUMS.itemsize * scores * (shared * width + shared * lattice.support)
    return rows + batches + outputs + labels + waiting + sums + layout.shard**2


AHEAD_BYTES = 64e6
"""Limit in bytes for prefetched patches; never less than two batches, never more than one row of patches."""


def batches_ahead(size: int, *, patch_bytes: int, row: int) -> int:
    """Number of prefetched batches.

    Args:
        size: number of patches in a batch.
        patch_bytes: number of bytes of a raw patch.
        row: number of patches in a row of the tile.
    """
    return max(2, min(-(-row // size), int(AHEAD_BYTES // (size * patch_bytes))))


SUMS = np.dtype(np.float64)
"""Type of shares and sums: in float32 a constant score comes back with an error of up to 5 ulp, in float64 exactly."""

BEHIND = 1
"""Number of batches of predictions that wait while another is blended."""
