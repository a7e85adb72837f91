"""Text and JSON of a plan with its cost, as `tilesseg plan` prints them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilesseg.planning.memory import Estimate

if TYPE_CHECKING:
    from tilesseg.planning.fault_options import TileLimit
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan


FORECAST_SCENES = 20
"""Number of scenes that a forecast plans; the others are planned when their turn comes."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan with its cost."""

    directory: str
    plan: Plan
    scenes: tuple[ScenePlan, ...]
    """Scenes that were planned for the forecast."""
    refused: dict[str, str]
    """Reasons of scenes that cannot be segmented, by name."""
    more: int
    """Number of scenes that are planned only when their turn comes."""
    finished: int
    """Number of scenes that an earlier run has finished."""
    estimates: dict[str, Estimate]
    tile_indexes: tuple[str, ...]
    workers: int
    threads: int
    tile_limit: TileLimit

    def to_json(self) -> dict[str, Any]:
        compute = self.plan.compute
        scenes = [
            {**asdict(self.estimates[scene.name]), **_choices(scene), "scene": scene.name} for scene in self.scenes
        ]
        return {
            "directory": self.directory,
            "model": {"name": self.plan.spec.name, "sha256": self.plan.model_sha256},
            "models": len(self.plan.specs),
            "turns": self.plan.turns,
            "device": compute.device,
            "engine_threads": compute.engine_threads,
            "lanes": compute.parallel_batches,
            "engine": compute.choice.runtime,
            "precision": compute.choice.precision,
            "compile": compute.compile,
            "why": compute.choice.why,
            "tile_timeout": self.tile_limit.seconds,
            "workers": self.workers,
            "threads": self.threads,
            "scenes": scenes,
            "refused": self.refused,
            "more": self.more,
            "finished": self.finished,
            "tile_indexes": list(self.tile_indexes),
        }

    @property
    def text(self) -> str:
        """The forecast for people."""
        plan, compute = self.plan, self.plan.compute
        hashes = ", ".join(sha256[:12] for sha256 in plan.sha256s)
        lines = [
            f"model {plan.spec.name} ({hashes}) on {compute.device}; worker processes: {self.workers}; "
            f"in each, tiles at a time: {self.threads}, engine threads: {compute.engine_threads}"
            + (f" for batches at a time: {compute.parallel_batches}" if compute.parallel_batches > 1 else ""),
            f"engine {self.plan.engine}",
            str(self.tile_limit),
        ]
        for scene in self.scenes:
            lines += _describe(scene, self.estimates[scene.name], plan.averaged)
        lines += [f"refused {name}: {why}" for name, why in self.refused.items()]
        if self.finished:
            lines.append(f"finished before: {self.finished} scenes")
        if self.more:
            lines.append(f"and {self.more} more scenes, planned when their turn comes; --limit plans more of them")
        lines += [f"tiles: {path}" for path in self.tile_indexes]
        return "\n".join(lines)


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


def _describe(scene: ScenePlan, cost: Estimate, averaged: str) -> list[str]:
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
        f"{cost.recompute_factor:.3f}{averaged and f' × {averaged}'} and the overhang at the edges",
        f"  peak memory {cost.memory_mb:,.0f} MB a worker process; disk up to {cost.disk_mb:,.0f} MB; "
        f"predicting takes about {_duration(cost.seconds)}",
        f"  {scene.stage_note or f'read directly from the image (read amplification {scene.decode_factor:.2f}×)'}",
        *(f"  note: {note}" for note in scene.notes),
    ]


def _skipped(cost: Estimate) -> list[str]:
    """Line about the pixels outside the region of interest, where there are any."""
    if not cost.outside:
        return []
    unread = cost.tiles - cost.tiles_looked_at
    outside = f"outside the region of interest: {cost.outside:.1%} of the pixels"
    return [f"  {outside}; tiles that read nothing: {unread} of {cost.tiles}"]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
