"""What is made before a run begins: its directory, its plan, its list of scenes, and the lock that says who works."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import DaskExecutor, Executor
from tilesseg.errors import JobError, StoreError, reason_of
from tilesseg.planning import patch_benchmark as probe
from tilesseg.planning.job import anchored
from tilesseg.planning.machine import Machine
from tilesseg.planning.patch_speed import PatchSpeed
from tilesseg.planning.plan import PLAN_FILE, Plan, anywhere, plan_job
from tilesseg.planning.plan_scene import decide, make, plan_one, refuse
from tilesseg.planning.product_checks import check_job
from tilesseg.planning.scene_list import (
    SCENE_LIST,
    Scene,
    choose_scenes,
    find_scenes,
    write_scene_list,
)
from tilesseg.planning.stored_plan import _stored_plan, scene_names
from tilesseg.planning.tile_layout import LARGE, flexible
from tilesseg.retry import retried
from tilesseg.run.finish_scene import finished_before
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.store.locks import alone, held, holder
from tilesseg.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from tilesseg.planning.job import Job
    from tilesseg.planning.scene_plan import ScenePlan


Measure = Callable[[Plan], tuple[PatchSpeed, ...]]
"""Finds out how fast a plan's network is by patch size, on the machine that computes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that may begin."""

    run: RunDirectory
    plan: Plan
    scenes: tuple[Scene, ...]
    """Those that were chosen, in the order in which they are done."""
    first: ScenePlan | None
    """The first scene that is to be done, all decided; None where none is to be done."""
    to_do: tuple[Scene, ...]
    """The others that are to be done."""
    finished: int
    """Number of scenes that an earlier run has finished."""
    finished_pixels: int
    """Pixels of the finished scenes together."""
    refused: dict[str, str]
    """Scenes before the first that cannot be segmented, and why."""


def choose_machine(job: Job, executor: Executor | None) -> Machine:
    """The machine that will compute, asked on a worker where the workers are elsewhere."""
    if isinstance(executor, DaskExecutor) and not cluster.is_here(job.cluster):
        return cluster.ask_machine(executor, job.cluster)
    machine = cluster.describe_machine(job.cluster)
    if executor is None:
        return machine
    return replace(machine, slots=executor.slots, parallel_batches=min(machine.parallel_batches, executor.slots))


def measure_for(job: Job, executor: Executor | None, *, say: Callable[[str], None] = lambda text: None) -> Measure:
    """How to measure a job's network: here, or on a worker where the workers are elsewhere.

    Args:
        job: what is asked.
        executor: who works; None where that is decided later, and here.
        say: told, in this thread, that it takes some seconds.
    """

    def measure(plan: Plan) -> tuple[PatchSpeed, ...]:
        say("the patch is chosen by speed, which is measured for some seconds, once on each machine")
        memory, tiles = cluster.worker_memory(job.cluster, plan.device), cluster.threads_per_worker(job.cluster)
        there = partial(probe.measure, plan, memory=memory, tiles=tiles)
        if isinstance(executor, DaskExecutor) and not cluster.is_here(job.cluster):
            return cluster.ask_one(executor, there)
        return there()

    return measure


@contextmanager
def prepare(
    job: Job,
    machine: Machine,
    *,
    measure: Measure | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    share: ArrayShare | None = None,
) -> Iterator[Prepared]:
    """Plan the job, or find its plan, and its first scene; then make and hold its directory.

    The other scenes are planned when their turn comes.

    Args:
        job: what is asked.
        machine: that will compute.
        measure: asked once, where the patch is free and the first scene large; None: patches have their usual size.
        only: names or patterns of the scenes to do; none means all.
        limit: do so many scenes at most, the most important first.
        share: tiles to compute; None means all.

    Raises:
        TilessegError: the job cannot work, or none of its scenes; the directory belongs to another job, or somebody
            works on it.
    """
    found = tuple(replace(scene, paths=tuple(map(anywhere, scene.paths))) for scene in find_scenes(job.scenes))
    scenes = choose_scenes(found, only=only, limit=limit)
    directory = RunDirectory(Path(job.output.dir))

    def new_plan() -> Plan:
        plan = plan_job(job, machine)
        check_job(plan, found, job.output)
        return _measured(plan, scenes, directory, job, measure)

    with ExitStack() as stack:
        if share:
            plan = _join(directory, share, job, machine, stack, new_plan)
        else:
            stored = _stored_plan(directory)
            plan = plan_job(job, machine, stored=stored) if stored else new_plan()
        check_job(plan, found, job.output)  # those that are not chosen now too: their products would be one file
        to_do, pixels = _unfinished(scenes, directory, plan, job)
        begin = _begin(share.turned(to_do) if share else to_do, directory, plan, job, only_one=len(scenes) == 1)
        run = RunDirectory.create(directory.path)
        if not share:
            _hold(run, None, stack)
        run.write_text("job.yaml", _job_text(job))
        write_scene_list(run.path / SCENE_LIST, found)
        if not share:
            run.write_json(PLAN_FILE, plan.to_json())
        for name, reason in begin.refused.items():
            refuse(name, reason, run=run)
        first = _first(begin, run=run, plan=plan, job=job, shared=share is not None)
        yield Prepared(run, plan, scenes, first, begin.others, len(scenes) - len(to_do), pixels, begin.refused)


def _measured(plan: Plan, scenes: Sequence[Scene], run: RunDirectory, job: Job, measure: Measure | None) -> Plan:
    """A new plan with the speeds of its network, where the patch is free and the first scene is large.

    Raises:
        TilessegError: none of the scenes can be segmented, or the network does not run.
    """
    if measure is None or plan.compile or not flexible(plan.spec, job.tiling):
        return plan  # compiling every size would take minutes
    begin = _begin(_unfinished(scenes, run, plan, job)[0], run, plan, job, only_one=len(scenes) == 1)
    large = begin.planned is not None and begin.planned.grid.window.area >= LARGE
    return replace(plan, speeds=measure(plan)) if large else plan


def _job_text(job: Job) -> str:
    """The job with absolute paths, as YAML."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(anchored(job, Path.cwd()).model_dump(mode="json"), Dumper=dumper, sort_keys=False)
    return text


def _unfinished(scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job) -> tuple[list[Scene], int]:
    """Scenes that are still to be done, and the pixels of the finished ones together."""
    to_do, pixels = [], 0
    for scene in scenes:
        planned = finished_before(scene, store=run.scene(scene.name), plan=plan, output=job.output)
        if planned is None:
            to_do.append(scene)
        else:
            pixels += planned.grid.window.area
    return to_do, pixels


class _Begin(NamedTuple):
    """Where a run begins."""

    scene: Scene | None
    planned: ScenePlan | None
    others: tuple[Scene, ...]
    refused: dict[str, str]


def _begin(scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job, *, only_one: bool) -> _Begin:
    """Decide about scenes until one can be segmented: with it the workers prove themselves. Nothing is written.

    Raises:
        TilessegError: the job has one scene, and it is refused.
        JobError: all are refused.
    """
    refused: dict[str, str] = {}
    for number, scene in enumerate(scenes):
        try:
            return _Begin(scene, _decided(scene, run, plan, job), tuple(scenes[number + 1 :]), refused)
        except Exception as error:
            # ^ of any kind, as on a worker: one bad scene costs one scene
            if only_one:
                raise
            refused[scene.name] = reason_of(error)
    if refused and not any(run.scene(name).ledger.any_done() for name in _names(run)):
        raise JobError(f"all {len(refused)} scenes are refused; the first: {next(iter(refused.values()))}")
    return _Begin(None, None, (), refused)


def _decided(scene: Scene, run: RunDirectory, plan: Plan, job: Job) -> ScenePlan:
    return retried(lambda attempt: decide(scene, run=run, plan=plan, job=job))


def _first(begin: _Begin, *, run: RunDirectory, plan: Plan, job: Job, shared: bool) -> ScenePlan | None:
    """Keep the plan of the first scene; of several processes one does, by the plan that they share."""
    if begin.scene is None or begin.planned is None:
        return None
    if not shared:
        return make(begin.scene, begin.planned, run=run, plan=plan)
    with alone(run.path, begin.scene.name, "plan", shared=shared):
        return plan_one(begin.scene, run=run, plan=plan, job=job)


def _names(run: RunDirectory) -> list[str]:
    return scene_names(run) if run.path.exists() else []


def _join(
    run: RunDirectory, share: ArrayShare, job: Job, machine: Machine, stack: ExitStack, new_plan: Callable[[], Plan]
) -> Plan:
    """Take a share of a run, by the plan of those that work on it; where nobody does, this one makes it.

    Raises:
        TilessegError: the job cannot work, or is not the one that the others work on.
    """
    RunDirectory.create(run.path)
    with held(run.path / "locks" / "plan", wait=True):
        with held(run.path / "locks" / "run") as nobody:
            pass
        _hold(run, share, stack)
        if nobody:
            stored = _stored_plan(run)
            plan = plan_job(job, machine, stored=stored) if stored else new_plan()
            run.write_json(PLAN_FILE, plan.to_json())
            return plan
    return plan_job(job, machine, stored=_stored_plan(run, keep=True))


def _hold(run: RunDirectory, share: ArrayShare | None, stack: ExitStack) -> None:
    """Take the run for this process, or a share of it.

    Raises:
        StoreError: another process has it.
    """
    whole = run.path / "locks" / "run"
    wanted = [(whole, share is not None)]
    if share:
        wanted.append((run.path / "locks" / f"shard-{share.number}-of-{share.of}", False))
    for path, shared in wanted:
        if not stack.enter_context(held(path, shared=shared)):
            who = holder(path) or "parts of it"
            what = f"part {share} of {run.path}" if share else str(run.path)
            raise StoreError(f"{what} is being worked on by {who}; wait for it, or stop it: tilesseg cancel {run.path}")
