"""Which images a run copies to Zarr first, and when: a copy is made beside the tiles of the scene before.

So no worker waits while one task streams an image from its beginning, and no more than two copies lie on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tilesseg.worker import Item, StageItem

if TYPE_CHECKING:
    from tilesseg.plan import Plan
    from tilesseg.scenes import ScenePlan
    from tilesseg.store import RunDirectory


def batches(run: RunDirectory, plan: Plan, pending: Sequence[Item]) -> Iterator[list[Item | StageItem]]:
    """What can be done at the same time, one batch after the other; a scene's tiles come after its copy."""
    staged = scenes_to_copy(plan, pending)
    names = {scene.name for scene in staged}
    ready: list[Item | StageItem] = [item for item in pending if item[0] not in names]
    for scene in staged:
        yield [*regions_to_copy(run, scene), *ready]
        ready = [item for item in pending if item[0] == scene.name]
    yield ready


def scenes_to_copy(plan: Plan, pending: Sequence[Item]) -> list[ScenePlan]:
    """Scenes with tiles to do whose image is copied first."""
    names = {scene for scene, _ in pending}
    return [scene for scene in plan.scenes if scene.stage and scene.name in names]


def regions_to_copy(run: RunDirectory, scene: ScenePlan) -> list[StageItem]:
    """What is still to be copied of a scene's image; makes the empty copy where there is none."""
    assert scene.stage is not None  # only such scenes are asked for
    copy = scene.copy_in(run.scene(scene.name).folder)
    copy.create(source=scene.open(), layout=scene.stage)
    return [StageItem(scene.name, region.name) for region in copy.missing(scene.stage, scene.grid.shape)]


def let_copy_go(run: RunDirectory, plan: Plan, scene: str) -> None:
    """Remove a copy that nothing needs any more; tiles that failed will be tried again, and need it."""
    store = run.scene(scene)
    copy = plan.by_name[scene].copy_in(store.folder)
    if copy.folder.exists() and not store.failed():
        copy.remove()
