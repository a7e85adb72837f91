"""The forecast: what a job will take, said before its first tile. `tilesseg plan` prints it.

A process like a worker's loads the model and predicts two batches, so that memory and time are measured, not guessed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg import cluster
from tilesseg.errors import JobError
from tilesseg.estimate import Estimate, estimate
from tilesseg.run import prepare, problem_of
from tilesseg.tile_index import write_tile_index
from tilesseg.worker import Proof, TileWork, prove

if TYPE_CHECKING:
    from tilesseg.job import Cluster, Job
    from tilesseg.plan import Plan
    from tilesseg.scenes import ScenePlan


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan with its price."""

    directory: str
    plan: Plan
    estimates: dict[str, Estimate]
    tile_indexes: tuple[str, ...]
    workers: int
    threads: int

    def to_json(self) -> dict[str, Any]:
        scenes = [
            {**asdict(self.estimates[scene.name]), **_choices(scene), "scene": scene.name} for scene in self.plan.scenes
        ]
        return {
            "directory": self.directory,
            "model": {"name": self.plan.spec.name, "sha256": self.plan.model_sha256},
            "device": self.plan.device,
            "engine_threads": self.plan.engine_threads,
            "workers": self.workers,
            "threads": self.threads,
            "scenes": scenes,
            "refused": self.plan.refused,
            "tile_indexes": list(self.tile_indexes),
        }

    @property
    def text(self) -> str:
        """The forecast for people."""
        plan = self.plan
        lines = [
            f"model {plan.spec.name} ({plan.model_sha256[:12]}) on {plan.device}; worker processes: {self.workers}; "
            f"in each, tiles at a time: {self.threads}, engine threads: {plan.engine_threads}"
        ]
        for scene in plan.scenes:
            lines += _describe(scene, self.estimates[scene.name])
        lines += [f"refused {name}: {why}" for name, why in plan.refused.items()]
        lines += [f"tiles: {path}" for path in self.tile_indexes]
        return "\n".join(lines)


def forecast(job: Job) -> Forecast:
    """Plan a job and estimate what it takes; makes the run directory with its plan and `tiles.geojson`.

    Raises:
        TilessegError: the job cannot work.
    """
    run, plan = prepare(job, cluster.describe_machine(job.cluster))
    proof = _measured(job.cluster, plan, TileWork.of(run))
    workers, threads = cluster.worker_count(job.cluster, plan.device), cluster.threads_per_worker(job.cluster)
    estimates = {
        scene.name: estimate(
            scene,
            plan,
            loaded_mb=proof.peak_mb,
            seconds_per_batch=proof.seconds_per_batch,
            workers=workers,
            threads=threads,
        )
        for scene in plan.scenes
    }
    indexes = tuple(
        str(write_tile_index(run.scene(scene.name).folder / "tiles.geojson", scene.tiling, scene.grid))
        for scene in plan.scenes
    )
    return Forecast(str(Path(run.path)), plan, estimates, indexes, workers, threads)


def _measured(asked: Cluster, plan: Plan, work: TileWork) -> Proof:
    """What one worker of the kind asked for measures.

    Raises:
        JobError: it cannot load the model, predict, read or write.
    """
    alone = asked.model_copy(update={"workers": 1, "threads": 1} if asked.kind == "local" else {})
    with cluster.connect(alone, plan.device) as executor:
        answers = cluster.ask_workers(executor, prove, work).values()
    able = [answer for answer in answers if problem_of(answer) is None]
    if not able:
        raise JobError(str(problem_of(next(iter(answers)))))
    proof: Proof = able[0]
    return proof


def _choices(scene: ScenePlan) -> dict[str, Any]:
    layout, lattice = scene.layout, scene.layout.lattice
    return {
        "size": [scene.grid.height, scene.grid.width],
        "bands": [band + 1 for band in scene.bands],
        "range": scene.range,
        "blend": layout.blend,
        "patch": lattice.patch,
        "stride": lattice.stride,
        "core": list(layout.core),
        "shard": layout.shard,
        "batch": layout.batch,
        "decode_factor": scene.decode_factor,
        "staged": scene.stage is not None,
        "notes": list(scene.notes),
    }


def _describe(scene: ScenePlan, cost: Estimate) -> list[str]:
    layout, lattice, grid = scene.layout, scene.layout.lattice, scene.grid
    height, width = layout.core
    span = "no valid pixel sampled" if scene.range is None else f"values {scene.range[0]:.4g} to {scene.range[1]:.4g}"
    return [
        f"{scene.name}: {grid.height} × {grid.width} px, bands {', '.join(str(b + 1) for b in scene.bands)}, {span}",
        f"  tiles: {cost.tiles} (tasks), cores of {height} × {width}, stored in shards of {layout.shard}",
        *_skipped(cost),
        f"  patches: {cost.patches} of {lattice.patch}, stride {lattice.stride}, blend {layout.blend}, "
        f"batch {layout.batch}",
        f"  work factor {cost.work_factor:.3f} = overlap {cost.overlap_factor:.3f} × recompute "
        f"{cost.recompute_factor:.3f} and the overhang at the edges",
        f"  peak memory {cost.memory_mb:,.0f} MB a worker process; disk up to {cost.disk_mb:,.0f} MB; "
        f"predicting takes about {_duration(cost.seconds)}",
        f"  {scene.stage_note or f'read as it is: {scene.decode_factor:.2f} pixels are decoded for each one needed'}",
        *(f"  note: {note}" for note in scene.notes),
    ]


def _skipped(cost: Estimate) -> list[str]:
    """What is not looked at, where there is any."""
    if not cost.outside:
        return []
    unread = cost.tiles - cost.tiles_looked_at
    return [f"  not looked at: {cost.outside:.1%} of the pixels; tiles that read nothing: {unread} of {cost.tiles}"]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
