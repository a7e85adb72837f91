"""Remaining work of a planned scene, read from its folder: the truth of a run that goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilesseg.planning.stored_plan import stored_scene_plan

if TYPE_CHECKING:
    from tilesseg.run.job_array_share import ArrayShare
    from tilesseg.store.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class RemainingTiles:
    """Tiles and regions that this process still has to do."""

    run: RunDirectory
    share: ArrayShare | None = None

    def tiles(self, scene: str) -> list[str]:
        """Names of the tiles of this process's share that are not done."""
        store = self.run.scene(scene)
        planned, done = stored_scene_plan(store), set(store.done_names())
        if planned is None:
            return []
        left = [(number, tile.name) for number, tile in enumerate(planned.tiling) if tile.name not in done]
        return [name for number, name in left if self.share is None or self.share.has(scene, number)]

    def regions(self, scene: str) -> list[str]:
        """Names of the regions of the image that are to be copied first."""
        store = self.run.scene(scene)
        planned = stored_scene_plan(store)
        if planned is None or planned.stage is None:
            return []
        missing = planned.copy_in(store.folder).missing(planned.stage, planned.grid.shape)
        return [region.name for region in missing]

    def all_tried(self, scene: str) -> bool:
        """Whether every tile has been tried, by any process that shares the run."""
        if self.share is None:
            return True
        store = self.run.scene(scene)
        planned = stored_scene_plan(store)
        tried = {*store.done_names(), *store.failed()}
        return planned is not None and len(tried) == len(planned.tiling)
