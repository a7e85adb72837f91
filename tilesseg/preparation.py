"""What is made before a run begins: its directory, its plan, its list of scenes, and the lock that says who works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from tilesseg import cluster
from tilesseg.completion import finished_before
from tilesseg.errors import JobError, StoreError, TilessegError
from tilesseg.executors import DaskExecutor, Executor
from tilesseg.finding import Scene, choose_scenes, find_scenes, read_scene_list, write_scene_list
from tilesseg.job import anchored
from tilesseg.locks import held, holder
from tilesseg.plan import PLAN_FILE, Machine, Plan, anywhere, parse_plan, plan_job
from tilesseg.planning import decide, make, refuse
from tilesseg.products import check_job
from tilesseg.store import RunDirectory

if TYPE_CHECKING:
    from tilesseg.job import Job
    from tilesseg.scenes import ScenePlan
    from tilesseg.shards import Shard

SCENE_LIST = "scenes.jsonl"


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
    """Scenes that were found finished."""
    refused: dict[str, str]
    """Scenes before the first that cannot be segmented, and why."""


def choose_machine(job: Job, executor: Executor | None) -> Machine:
    """The machine that will compute, asked on a worker where the workers are elsewhere."""
    if isinstance(executor, DaskExecutor) and not cluster.is_here(job.cluster):
        return cluster.ask_machine(executor, job.cluster)
    machine = cluster.describe_machine(job.cluster)
    return machine if executor is None else Machine(machine.device, machine.engine_threads, executor.slots)


@contextmanager
def prepare(
    job: Job, machine: Machine, *, only: Sequence[str] = (), limit: int | None = None, shard: Shard | None = None
) -> Iterator[Prepared]:
    """Plan the job, or find its plan, and its first scene; then make and hold its directory.

    The other scenes are planned when their turn comes.

    Raises:
        TilessegError: the job cannot work, or none of its scenes; the directory belongs to another job, or somebody
            works on it.
    """
    found = tuple(replace(scene, paths=tuple(map(anywhere, scene.paths))) for scene in find_scenes(job.scenes))
    scenes = choose_scenes(found, only=only, limit=limit)
    directory = RunDirectory(Path(job.output.dir))
    plan = plan_job(job, machine, stored=_stored_plan(directory, keep=shard is not None))
    check_job(plan, scenes, job.output)
    to_do = _unfinished(scenes, directory, plan, job)
    begin = _begin(shard.turned(to_do) if shard else to_do, directory, plan, job, alone=len(scenes) == 1)
    run = RunDirectory.create(directory.path)
    with ExitStack() as stack:
        _hold(run, shard, stack)
        plan = _write(run, job, plan, found, machine, shard=shard)
        for name, reason in begin.refused.items():
            refuse(name, reason, run=run)
        first = make(begin.scene, begin.planned, run=run, plan=plan) if begin.scene and begin.planned else None
        yield Prepared(run, plan, scenes, first, begin.others, len(scenes) - len(to_do), begin.refused)


def _unfinished(scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job) -> list[Scene]:
    return [s for s in scenes if not finished_before(s, store=run.scene(s.name), plan=plan, output=job.output)]


class _Begin(NamedTuple):
    """Where a run begins."""

    scene: Scene | None
    planned: ScenePlan | None
    others: tuple[Scene, ...]
    refused: dict[str, str]


def _begin(scenes: Sequence[Scene], run: RunDirectory, plan: Plan, job: Job, *, alone: bool) -> _Begin:
    """Decide about scenes until one can be segmented: with it the workers prove themselves. Nothing is written.

    Raises:
        TilessegError: the job has one scene, and it is refused.
        JobError: all are refused.
    """
    refused: dict[str, str] = {}
    for number, scene in enumerate(scenes):
        try:
            return _Begin(scene, decide(scene, run=run, plan=plan, job=job), tuple(scenes[number + 1 :]), refused)
        except TilessegError as error:
            if alone:
                raise
            refused[scene.name] = str(error)
    if refused and not any(run.scene(name).ledger.any_done() for name in _names(run)):
        raise JobError(f"all {len(refused)} scenes are refused; the first: {next(iter(refused.values()))}")
    return _Begin(None, None, (), refused)


def _names(run: RunDirectory) -> list[str]:
    return scene_names(run) if run.path.exists() else []


def _write(
    run: RunDirectory, job: Job, plan: Plan, scenes: tuple[Scene, ...], machine: Machine, *, shard: Shard | None
) -> Plan:
    """Keep job, plan and list of scenes. Of several shards one writes the plan, and the others take it."""
    run.write_text("job.yaml", yaml.safe_dump(anchored(job, Path.cwd()).model_dump(mode="json"), sort_keys=False))
    write_scene_list(run.path / SCENE_LIST, scenes)
    if shard is None:
        run.write_json(PLAN_FILE, plan.to_json())
    elif not run.create_json(PLAN_FILE, plan.to_json()):
        stored = parse_plan(run.read_json(PLAN_FILE), where=run.path)
        return plan_job(job, machine, stored=stored)
    return plan


def _hold(run: RunDirectory, shard: Shard | None, stack: ExitStack) -> None:
    """Take the run for this process, or a share of it.

    Raises:
        StoreError: another process has it.
    """
    whole = run.path / "locks" / "run"
    wanted = [(whole, shard is not None)]
    if shard:
        wanted.append((run.path / "locks" / f"shard-{shard.number}-of-{shard.of}", False))
    for path, shared in wanted:
        if not stack.enter_context(held(path, shared=shared)):
            who = holder(path) or "shards of it"
            what = f"shard {shard} of {run.path}" if shard else str(run.path)
            raise StoreError(f"{what} is being worked on by {who}; wait for it, or stop it: tilesseg cancel {run.path}")


def _stored_plan(directory: RunDirectory, *, keep: bool) -> Plan | None:
    """The plan to go on with, or None where no tile has been done by one."""
    data = directory.read_json(PLAN_FILE) if directory.path.exists() else None
    if data is None:
        return None
    stored = parse_plan(data, where=directory.path)
    return stored if keep or directory.any_done() else None


def open_run_directory(directory: Path) -> tuple[RunDirectory, Plan]:
    """A run that exists.

    Raises:
        StoreError: this is no run directory.
    """
    run = RunDirectory(directory)
    return run, parse_plan(run.read_json(PLAN_FILE), where=directory)


def scene_names(run: RunDirectory) -> list[str]:
    """Names of all scenes that the job names, in its order."""
    path = run.path / SCENE_LIST
    return [scene.name for scene in read_scene_list(path)] if path.exists() else []
