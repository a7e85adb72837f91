"""Forecast of a job: tiles, memory, disk and time, before its first tile. `tilesseg plan` prints it.

A process like a worker's loads the model and predicts two batches, so that memory and time are measured, not guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesseg.cluster import connect as cluster
from tilesseg.errors import JobError, reason_of
from tilesseg.formats.vector.tile_index import write_tile_index
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.memory import Estimate, estimate
from tilesseg.planning.plan_text import FORECAST_SCENES, Forecast
from tilesseg.planning.stored_plan import plan_scene, refuse_scene
from tilesseg.run.prepare_run import Prepared, measure_for, prepare
from tilesseg.run.worker_check import Proof, problem_of, prove
from tilesseg.run.worker_state import Assignment

if TYPE_CHECKING:
    from tilesseg.planning.job import Job
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan


def forecast(job: Job, *, limit: int = FORECAST_SCENES) -> Forecast:
    """Plan a job and estimate its cost; makes the run directory with its plan and `tiles.geojson`.

    Args:
        job: job to plan.
        limit: number of scenes that are planned, the first ones.

    Raises:
        TilessegError: the job cannot work.
    """
    with prepare(job, cluster.describe_machine(job.cluster), measure=measure_for(job, None)) as ready:
        scenes, refused = _plan_scenes(ready, job, limit)
        proof = _measured(job.cluster, ready, scenes[0]) if scenes else None
        estimates = {scene.name: _estimate(scene, ready.plan, job, proof) for scene in scenes if proof}
        for cost in estimates.values():
            cluster.check_memory(job.cluster, needed_mb=cost.memory_mb, device=ready.plan.compute.device)
        folders = {scene.name: ready.run.scene(scene.name).folder for scene in scenes}
        indexes = tuple(
            str(write_tile_index(folders[scene.name] / "tiles.geojson", scene.tiling, scene.grid)) for scene in scenes
        )
    return Forecast(
        directory=str(ready.run.path),
        plan=ready.plan,
        scenes=scenes,
        refused=refused,
        more=max(0, len(ready.to_do) + 1 - limit),
        finished=ready.finished,
        estimates=estimates,
        tile_indexes=indexes,
        workers=cluster.worker_count(job.cluster, ready.plan.compute.device),
        threads=cluster.threads_per_worker(job.cluster),
        tile_limit=job.faults.tile_limit,
    )


def _plan_scenes(ready: Prepared, job: Job, limit: int) -> tuple[tuple[ScenePlan, ...], dict[str, str]]:
    """Plans of the first unfinished scenes, and reasons of those that are refused."""
    scenes, refused = [ready.first] if ready.first else [], dict(ready.refused)
    for scene in ready.to_do[: limit - 1]:
        try:
            scenes.append(plan_scene(scene, run=ready.run, plan=ready.plan, job=job))
        except Exception as error:
            # ^ of any kind, as in a run: one bad scene costs one scene
            refused[scene.name] = refuse_scene(scene.name, reason_of(error), run=ready.run).reason
    return tuple(scenes), refused


def _estimate(scene: ScenePlan, plan: Plan, job: Job, proof: Proof) -> Estimate:
    return estimate(
        scene,
        plan,
        loaded_mb=proof.peak_mb,
        seconds_per_batch=proof.seconds_per_batch,
        workers=cluster.worker_count(job.cluster, plan.compute.device),
        threads=cluster.threads_per_worker(job.cluster),
    )


def _measured(section: Cluster, ready: Prepared, first: ScenePlan) -> Proof:
    """Measurements of one worker of the section's kind; a process here stands for a worker on another machine.

    Raises:
        JobError: the worker cannot load the model, predict, read or write.
    """
    single = section.model_copy(update={"workers": 1, "threads": 1})
    here = single if cluster.is_here(section) else Cluster(workers=1, threads=1, device=section.device)
    work = Assignment.of(ready.run, first=first.name)
    with cluster.connect(here, ready.plan.compute.device) as executor:
        answers = list(cluster.ask_workers(executor, prove, work, True).values())
    able = [answer for answer in answers if problem_of(answer) is None]
    if not able:
        raise JobError(str(problem_of(answers[0])))
    proof: Proof = able[0]
    return proof
