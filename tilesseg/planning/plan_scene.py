"""Planning a scene: the one step of a run that looks at an image as a whole. Every refusal of a scene is made here.

A job of 100,000 scenes begins with its first one: each is planned by a worker, shortly before its tiles. What was
decided is kept in the scene's folder, and a run that goes on finds it there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tilesseg.errors import StoreError, TilessegError
from tilesseg.events import ScenePlanned, SceneRefused
from tilesseg.formats.source import file_state
from tilesseg.models.bundle import find_bundle
from tilesseg.planning.plan import PLAN_FILE, check_crop, differences, parse_scene_plan, scene_to_json
from tilesseg.planning.product_checks import check_products
from tilesseg.planning.scene_plan import ScenePlan, input_of, open_scene, plan_scene, scene_identity, with_stage
from tilesseg.retry import retried
from tilesseg.store.scene_store import REFUSED_FILE

if TYPE_CHECKING:
    from tilesseg.planning.job import Job
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_list import Scene
    from tilesseg.store.run_directory import RunDirectory
    from tilesseg.store.scene_store import Store


def plan_one(scene: Scene, *, run: RunDirectory, plan: Plan, job: Job) -> ScenePlan:
    """Decide everything about a scene, or find what was decided, and make what its tiles are written to.

    Raises:
        TilessegError: the scene cannot be segmented, or its files are others than those its tiles were made from.
    """
    return make(scene, decide(scene, run=run, plan=plan, job=job), run=run, plan=plan)


def decide(scene: Scene, *, run: RunDirectory, plan: Plan, job: Job) -> ScenePlan:
    """Decide everything about a scene, or find what was decided. Nothing is written.

    Raises:
        TilessegError: the scene cannot be segmented, or its files are others than those its tiles were made from.
    """
    store = run.scene(scene.name)
    planned = _found(scene, store=store, plan=plan, job=job) or plan_scene(
        scene,
        asked=job,
        spec=plan.spec,
        slots=plan.slots,
        device=plan.device,
        speeds=plan.speeds,
        parallel_batches=plan.parallel_batches,
    )
    if planned.layout.blend == "crop":
        _crop_is_exact(plan.model, plan.model_sha256)
    check_products(store, plan, planned, job.output)
    return planned


def make(scene: Scene, planned: ScenePlan, *, run: RunDirectory, plan: Plan) -> ScenePlan:
    """Keep a scene's plan, and make what its tiles are written to.

    Raises:
        StoreError: its folder cannot be written, or holds tiles that were made from something else.
    """
    store = run.scene(scene.name)
    store.create(
        shape=planned.grid.shape,
        shard=planned.layout.shard,
        chunk=planned.layout.chunk,
        core=planned.layout.core,
        fingerprint=plan.fingerprint(planned),
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
        planned = retried(lambda attempt: plan_one(scene, run=run, plan=plan, job=job))
        return planned_event(planned, store=run.scene(scene.name))
    except TilessegError as error:
        return refuse(scene.name, str(error), run=run)


def refuse(scene: str, reason: str, *, run: RunDirectory) -> SceneRefused:
    """Keep a refusal in the scene's folder."""
    run.scene(scene).write_json(REFUSED_FILE, {"reason": reason})
    return SceneRefused(scene, reason)


def planned_event(scene: ScenePlan, *, store: Store) -> ScenePlanned:
    """What there is to do for a planned scene."""
    done, tiling = set(store.done_names()), scene.tiling
    left = [tile for tile in tiling if tile.name not in done]
    return ScenePlanned(
        scene=scene.name,
        tiles=len(left),
        done=len(done),
        pixels=sum(tile.core.area for tile in left),
        regions=missing_regions(scene, store=store) if left else 0,
        shape=scene.grid.shape,
        core=scene.layout.core,
        work_factor=round(tiling.overlap_factor, 4),
        notes=(*scene.notes, *([scene.stage_note] if scene.stage_note else [])),
    )


def missing_regions(scene: ScenePlan, *, store: Store) -> int:
    """Regions of the image still to be copied; makes the empty copy where there is none."""
    if scene.stage is None:
        return 0
    copy = scene.copy_in(store.folder)
    copy.create(source=scene.open(), layout=scene.stage)
    return len(copy.missing(scene.stage, scene.grid.shape))


def stored_plan(store: Store) -> ScenePlan | None:
    """The plan in a scene's folder, or None where there is none.

    Raises:
        StoreError: it is damaged.
    """
    data = store.read_json(PLAN_FILE)
    return None if data is None else parse_scene_plan(data.get("scene"), where=store.folder)


def unchanged(scene: ScenePlan) -> bool:
    """Whether all files of a planned scene are known to be as they were; False where that needs a closer look."""
    return all(state is not None and file_state(path) == state for path, state in scene.identity.items())


def _found(scene: Scene, *, store: Store, plan: Plan, job: Job) -> ScenePlan | None:
    """The stored plan that this scene goes on with; None where it is to be decided anew."""
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
    old, how = parse_scene_plan(data.get("scene"), where=store.folder), input_of(scene, job)
    source = open_scene(scene, how)
    identity = scene_identity(source, scene, how)
    if old.identity != identity:
        if not store.done_names():
            return None
        changed = next(iter(differences({"": old.identity}, {"": identity})), "its files")
        raise StoreError(
            f"scene {scene.name} has changed since this run began: {changed}; start again in a new run directory"
        )
    return with_stage(old, source.select(old.bands), how.stage)


@lru_cache(maxsize=4)
def _crop_is_exact(model: str, sha256: str) -> None:
    """Refuse crop where it would not give what whole-image inference gives; asked once per process and model."""
    check_crop(find_bundle(model))
