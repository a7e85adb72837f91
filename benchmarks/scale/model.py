"""A run on paper: driver, scheduler and workers as a discrete-event model, fed by the real feed.

What one process does one after the other (driver, scheduler) is a server with a queue; what many do at the same time
(workers) are slots. Every answer travels worker → scheduler → driver, every item driver → scheduler → worker, and the
driver handles what has come in meanwhile as one batch, as `DaskExecutor` does. A worker holds a task more than it
has threads, so that the next one is there when the last one ends (Dask's `worker-saturation` of 1.1).
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.scale.device import SimulatedWork, scenes
from tilesseg.cluster.executors import LATER
from tilesseg.events import Event, SceneFinished, ScenePlanned, TileDone
from tilesseg.run.work_queue import FinishItem, Item, PlanItem, TileItem, WorkQueue


@dataclass(frozen=True, slots=True)
class Overheads:
    """Processor seconds of what is no work; fitted to measurements by `fit`."""

    driver_batch: float = 1.5e-3
    """Of a driver for every message it sends, whatever is in it."""
    driver_item: float = 0.5e-3
    scheduler_batch: float = 1.0e-3
    scheduler_item: float = 1.0e-3
    scheduler_beat: float = 0.5e-3
    """Of a scheduler for each heartbeat of a worker."""
    worker_item: float = 1.0e-3
    worker_beat: float = 0.0
    """Of a worker for each heartbeat; counts where cores are shared."""
    idle: float = 0.0
    """Cores that driver and scheduler take when nothing happens; counts where cores are shared."""
    latency: float = 0.5e-3
    """Seconds of a message on its way."""
    cores: float | None = None
    """Cores that driver, scheduler and workers share; None: each has its own."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong on a large cluster."""

    slow_share: float = 0.0
    """Of all tiles."""
    slow_factor: float = 5.0
    life: float | None = None
    """Mean seconds until a worker dies; None: never."""
    restart: float = 60.0
    """Seconds until another takes its place."""
    seed: int = 1


@dataclass(slots=True)
class Simulated:
    """What a run on paper came to."""

    workers: int
    threads: int
    tiles: int
    wall: float
    ideal: float
    driver_busy: float
    """Share of the time."""
    scheduler_busy: float
    deaths: int = 0
    repeated: int = 0
    """Items that were begun again."""

    @property
    def efficiency(self) -> float:
        return self.ideal / self.wall


def beats(workers: int) -> float:
    """Heartbeats per second of so many workers: Dask's scheduler tells them how often, never more than 200 in all."""
    if workers <= 10:
        return workers / 0.5
    if workers < 50:
        return workers / 1.0
    return workers / (2.0 if workers < 200 else workers / 200 + 1)


def simulate(
    workers: int, work: SimulatedWork, *, scene_count: int = 1, threads: int = 1,
    overheads: Overheads | None = None, trouble: Trouble | None = None,
) -> Simulated:  # fmt: skip
    """Carry a run out on paper."""
    return _Simulation(workers, threads, work, scene_count, overheads or Overheads(), trouble or Trouble()).carry_out()


class _Simulation:
    def __init__(
        self, workers: int, threads: int, work: SimulatedWork, scene_count: int, costs: Overheads, trouble: Trouble
    ) -> None:
        self.workers, self.threads, self.work, self.costs, self.trouble = workers, threads, work, costs, trouble
        self.now, self.calendar, self.order = 0.0, list[Any](), 0
        self.draw = random.Random(trouble.seed)
        self.window, self.room = 2 * workers * threads, max(1, math.ceil(1.1 * threads))
        self.feed = WorkQueue(
            scenes(scene_count),
            tiles_of=work.names,
            regions_of=lambda scene: [],
            complete=lambda scene: True,
            lookahead=lambda: self.window,
        )
        self.under_way, self.answers, self.driving = 0, list[Item](), False
        self.free_at = self.driver_spent = self.scheduler_spent = 0.0
        left = max(0.1, (costs.cores or 1.0) - costs.idle - costs.worker_beat * beats(workers))
        self.cores = [0.0] * math.ceil(left) if costs.cores else None
        self.stretch = math.ceil(left) / left if costs.cores else 1.0
        self.held: list[list[Item]] = [[] for _ in range(workers)]
        """What the scheduler has given to each worker."""
        self.running, self.waiting = [0] * workers, [deque[Item]() for _ in range(workers)]
        self.life, self.dead = [0] * workers, [False] * workers
        self.queue = deque[Item]()
        self.free: list[list[int]] = [list(reversed(range(workers))), *([] for _ in range(self.room))]
        """Workers by how much they hold; an entry may be out of date."""
        self.beside_beats = 1 / (1 - self.costs.scheduler_beat * beats(workers))
        self.done, self.spent, self.ended, self.deaths, self.repeated = 0, 0.0, 0.0, 0, 0

    def carry_out(self) -> Simulated:
        for worker in range(self.workers) if self.trouble.life else ():
            self.at(self.draw.expovariate(1 / self.trouble.life), self.die, worker)  # type: ignore[operator]
        self.send()
        while self.under_way and self.calendar:
            self.now, _, call, *arguments = heapq.heappop(self.calendar)
            call(*arguments)
        slots = self.workers * self.threads
        return Simulated(
            self.workers, self.threads, self.done, self.now, self.spent / slots, self.driver_spent / self.now,
            self.scheduler_spent / self.now, self.deaths, self.repeated,
        )  # fmt: skip

    def at(self, after: float, call: Callable[..., None], *arguments: Any) -> None:
        self.order += 1
        heapq.heappush(self.calendar, (self.now + after, self.order, call, *arguments))

    def compute(self, seconds: float, begin: float) -> float:
        """When a piece of work is done that needs a core from `begin` on."""
        seconds *= self.stretch
        if self.cores is None:
            return begin + seconds
        begin = max(begin, heapq.heappop(self.cores))
        heapq.heappush(self.cores, begin + seconds)
        return begin + seconds

    # the driver

    def send(self) -> None:
        items: list[Item] = []
        while self.under_way < self.window and (item := next(self.feed, LATER)) is not LATER:
            items.append(item)
            self.under_way += 1
        if items:
            self.at(self.costs.latency, self.submitted, items)

    def answered(self, item: Item) -> None:
        self.answers.append(item)
        if not self.driving:
            self.drive()

    def drive(self) -> None:
        batch, self.answers, self.driving = self.answers, [], True
        cost = self.costs.driver_batch + self.costs.driver_item * len(batch)
        self.driver_spent += cost
        fetched = self.serve(self.costs.scheduler_batch) + 2 * self.costs.latency
        self.at(self.compute(cost, max(self.now, fetched)) - self.now, self.driven, batch)

    def driven(self, batch: list[Item]) -> None:
        self.driving = False
        for item in batch:
            self.under_way -= 1
            self.feed.take(self.answer(item))
        self.send()
        if self.answers:
            self.drive()

    def answer(self, item: Item) -> Event:
        match item:
            case TileItem():
                self.done += 1
                return TileDone(item.scene, item.tile, 0, 0, 0, {}, {})
            case PlanItem():
                return ScenePlanned(item.scene.name, self.work.tiles, 0, 0)
            case FinishItem():
                return SceneFinished(item.scene, "complete")
        raise AssertionError(item)

    # the scheduler

    def serve(self, cost: float) -> float:
        """When the scheduler has done what takes it so long, after all that waits already."""
        cost *= self.beside_beats
        self.scheduler_spent += cost
        self.free_at = self.compute(cost, max(self.now, self.free_at))
        return self.free_at

    def submitted(self, items: list[Item]) -> None:
        self.at(self.serve(self.costs.scheduler_item / 2 * len(items)) - self.now, self.assign, items)

    def assign(self, items: list[Item]) -> None:
        for item in items:
            worker = self.emptiest()
            if worker is None:
                self.queue.append(item)
            else:
                self.give(worker, item)

    def emptiest(self) -> int | None:
        for held, some in enumerate(self.free[: self.room]):
            while some:
                worker = some.pop()
                if not self.dead[worker] and len(self.held[worker]) == held:
                    return worker
        return None

    def give(self, worker: int, item: Item) -> None:
        self.held[worker].append(item)
        if len(self.held[worker]) < self.room:
            self.free[len(self.held[worker])].append(worker)
        self.at(self.costs.latency, self.arrive, worker, item, self.life[worker])

    def ready(self, worker: int, item: Item, life: int) -> None:
        if life == self.life[worker]:
            self.at(self.serve(self.costs.scheduler_item / 2) - self.now, self.take_back, worker, item, life)

    def take_back(self, worker: int, item: Item, life: int) -> None:
        if life != self.life[worker]:
            return
        self.held[worker].remove(item)
        if self.queue:
            self.give(worker, self.queue.popleft())
        else:
            self.free[len(self.held[worker])].append(worker)
        self.at(self.costs.latency, self.answered, item)

    # the workers

    def arrive(self, worker: int, item: Item, life: int) -> None:
        if life != self.life[worker]:
            return
        if self.running[worker] < self.threads:
            self.begin(worker, item)
        else:
            self.waiting[worker].append(item)

    def begin(self, worker: int, item: Item) -> None:
        self.running[worker] += 1
        seconds = self.seconds(item)
        begun = self.compute(self.costs.worker_item, self.now)
        self.at(begun + seconds - self.now, self.end, worker, item, seconds, self.life[worker])

    def end(self, worker: int, item: Item, seconds: float, life: int) -> None:
        if life != self.life[worker]:
            return
        self.spent += seconds
        self.running[worker] -= 1
        if self.waiting[worker]:
            self.begin(worker, self.waiting[worker].popleft())
        self.at(self.costs.latency, self.ready, worker, item, life)

    def seconds(self, item: Item) -> float:
        match item:
            case TileItem():
                slow = self.trouble.slow_share and self.draw.random() < self.trouble.slow_share
                return self.work.costs.tile(item.scene, item.tile) * (self.trouble.slow_factor if slow else 1.0)
            case PlanItem():
                return self.work.costs.plan
        return self.work.costs.products

    def die(self, worker: int) -> None:
        """What the worker held is given to others."""
        self.deaths += 1
        self.life[worker] += 1
        self.dead[worker], self.running[worker] = True, 0
        again, self.held[worker] = self.held[worker], []
        self.waiting[worker].clear()
        self.repeated += len(again)
        self.assign(again)
        self.at(self.trouble.restart, self.rise, worker)

    def rise(self, worker: int) -> None:
        self.dead[worker] = False
        self.free[0].append(worker)
        while self.queue and len(self.held[worker]) < self.room:
            self.give(worker, self.queue.popleft())
        assert self.trouble.life
        self.at(self.draw.expovariate(1 / self.trouble.life), self.die, worker)
