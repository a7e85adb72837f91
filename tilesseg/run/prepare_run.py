"""Preparation of a run: its directory, its plan, its list of scenes, and the lock that names who works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import yaml

from tilesseg.atomic_write import fenced
from tilesseg.cluster import connect as cluster
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import Executor
from tilesseg.errors import JobError, StoreError, reason_of
from tilesseg.models.trial.model_trial import Trial
from tilesseg.planning import patch_speed
from tilesseg.planning.job import anchored
from tilesseg.planning.machine import Machine, PatchSpeed
from tilesseg.planning.model_contract import try_reference
from tilesseg.planning.plan import PLAN_FILE, Plan, anywhere, plan_job, with_trial
from tilesseg.planning.product_checks import check_job
from tilesseg.planning.scene_list import (
    SCENE_LIST,
    Scene,
    choose_scenes,
    find_scenes,
    write_scene_list,
)
from tilesseg.planning.scene_plan import SceneDraft, ScenePlan, complete_draft, cut_anew
from tilesseg.planning.stored_plan import (
    draft_or_stored,
    keep_scene_plan,
    refuse_scene,
    scene_names,
    stored_job_plan,
    usable_scene_plan,
)
from tilesseg.planning.tile_layout import LARGE, flexible
from tilesseg.retry import retried
from tilesseg.run.finish_scene import finished_before
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.run.work_queue import forget_damaged
from tilesseg.store.generations import Generation, next_generation, share_lock
from tilesseg.store.locks import alone, held, holder
from tilesseg.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from tilesseg.planning.job import Job


Measure = Callable[[Plan], tuple[PatchSpeed, ...]]
"""Measures the speed of a plan's network by patch size, on the machine that computes."""
TryModel = Callable[[Plan], Trial | None]
"""Tries a plan's network on a machine that computes."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that may begin."""

    run: RunDirectory
    plan: Plan
    scenes: tuple[Scene, ...]
    """The chosen scenes, in the order in which they are done."""
    first: ScenePlan | None
    """Plan of the first scene that is still to do; None where no scene is."""
    to_do: tuple[Scene, ...]
    """The other scenes that are still to do."""
    finished: int
    """Number of scenes that an earlier run has finished."""
    finished_pixels: int
    """Number of pixels of the finished scenes together."""
    refused: dict[str, str]
    """Reasons of scenes before the first that cannot be segmented, by name."""
    generation: Generation
    """Number of this execution."""


def choose_machine(job: Job, executor: Executor | None) -> Machine:
    """The machine that will compute, described by a worker where the workers are elsewhere."""
    if isinstance(executor, DaskExecutor) and not cluster.is_here(job.cluster):
        return cluster.ask_machine(executor, job.cluster)
    machine = cluster.describe_machine(job.cluster)
    if executor is None:
        return machine
    return replace(machine, slots=executor.slots, parallel_batches=min(machine.parallel_batches, executor.slots))


def measure_for(job: Job, executor: Executor | None, *, say: Callable[[str], None] = lambda text: None) -> Measure:
    """A function that measures a job's network: on this machine, or on a worker where the workers are elsewhere.

    Args:
        job: the job.
        executor: executor of the run; None where it is started later, on this machine.
        say: called, in this thread, with the note that measuring takes some seconds.
    """

    def measure(plan: Plan) -> tuple[PatchSpeed, ...]:
        say("the patch is chosen by speed, which is measured for some seconds, once on each machine")
        memory, tiles = cluster.worker_memory(job.cluster, plan.compute.device), cluster.threads_per_worker(job.cluster)
        there = partial(patch_speed.measure, plan, memory=memory, tiles=tiles)
        if isinstance(executor, DaskExecutor) and not cluster.is_here(job.cluster):
            return cluster.ask_one(executor, there)
        return there()

    return measure


def trial_for(job: Job, executor: Executor | None) -> TryModel | None:
    """A function that tries a model on a worker; None where the workers are here."""
    if not isinstance(executor, DaskExecutor) or cluster.is_here(job.cluster):
        return None
    return lambda plan: cluster.ask_one(executor, partial(try_reference, plan.model))


@contextmanager
def prepare(
    job: Job,
    machine: Machine,
    *,
    measure: Measure | None = None,
    try_model: TryModel | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    share: ArrayShare | None = None,
    retry_damaged: bool = False,
) -> Iterator[Prepared]:
    """Plan the job and its first scene, or find their stored plans; then make and hold the run directory.

    The other scenes are planned when their turn comes.

    Args:
        job: the job.
        machine: the machine that will compute.
        try_model: called where no runtime here reads the network, before its first scene is planned.
        measure: called once, where the patch is free and the first scene large; None: patches have their usual size.
        only: names or patterns of the scenes to do; none means all.
        limit: largest number of scenes to do, the most important first.
        share: tiles to compute; None means all.
        retry_damaged: whether tiles of these scenes that are done with damage, and belong to the share, are done again.

    Raises:
        TilessegError: the job cannot work, or none of its scenes; the directory belongs to another job, or another
            process works on it.
    """
    listed = tuple(replace(scene, paths=tuple(map(anywhere, scene.paths))) for scene in find_scenes(job.scenes))
    scenes = choose_scenes(listed, only=only, limit=limit)
    run = RunDirectory(Path(job.output.dir))
    run.refuse_occupied()

    def begin(*, keep: bool = False) -> _Beginning:
        stored = stored_job_plan(run, keep=keep)
        plan = plan_job(job, machine, stored=stored)
        if try_model and plan.trial and not plan.trial.tried and not stored:
            plan = with_trial(plan, try_model(plan), job.tiling.blend)
        check_job(plan, listed, job.output)  # scenes that are not chosen now too: two products would be one file
        if retry_damaged:
            for scene in scenes:
                forget_damaged(run.scene(scene.name), share)
        to_do, finished_pixels = _unfinished(scenes, run, plan, job)
        begun = _begin(
            share.turned(to_do) if share else to_do,
            run,
            plan,
            job,
            measure=None if stored else measure,
            only_one=len(scenes) == 1,
        )
        return begun._replace(finished=len(scenes) - len(to_do), finished_pixels=finished_pixels)

    with ExitStack() as stack:
        if share:
            beginning, generation = _join(run, share, begin, stack)
        else:
            beginning = begin()
            generation = hold_run(RunDirectory.create(run.path), None, stack)
        plan, refused = beginning.plan, beginning.refused
        run.write_text("job.yaml", _job_text(job))
        write_scene_list(run.path / SCENE_LIST, listed)
        if not share:
            run.write_json(PLAN_FILE, plan.to_json())
        for name, reason in refused.items():
            refuse_scene(name, reason, run=run)
        first = _keep_first(beginning, run=run, job=job, shared=share is not None)
        finished = beginning.finished, beginning.finished_pixels
        run = RunDirectory(run.path, generation=generation.number)
        yield Prepared(run, plan, scenes, first, beginning.others, *finished, refused, generation)


def _job_text(job: Job) -> str:
    """The job with absolute paths, as YAML."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(anchored(job, Path.cwd()).model_dump(mode="json"), Dumper=dumper, sort_keys=False)
    return text


class _Beginning(NamedTuple):
    """Plan of a job and its first scene, with which workers show that they can work."""

    plan: Plan
    scene: Scene | None
    planned: ScenePlan | None
    others: tuple[Scene, ...]
    refused: dict[str, str]
    finished: int = 0
    finished_pixels: int = 0


def _unfinished(scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job) -> tuple[list[Scene], int]:
    """Scenes that are still to do, and the number of pixels of the finished ones together."""
    to_do, pixels = [], 0
    for scene in scenes:
        planned = finished_before(scene, store=run.scene(scene.name), plan=plan, output=job.output)
        if planned is None:
            to_do.append(scene)
        else:
            pixels += planned.grid.window.area
    return to_do, pixels


def _begin(
    scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job, *, measure: Measure | None, only_one: bool
) -> _Beginning:
    """Plan scenes until one is not refused, and measure the network where its patch is free. Nothing is written.

    Raises:
        TilessegError: the job has one scene, and it is refused; or the network does not run.
        JobError: all are refused.
    """
    refused: dict[str, str] = {}

    def tried(scene: Scene, step: Callable[[], T]) -> T | None:
        """Result of a step of a scene's plan; None where the scene is refused."""
        try:
            return retried(lambda attempt: step())
        except Exception as error:
            # ^ of any kind, as on a worker: one bad scene costs one scene
            if only_one:
                raise
            refused[scene.name] = reason_of(error)
            return None

    for number, scene in enumerate(scenes):
        draft = tried(scene, partial(draft_or_stored, scene, run=run, plan=plan, job=job))
        if draft is not None:
            plan, draft = _with_speeds(plan, draft, job, measure)
            measure = None  # the first scene that fits the model is measured for, and no other
            planned = tried(scene, partial(_completed, draft, plan))
            if planned is not None:
                return _Beginning(plan, scene, planned, tuple(scenes[number + 1 :]), refused)
    if refused and not any(run.scene(name).ledger.any_done() for name in _names(run)):
        first = next(iter(refused.values()))
        raise JobError(f"all {len(refused)} scenes are refused, the first for this reason: {first}; correct the scenes")
    return _Beginning(plan, None, None, (), refused)


def _with_speeds(
    plan: Plan, draft: SceneDraft | ScenePlan, job: Job, measure: Measure | None
) -> tuple[Plan, SceneDraft | ScenePlan]:
    """A new plan with the speeds of its network, where the patch is free and the first scene is large.

    Raises:
        ModelError: the network cannot be loaded, or does not run.
    """
    if measure is None or plan.compute.compile or not flexible(plan.spec, job.tiling):
        return plan, draft  # compiling every size would take minutes
    planned = draft if isinstance(draft, ScenePlan) else draft.planned
    if planned.grid.window.area < LARGE:
        return plan, draft
    plan = replace(plan, compute=replace(plan.compute, speeds=measure(plan)))
    return plan, draft if isinstance(draft, ScenePlan) else cut_anew(draft, job=job, plan=plan)


def _completed(draft: SceneDraft | ScenePlan, plan: Plan) -> ScenePlan:
    return draft if isinstance(draft, ScenePlan) else complete_draft(draft, plan=plan)


def _keep_first(beginning: _Beginning, *, run: RunDirectory, job: Job, shared: bool) -> ScenePlan | None:
    """Store the plan of the first scene; of several processes one does, by the plan that they share."""
    plan, scene, planned = beginning.plan, beginning.scene, beginning.planned
    if scene is None or planned is None:
        return None
    with alone(run.path, scene.name, "plan", shared=shared):
        stored = usable_scene_plan(scene, store=run.scene(scene.name), plan=plan, job=job) if shared else None
        return keep_scene_plan(scene, stored or planned, run=run, plan=plan)


def _names(run: RunDirectory) -> list[str]:
    return scene_names(run) if run.path.exists() else []


def _join(
    run: RunDirectory, share: ArrayShare, begin: Callable[..., _Beginning], stack: ExitStack
) -> tuple[_Beginning, Generation]:
    """Take a share of a run, by the plan of the processes that work on it; without any, this process makes the plan.

    Raises:
        TilessegError: the job cannot work, or is not the job that the others work on.
    """
    RunDirectory.create(run.path)
    with held(run.path / "locks" / "plan", wait=True):
        with held(run.path / "locks" / "run") as nobody:
            pass
        generation = hold_run(run, share, stack)
        if nobody:
            beginning = begin()
            run.write_json(PLAN_FILE, beginning.plan.to_json())
            return beginning, generation
    return begin(keep=True), generation


def hold_run(run: RunDirectory, share: ArrayShare | None, stack: ExitStack) -> Generation:
    """Take the lock of the run, or of a share of it, for this process, and the number of this execution.

    From then on nothing is published by an earlier execution, and by this thread only while this one is current.

    Raises:
        StoreError: another process has it.
    """
    whole = run.path / "locks" / "run"
    wanted = [(whole, share is not None)]
    if share:
        wanted.append((share_lock(run.path, str(share)), False))
    for path, shared in wanted:
        if not stack.enter_context(held(path, shared=shared)):
            who = holder(path) or "parts of it"
            what = f"part {share} of {run.path}" if share else str(run.path)
            raise StoreError(f"{what} is being worked on by {who}; wait for it, or stop it: tilesseg cancel {run.path}")
    generation = next_generation(run.path, share=str(share) if share else None)
    stack.enter_context(fenced(generation.check))
    return generation
