"""The feed: scenes overlap, nothing waits without end, and little is planned that would only wait."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from small_runs import SmallRun

from tilesseg.cluster.executors import LATER
from tilesseg.events import Event, RegionStaged, SceneFinished, ScenePlanned, SceneRefused, TileDone
from tilesseg.planning.scene_list import Scene
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.run.work_queue import (
    COPIES,
    FinishItem,
    Item,
    PlanItem,
    RemainingTiles,
    StageItem,
    TileItem,
    WorkQueue,
    forget_damaged,
)
from tilesseg.store.scene_store import FINISHED_FILE


class Pretended:
    """Scenes `s0` … of some tiles, some of which are copied first; every fifth is refused."""

    def __init__(self, scenes: int, *, slots: int, copied: bool, tiles: int = 3) -> None:
        self.names, self.slots, self.copied, self.count = [f"s{n}" for n in range(scenes)], slots, copied, tiles
        self.done: Counter[str] = Counter()
        self.finished: list[str] = []
        self.most_open = 0
        self.feed = WorkQueue(
            iter(Scene(name, (name,)) for name in self.names),
            self.tiles,
            lambda scene: ["r0", "r1"],
            lambda scene: True,
            lookahead=lambda: 2 * self.slots,
        )

    def tiles(self, scene: str) -> list[str]:
        return [f"t{n}" for n in range(int(scene[1:]) % (self.count + 1))]

    def answer(self, item: Item) -> Event:
        match item:
            case PlanItem():
                name = item.scene.name
                if int(name[1:]) % 5 == 4:
                    return SceneRefused(name, "bad")
                tiles = len(self.tiles(name))
                return ScenePlanned(name, tiles, 0, tiles, regions=2 if self.copied and tiles else 0)
            case StageItem():
                return RegionStaged(item.scene, item.region, 1, 0.0)
            case TileItem():
                self.done[item.scene] += 1
                return TileDone(item.scene, item.tile, 1, 1, 0, {}, {})
            case FinishItem():
                self.finished.append(item.scene)
                return SceneFinished(item.scene, "complete")

    def carry_out(self, *, last_first: bool) -> None:
        under_way: deque[Item] = deque()
        while True:
            for item in self._pull(2 * self.slots - len(under_way)):
                under_way.append(item)
            if not under_way:
                return
            item = under_way.pop() if last_first else under_way.popleft()
            self.feed.take(self.answer(item))
            self.most_open = max(self.most_open, len(self.feed._open))

    def _pull(self, number: int) -> Iterator[Item]:
        for _ in range(number):
            item = next(self.feed, LATER)
            if item is LATER:
                return
            yield item


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 7, 40])
def test_every_scene_that_is_not_refused_comes_to_its_end(slots: int, copied: bool, last_first: bool) -> None:
    run = Pretended(60, slots=slots, copied=copied)
    run.carry_out(last_first=last_first)
    wanted = [name for name in run.names if int(name[1:]) % 5 != 4]
    assert sorted(run.finished) == sorted(wanted)
    assert run.done == {name: len(run.tiles(name)) for name in wanted if run.tiles(name)}
    with pytest.raises(StopIteration):
        next(run.feed)


def test_scenes_are_not_planned_ahead_while_others_wait_for_room_for_their_copies() -> None:
    """A driver of 100,000 scenes that are copied first holds a few of them."""
    run = Pretended(400, slots=3, copied=True)
    run.carry_out(last_first=False)
    assert run.most_open <= 2 * COPIES + 2 * run.slots


@pytest.fixture
def small(tmp_path: Path) -> SmallRun:
    """A run of four tiles."""
    scene = write_scene(tmp_path / "scene.tif", np.ones((1, 128, 128), np.uint8))
    data = job_data(scene, write_bundle(tmp_path / "model"), tmp_path / "run")
    cut: dict[str, Any] = {"patch": 32, "overlap": 8, "core": 64}
    return SmallRun({**data, "tiling": cut, "input": {"check_range": False, "stage": "never"}})


def test_of_a_scene_without_a_plan_or_a_copy_nothing_is_to_be_copied(small: SmallRun) -> None:
    left = RemainingTiles(small.run)
    assert (left.tiles("scene"), left.regions("scene")) == ([], [])
    small.plan_scenes()
    assert len(left.tiles("scene")) == 4 and left.regions("scene") == []


@pytest.mark.parametrize("share", [None, ArrayShare(1, 2)])
def test_damaged_tiles_of_a_share_are_forgotten_and_no_others(small: SmallRun, share: ArrayShare | None) -> None:
    small.plan_scenes()
    forget_damaged(small.run.scene("scene"), share)  # there is nothing to forget
    small.segment("scene", damage=lambda number: None if number == 0 else "torn")
    small.finish("scene")
    store = small.run.scene("scene")
    planned = stored_scene_plan(store)
    assert planned is not None
    names = [tile.name for tile in planned.tiling]
    gone = {name for n, name in enumerate(names) if n > 0 and (share is None or share.has("scene", n))}
    assert gone and (share is None or len(gone) < 3)
    forget_damaged(store, share)
    assert {*names} - {*store.done_names()} == gone
    assert store.read_json(FINISHED_FILE) is None


def test_the_end_of_a_scene_without_damage_stays_recorded(small: SmallRun) -> None:
    small.plan_scenes()
    small.segment("scene")
    small.finish("scene")
    store = small.run.scene("scene")
    forget_damaged(store, None)
    assert len(store.done_names()) == 4 and store.read_json(FINISHED_FILE) is not None
