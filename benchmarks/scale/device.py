"""A device that sleeps by a cost model, on a real Dask cluster of any number of workers: everything but the pixels.

The scheduler is a process of its own. A few processes hold all the workers: each of them is a real `Worker` with its
own address, connection and heartbeat, and only the threads that would compute sleep.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness
from tilesseg.events import SceneFinished, ScenePlanned, TileDone, TileFailed
from tilesseg.planning.scene_list import Scene
from tilesseg.raster.tiling import tile_name
from tilesseg.run.work_queue import FinishItem, Item, PlanItem, TileItem

PARTS = {"read": 0.15, "prepare": 0.05, "predict": 0.70, "blend": 0.05, "write": 0.05}
"""Shares of a tile's time."""
COLUMNS = 1000
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__GIL__ENABLED": "False",
}
"""What a worker does a hundred times a second for itself, dozens of them in one process would do thousands of times."""
LOG_LENGTH = "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH"
"""Messages that a scheduler remembers of each worker; Dask's default is 1000."""
MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of everything that a worker does."""

    fixed: float = 0.05
    """Of every tile."""
    per_mpx: float = 0.0149
    """Of every million pixels of its core."""
    core: int = 8192
    """Side of a core, in pixels."""
    spread: float = 0.2
    """A tile takes from `1 − spread` to `1 + spread` of that, evenly."""
    plan: float = 0.0
    """Of planning a scene."""
    products: float = 0.0
    """Of writing a scene's products."""

    @classmethod
    def of_tile(cls, seconds: float, **rest: float) -> Costs:
        """A device that takes so long for a tile of the usual size, on average: 5 % of it whatever its size."""
        return cls(fixed=0.05 * seconds, per_mpx=0.95 * seconds * MEGA / 8192**2, **rest)  # type: ignore[arg-type]

    @property
    def mean(self) -> float:
        """Seconds of a tile, on average."""
        return self.fixed + self.per_mpx * self.core**2 / MEGA

    def tile(self, scene: str, tile: str) -> float:
        """Seconds of one tile: always the same ones."""
        draw = zlib.crc32(f"{scene}/{tile}".encode()) / 2**32
        return self.mean * (1 + self.spread * (2 * draw - 1))


@dataclass(frozen=True, slots=True)
class SimulatedWork:
    """What stands for `TileWork`: the same items, the same keys and answers of the same size."""

    costs: Costs
    tiles: int
    """Of every scene."""

    def key(self, item: Item) -> tuple[str, ...]:
        match item:
            case TileItem():
                return ("segment-simulated", item.scene, item.tile)
            case PlanItem():
                return ("plan-simulated", item.scene.name)
            case _:
                return ("products-simulated", item.scene)

    def __call__(self, item: Item) -> ScenePlanned | TileDone | SceneFinished:
        match item:
            case TileItem():
                return self._tile(item)
            case PlanItem():
                time.sleep(self.costs.plan)
                area = self.tiles * self.costs.core**2
                return ScenePlanned(item.scene.name, self.tiles, 0, area, core=(self.costs.core, self.costs.core))
            case FinishItem():
                time.sleep(self.costs.products)
                return SceneFinished(item.scene, "complete", {f"products/{item.scene}.tif": self.costs.products})
        raise AssertionError(item)

    def _tile(self, item: TileItem) -> TileDone:
        started, area = time.time(), self.costs.core**2
        wanted = self.costs.tile(item.scene, item.tile)
        time.sleep(wanted)
        counts, areas = {"0": area // 2, "1": area - area // 2}, {"0": 50.0 * area, "1": 50.0 * area}
        seconds = {part: wanted * share for part, share in PARTS.items()}
        facts = {"patches": 64, "skipped": 0, "worker": f"simulated:{os.getpid()}", "peak_mb": 1200.0}
        return TileDone(
            item.scene, item.tile, area, counts=counts, areas=areas, seconds=seconds, started=started, wall=wanted,
            **facts,  # type: ignore[arg-type]
        )  # fmt: skip

    def lost(self, item: Item, reason: str) -> TileFailed:
        assert isinstance(item, TileItem)
        return TileFailed(item.scene, item.tile, self.costs.core**2, reason)

    def names(self, scene: str) -> list[str]:
        """Names of the tiles of a scene."""
        return [tile_name(*divmod(number, COLUMNS)) for number in range(self.tiles)]


def scenes(number: int) -> Iterator[Scene]:
    """Scenes of no files."""
    return (Scene(f"scene-{k:06d}", (f"images/scene-{k:06d}.tif",)) for k in range(number))


@contextmanager
def cluster(
    workers: int, *, folder: Path, threads: int = 1, hosts: int = 2, log_length: int = 1000
) -> Iterator[tuple[str, list[int]]]:
    """A scheduler in its own process, and workers in a few others: its address, and all process ids."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    environment = harness.ENVIRONMENT | {LOG_LENGTH: str(log_length)}
    counts = [workers // min(hosts, workers) + (k < workers % min(hosts, workers)) for k in range(min(hosts, workers))]
    commands = [["scheduler", str(file)], *(["workers", str(file), str(count), str(threads)] for count in counts)]
    log = (folder / "cluster.log").open("a")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            start = harness.python("-m", "benchmarks.scale.device", *command)
            own = environment | (QUIET if command[0] == "workers" else {})
            processes.append(subprocess.Popen(start, env=own, cwd=folder, stdout=log, stderr=log))
            while command[0] == "scheduler" and not file.exists():
                assert processes[0].poll() is None, (folder / "cluster.log").read_text()
                time.sleep(0.05)
        yield file.read_text(), [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
        log.close()


async def _scheduler(file: Path) -> None:
    from distributed import Scheduler

    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        temporary = file.with_suffix(".part")
        temporary.write_text(scheduler.address)
        temporary.rename(file)
        await asyncio.Event().wait()


async def _workers(file: Path, count: int, threads: int) -> None:
    from distributed import Worker

    address = file.read_text()
    workers = [Worker(address, nthreads=threads, memory_limit=0, dashboard=False) for _ in range(count)]
    await asyncio.gather(*workers)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "scheduler":
        asyncio.run(_scheduler(Path(sys.argv[2])))
    else:
        asyncio.run(_workers(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
