"""Work queue of a run: the remaining tiles of each scene, and the order of items over all scenes.

Items are names and coordinates, never pixels. What remains is read from the scene's folder: the truth of a run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tilesseg.cluster.executors import LATER, Later
from tilesseg.events import (
    Event,
    RegionFailed,
    RegionStaged,
    SceneFinished,
    ScenePlanned,
    SceneRefused,
    TileDone,
    TileFailed,
)
from tilesseg.planning.scene_list import Scene
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.store.scene_store import FINISHED_FILE

if TYPE_CHECKING:
    from tilesseg.run.job_array_share import ArrayShare
    from tilesseg.store.run_directory import RunDirectory
    from tilesseg.store.scene_store import Store


class TileItem(NamedTuple):
    """A tile to segment."""

    scene: str
    tile: str


class StageItem(NamedTuple):
    """A region of a scene's image to copy."""

    scene: str
    region: str


class PlanItem(NamedTuple):
    """A scene to plan."""

    scene: Scene


class FinishItem(NamedTuple):
    """A scene whose products are to be written, after all its tiles have been tried."""

    scene: str


Item = TileItem | StageItem | PlanItem | FinishItem

IN_HAND = 2
"""Least number of planned scenes, while there are any."""
COPIES = 2
"""Largest number of copies of images on the disk at the same time."""


@dataclass(slots=True)
class _Open:
    """A scene under way."""

    tiles: list[str]
    """Names of the tiles that have not been handed out."""
    regions: int = 0
    """Number of regions of the image that are still to be copied."""
    left: int = 0
    """Number of tiles without a result."""


@dataclass
class WorkQueue(Iterator[Item | Later]):
    """Iterator of items that takes every event, and gives `LATER` where it must wait for an event."""

    scenes: Iterator[Scene]
    tiles_of: Callable[[str], list[str]]
    """Function that gives the names of the remaining tiles of a planned scene."""
    regions_of: Callable[[str], list[str]]
    """Function that gives the names of the regions of a scene's image that are still to be copied."""
    complete: Callable[[str], bool]
    """Whether all tiles of a scene have been tried, by any process."""
    lookahead: Callable[[], int]
    """Number of tiles that should be ready: about as many as are under way."""
    finish: bool = True
    """Whether products are items."""

    _ready: deque[TileItem] = field(default_factory=deque)
    _urgent: deque[Item] = field(default_factory=deque)
    _copying: deque[str] = field(default_factory=deque)
    """Scenes whose copies wait for room on the disk."""
    _copies: set[str] = field(default_factory=set)
    _open: dict[str, _Open] = field(default_factory=dict)
    _planning: int = 0

    def __iter__(self) -> WorkQueue:
        return self

    def __next__(self) -> Item | Later:
        if self._urgent:
            return self._urgent.popleft()
        if self._wants_scene():
            scene = next(self.scenes, None)
            if scene is not None:
                self._planning += 1
                return PlanItem(scene)
        if self._ready:
            return self._ready.popleft()
        if self._planning or self._open:
            return LATER
        raise StopIteration

    def _wants_scene(self) -> bool:
        """Whether another scene is to be planned: early enough that its image can be copied in time."""
        if self._planning + len(self._open) < IN_HAND:
            return True
        if len(self._copying) >= COPIES:  # a further scene would only wait with them
            return False
        return len(self._ready) < self.lookahead() and self._planning < max(1, self.lookahead() // 2)

    def take(self, event: Event) -> None:
        """Update the queue by an event."""
        match event:
            case ScenePlanned():
                self._planning -= 1
                self.begin(event.scene, copied=event.regions > 0)
            case SceneRefused():
                self._planning -= 1
            case RegionStaged() | RegionFailed():
                self._region(event.scene)
            case TileDone() | TileFailed():
                self._open[event.scene].left -= 1
                self._end(event.scene)
            case SceneFinished():
                self._close(event.scene)

    def begin(self, scene: str, *, copied: bool) -> None:
        """Queue the tiles of a planned scene, after the regions of its image."""
        tiles = self.tiles_of(scene)
        self._open[scene] = _Open(tiles, left=len(tiles))
        if not tiles:
            self._end(scene)
        elif copied:
            self._copying.append(scene)
            self._copy()
        else:
            self._release(scene)

    def _copy(self) -> None:
        """Queue the copies for which there is room."""
        while self._copying and len(self._copies) < COPIES:
            scene = self._copying.popleft()
            regions = self.regions_of(scene)
            self._copies.add(scene)
            self._open[scene].regions = len(regions)
            self._urgent.extend(StageItem(scene, region) for region in regions)
            if not regions:
                self._release(scene)

    def _region(self, scene: str) -> None:
        self._open[scene].regions -= 1
        if not self._open[scene].regions:
            self._release(scene)

    def _release(self, scene: str) -> None:
        self._ready.extend(TileItem(scene, tile) for tile in self._open[scene].tiles)
        self._open[scene].tiles.clear()

    def _end(self, scene: str) -> None:
        if self._open[scene].left:
            return
        if self.finish and self.complete(scene):
            self._urgent.append(FinishItem(scene))
        else:
            self._close(scene)

    def _close(self, scene: str) -> None:
        self._open.pop(scene, None)
        self._copies.discard(scene)
        self._copy()


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


def forget_damaged(store: Store, share: ArrayShare | None) -> None:
    """Forget that tiles of a share were done with damage, and that regions of a copy have it: they are done again."""
    planned = stored_scene_plan(store)
    if planned is None:
        return
    damaged = {name for name, record in store.done().items() if record.damage}
    forgotten = [
        tile.name
        for number, tile in enumerate(planned.tiling)
        if tile.name in damaged and (share is None or share.has(store.scene, number))
    ]
    for name in forgotten:
        store.ledger.forget(name)
    if forgotten:
        store.remove(FINISHED_FILE)
    copied = planned.copy_in(store.folder).ledger
    for name, region in copied.done().items():
        if region.get("damage"):
            copied.forget(name)
