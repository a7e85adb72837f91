"""Stored plans: kept in the run directory, found there by a run that goes on. Every refusal of a scene is made here.

A job of 100,000 scenes begins with its first one: each is planned by a worker, shortly before its tiles. The plan of a
scene is kept in the scene's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import StoreError, TilessegError
from tilesseg.events import ScenePlanned, SceneRefused
from tilesseg.formats.source import file_state
from tilesseg.models.bundle import find_bundle
from tilesseg.models.trial.model_trial import Trial
from tilesseg.paths import unsigned
from tilesseg.planning.model_contract import check_crop
from tilesseg.planning.plan import PLAN_FILE, Plan, differences, parse_plan
from tilesseg.planning.product_checks import check_products
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.planning.scene_plan import (
    SceneDraft,
    ScenePlan,
    SceneRun,
    complete_draft,
    draft_scene,
    input_of,
    open_scene,
    parse_scene_plan,
    scene_identity,
    scene_to_json,
    with_stage,
)
from tilesseg.retry import retried
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import REFUSED_FILE

if TYPE_CHECKING:
    from tilesseg.planning.job import Job
    from tilesseg.planning.scene_list import Scene
    from tilesseg.store.scene_store import Store


def stored_job_plan(directory: RunDirectory, *, keep: bool = False) -> Plan | None:
    """The plan that a run goes on with; None where there is none, or no tile has been done by it.

    Args:
        directory: the run directory.
        keep: whether a plan counts even where no tile has been done by it: others work by it.
    """
    data = directory.read_json(PLAN_FILE) if directory.path.exists() else None
    if data is None:
        return None
    stored = parse_plan(data, where=directory.path)
    return stored if keep or directory.any_done() else None


def open_run_directory(directory: Path) -> tuple[RunDirectory, Plan]:
    """An existing run and its plan.

    Raises:
        StoreError: this is no run directory.
    """
    run = RunDirectory(directory)
    return run, parse_plan(run.read_json(PLAN_FILE), where=directory)


def scene_names(run: RunDirectory) -> list[str]:
    """Names of all scenes of the job, in its order."""
    path = run.path / SCENE_LIST
    return [scene.name for scene in read_scene_list(path)] if path.exists() else []


def plan_scene(scene: Scene, *, run: RunDirectory, plan: Plan, job: Job) -> ScenePlan:
    """Decide everything about a scene, or find its stored plan, and make the files that its tiles are written to.

    Raises:
        TilessegError: the scene cannot be segmented, or its files are others than those its tiles were made from.
    """
    draft = draft_or_stored(scene, run=run, plan=plan, job=job)
    planned = draft if isinstance(draft, ScenePlan) else complete_draft(draft, plan=plan)
    return keep_scene_plan(scene, planned, run=run, plan=plan)


def draft_or_stored(scene: Scene, *, run: RunDirectory, plan: Plan, job: Job) -> SceneDraft | ScenePlan:
    """The stored plan of a scene that goes on, or else a draft. Nothing is written.

    Raises:
        TilessegError: the scene cannot be segmented, or its files are others than those its tiles were made from.
    """
    store = run.scene(scene.name)
    draft = usable_scene_plan(scene, store=store, plan=plan, job=job) or draft_scene(scene, job=job, plan=plan)
    planned = draft if isinstance(draft, ScenePlan) else draft.planned
    if planned.layout.blend == "crop":
        for model in plan.models:
            _crop_is_exact(*model)
    check_products(SceneRun(store, plan, planned), job.output)
    return draft


def keep_scene_plan(scene: Scene, planned: ScenePlan, *, run: RunDirectory, plan: Plan) -> ScenePlan:
    """Store a scene's plan, and make the files that its tiles are written to.

    Raises:
        StoreError: its folder cannot be written, or holds tiles that were made from something else.
    """
    store = run.scene(scene.name)
    store.create(
        shape=planned.grid.shape,
        shard=planned.layout.shard,
        chunk=planned.layout.chunk,
        core=planned.layout.core,
        fingerprint=planned.fingerprint(plan),
        scores=plan.score_classes,
    )
    store.write_json(PLAN_FILE, {"key": plan.key(scene), "scene": scene_to_json(planned)})
    store.remove(REFUSED_FILE)
    return planned


def try_scene(scene: Scene, *, run: RunDirectory, plan: Plan, job: Job) -> ScenePlanned | SceneRefused:
    """Plan a scene; a refusal is kept in its folder and costs this scene alone.

    Raises:
        StoreError: the run directory cannot be written.
    """
    try:
        planned = retried(lambda attempt: plan_scene(scene, run=run, plan=plan, job=job))
        return planned_event(planned, store=run.scene(scene.name))
    except TilessegError as error:
        return refuse_scene(scene.name, str(error), run=run)


def refuse_scene(scene: str, reason: str, *, run: RunDirectory) -> SceneRefused:
    """Keep a refusal in the scene's folder."""
    run.scene(scene).write_json(REFUSED_FILE, {"reason": reason})
    return SceneRefused(scene, reason)


def planned_event(scene: ScenePlan, *, store: Store) -> ScenePlanned:
    """The event of a planned scene: tiles and regions that are still to do.

    A tile that is recorded as done, and whose shards are missing or have another size, is done again.
    """
    again, tiling = store.forget_altered(scene.tiling), scene.tiling
    done = set(store.done_names())
    left = [tile for tile in tiling if tile.name not in done]
    return ScenePlanned(
        scene=scene.name,
        tiles=len(left),
        done=len(done),
        pixels=sum(tile.core.area for tile in left),
        regions=_missing_regions(scene, store=store) if left else 0,
        shape=scene.grid.shape,
        core=scene.layout.core,
        work_factor=round(tiling.overlap_factor, 4),
        notes=(
            *scene.notes,
            *([scene.stage_note] if scene.stage_note else []),
            *([altered_note(again, "done again now")] if again else []),
        ),
    )


def altered_note(problems: Mapping[str, str], then: str) -> str:
    """Note on done tiles whose shards are not as their records say; `then` says what follows."""
    name, problem = next(iter(problems.items()))
    what = f"{len(problems)} tiles are" if len(problems) > 1 else f"tile {name} is"
    return f"{what} not stored as recorded ({problem}); {then}"


def _missing_regions(scene: ScenePlan, *, store: Store) -> int:
    """Number of regions of the image still to be copied; makes the empty copy where there is none."""
    if scene.stage is None:
        return 0
    copy = scene.copy_in(store.folder)
    copy.create(source=scene.open(), layout=scene.stage)
    return len(copy.missing(scene.stage, scene.grid.shape))


def stored_scene_plan(store: Store) -> ScenePlan | None:
    """The plan in a scene's folder, or None where there is none.

    Raises:
        StoreError: it is damaged.
    """
    data = store.read_json(PLAN_FILE)
    return None if data is None else parse_scene_plan(data.get("scene"), where=store.folder)


def unchanged(planned: ScenePlan, paths: Sequence[str]) -> bool:
    """Whether all files of a planned scene are known to be as they were; False where the image has to be opened.

    Args:
        planned: the stored plan.
        paths: paths of the image as the job names them now: their signatures may be newer than those of the plan.
    """
    return None not in planned.identity.values() and _states(planned, paths) == planned.identity


def changed_meanwhile(planned: ScenePlan) -> str | None:
    """The first file of a planned scene that is known to have changed since it was planned, in words; or None."""
    return next(_changes(planned.identity, _states(planned, planned.paths)), None)


def _states(planned: ScenePlan, paths: Sequence[str]) -> dict[str, Any]:
    """States of the files of a planned scene now; only the paths of the job have signatures."""
    signed = {unsigned(path): path for path in paths}
    return {path: file_state(signed.get(path, path)) for path in planned.identity}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Files of two states of an image that are known to differ; a file without a state may be the same."""
    known = {path for path in (*old, *new) if path not in old or path not in new or None not in (old[path], new[path])}
    return differences({path: old.get(path) for path in known}, {path: new.get(path) for path in known})


def usable_scene_plan(scene: Scene, *, store: Store, plan: Plan, job: Job) -> ScenePlan | None:
    """The stored plan that this scene goes on with; None where the scene is to be planned anew.

    Raises:
        StoreError: tiles were made from other files, or by other options, or a record is damaged.
    """
    data = store.read_json(PLAN_FILE)
    if data is None:
        return None
    if data.get("key") != plan.key(scene):
        if store.done_names():
            raise StoreError(
                f"scene {scene.name} has {len(store.done_names())} tiles that were made from other files, or read "
                "otherwise, than this job says; give the old values again, or a new run directory"
            )
        return None
    store.done()  # a damaged record is refused here
    old, reading = parse_scene_plan(data.get("scene"), where=store.folder), input_of(scene, job)
    source = open_scene(scene, reading)
    identity = scene_identity(source, scene, reading)
    changed = next(_changes(old.identity, identity), None)
    if changed is not None:
        if not store.done_names():
            return None
        raise StoreError(
            f"scene {scene.name} has changed since this run began: {changed}; start again in a new run directory"
        )
    old = replace(old, paths=scene.paths)  # whose signatures are newer
    return with_stage(old, source.select(old.bands), reading.stage)


@lru_cache(maxsize=4)
def _crop_is_exact(model: str, sha256: str, trial: Trial | None) -> None:
    """Refuse crop where it would not give the result of whole-image inference; checked once per process and model."""
    check_crop(find_bundle(model), trial)
