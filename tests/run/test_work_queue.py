"""The feed: scenes overlap, nothing waits without end, and little is planned that would only wait."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

import pytest

from tilesseg.cluster.executors import LATER
from tilesseg.events import Event, RegionStaged, SceneFinished, ScenePlanned, SceneRefused, TileDone
from tilesseg.planning.scene_list import Scene
from tilesseg.run.work_queue import COPIES, FinishItem, Item, PlanItem, StageItem, TileItem, WorkQueue


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
