"""How far one job can grow: workers, tiles, scenes. Real schedulers, simulated devices; see docs/scale.md.

    python -m benchmarks.scale.scale efficiency --workers 1 4 16 64 --seconds 0.1 0.3 1 3
    python -m benchmarks.scale.scale memory --tiles 100000
    python -m benchmarks.scale.scale feed --tiles 100000
    python -m benchmarks.scale.scale scenes --files 100000 --planned 200 --finished 2000
    python -m benchmarks.scale.scale quick

`--keep FILE` adds the figures to a JSON file; `measured.json`, which the model is fitted to, was made so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.scale.device import Costs, SimulatedWork, cluster, scenes
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.events import SceneFinished, TileDone
from tilesseg.run.work_queue import WorkQueue
from tilesseg.store.run_directory import RunDirectory

MB = 1e6
REMEMBERED = 100_000
"""Names of tasks that Dask keeps, `dask.utils.key_split`."""
LOOK_EVERY = 20
"""Milliseconds between two looks at what the scheduler knows."""


@dataclass(frozen=True)
class Sample:
    """Memory after so many tiles, in bytes."""

    tiles: int
    driver: int
    scheduler: int


@dataclass
class Measured:
    """One run over simulated devices."""

    workers: int
    threads: int
    seconds: float
    """Of a tile, on average."""
    tiles: int
    scenes: int
    wall: float
    ideal: float
    """All seconds of all items ÷ slots."""
    driver_cpu: float
    """Processor seconds of the driver's process."""
    scheduler_cpu: float
    known: int
    """Tasks that the scheduler knew at the same time, at most, by sampling."""
    window: int
    batches: int = 0
    """How often the driver submitted."""
    samples: list[Sample] = field(default_factory=list)
    worker_cpu: float = 0.0
    """Processor seconds of the processes of all workers."""
    others: float = 0.0
    """Cores of this machine that were busy with something else, on average."""

    @property
    def items(self) -> int:
        """Tiles, and of every scene its planning and its products."""
        return self.tiles + 2 * self.scenes

    @property
    def efficiency(self) -> float:
        return self.ideal / self.wall

    def row(self) -> str:
        each = 1000 / self.tiles
        return (
            f"{self.workers:5} × {self.threads} {self.seconds:6.2f} s {self.tiles:7} tiles {self.wall:8.2f} s "
            f"{100 * self.efficiency:6.1f} %  {self.tiles / self.wall:6.1f} tiles/s  "
            f"driver {self.driver_cpu * each:.2f} ms, scheduler {self.scheduler_cpu * each:.2f} ms, "
            f"workers {self.worker_cpu * each:.2f} ms a tile, {self.items / self.batches:.1f} a batch; "
            f"tasks known ≤ {self.known} (window {self.window}); others took {self.others:.1f} cores"
        )


class CountedExecutor(DaskExecutor):
    """The executor itself; it counts its messages."""

    batches = 0

    def _submit(self, function: Any, items: list[Any]) -> list[Any]:
        self.batches += bool(items)
        return super()._submit(function, items)


def measure(
    workers: int, seconds: float, *, tiles: int, scene_count: int = 1, threads: int = 1, hosts: int = 2,
    samples: int = 0, spread: float = 0.2, plan: float = 0.0, products: float = 0.0, log_length: int = 1000,
    settled: bool = False,
) -> Measured:  # fmt: skip
    """Carry out so many tiles of so many scenes on a real scheduler; the start of the cluster is not counted.

    With `settled`, what Dask's scheduler remembers of the latest 100,000 tasks is full from the start.
    """
    import dask
    from distributed import Client

    work = SimulatedWork(Costs.of_tile(seconds, spread=spread, plan=plan, products=products), tiles // scene_count)
    with (
        dask.config.set({"distributed.admin.low-level-log-length": log_length}),
        tempfile.TemporaryDirectory() as place,
        cluster(workers, threads=threads, hosts=hosts, folder=Path(place), log_length=log_length) as (address, pids),
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers, timeout=180)
        client.run_on_scheduler(_watch)
        if settled:
            client.run_on_scheduler(_settle)
        executor = CountedExecutor(client)
        assert executor.slots == workers * threads
        warm_up(executor)
        processes, run = list(map(psutil.Process, pids)), RunDirectory(Path(place))
        measured = _carry_out(executor, work, scene_count, run, processes, samples)
        measured.known = client.run_on_scheduler(_seen)
    return measured


def warm_up(executor: DaskExecutor) -> None:
    """One task everywhere: imports and connections are made once per run, not per tile."""
    list(executor.map(_nap, range(2 * executor.slots), lost=_never))


def _carry_out(
    executor: CountedExecutor, work: SimulatedWork, scene_count: int, run: RunDirectory,
    processes: list[psutil.Process], samples: int,
) -> Measured:  # fmt: skip
    """What `run` does with a feed: every answer is logged and told to the feed."""
    me, scheduler, slots, executor.batches = psutil.Process(), processes[0], executor.slots, 0
    feed = WorkQueue(
        scenes(scene_count),
        tiles_of=work.names,
        regions_of=lambda scene: [],
        complete=lambda scene: True,
        lookahead=lambda: 2 * executor.slots,
    )
    every = max(1, work.tiles * scene_count // samples) if samples else 0
    found = [_sample(0, me, scheduler)]
    done, spent, before, begun = 0, 0.0, list(map(_cpu, (me, *processes))), time.perf_counter()
    busy = _busy()
    for event in executor.map(work, feed, lost=work.lost):  # type: ignore[arg-type]
        run.log(event, time.time())
        if isinstance(event, TileDone):
            done, spent = done + 1, spent + event.wall
            if every and done % every == 0:
                found.append(_sample(done, me, scheduler))
        elif isinstance(event, SceneFinished):
            spent += work.costs.products + work.costs.plan
        feed.take(event)
    wall = time.perf_counter() - begun
    busy = _busy() - busy
    cpu = [_cpu(process) - start for process, start in zip((me, *processes), before, strict=True)]
    count = len(executor.client.nthreads())
    return Measured(
        count, slots // count, work.costs.mean, done, scene_count, wall, spent / slots, cpu[0], cpu[1], 0, 2 * slots,
        executor.batches, found, sum(cpu[2:]), max(0.0, (busy - sum(cpu)) / wall),
    )  # fmt: skip


def _nap(number: int) -> int:
    time.sleep(0.1)
    return number


def _never(number: int, reason: str) -> int:
    raise AssertionError(reason)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _busy() -> float:
    """Processor seconds that this machine's cores have been busy, or not there for it."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _sample(tiles: int, driver: psutil.Process, scheduler: psutil.Process) -> Sample:
    return Sample(tiles, driver.memory_info().rss, scheduler.memory_info().rss)


def _watch(dask_scheduler: Any) -> None:
    from tornado.ioloop import PeriodicCallback

    dask_scheduler.tilesseg_known = 0

    def look() -> None:
        dask_scheduler.tilesseg_known = max(dask_scheduler.tilesseg_known, len(dask_scheduler.tasks))

    PeriodicCallback(look, LOOK_EVERY).start()


def _settle() -> None:
    from dask.utils import key_split

    for number in range(REMEMBERED):
        key_split(("segment-earlier", f"scene-{number:06d}", f"r000-c{number:03d}", number))


def _seen(dask_scheduler: Any) -> int:
    return int(dask_scheduler.tilesseg_known)


def bytes_per_tile(samples: Sequence[Sample], process: str, *, skip: float = 0.1) -> float:
    """The slope of a straight line through memory against tiles, after the first part of the run."""
    import numpy as np

    kept = [one for one in samples if one.tiles >= skip * samples[-1].tiles]
    return float(np.polyfit([one.tiles for one in kept], [getattr(one, process) for one in kept], 1)[0])


def feed_memory(tiles: int) -> dict[str, float]:
    """What a feed takes that holds one scene of so many tiles, and how fast it gives them."""
    work = SimulatedWork(Costs(), tiles)
    tracemalloc.start()
    feed = WorkQueue(
        scenes(0), tiles_of=work.names, regions_of=lambda scene: [], complete=lambda scene: True, lookahead=lambda: 128
    )
    feed.begin("scene-000000", copied=False)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    begun = time.perf_counter()
    given = sum(1 for _ in zip(range(tiles), feed, strict=False))
    return {"tiles": given, "bytes": held, "peak": peak, "seconds": time.perf_counter() - begun}


def efficiency(asked: argparse.Namespace) -> list[Measured]:
    rows = []
    for seconds in asked.seconds:
        for workers in asked.workers:
            tiles = int(workers * max(asked.each, min(400, asked.length / max(seconds, 0.01))))
            rows.append(measure(workers, seconds, tiles=tiles, scene_count=4, threads=asked.threads))
            print(rows[-1].row(), flush=True)
    return rows


def memory(asked: argparse.Namespace) -> Measured:
    done = measure(
        asked.workers[-1],
        0.0,
        tiles=asked.tiles,
        scene_count=10,
        samples=50,
        log_length=asked.log_length,
        settled=asked.settled,
    )
    print(done.row())
    for one in (done.samples[0], *done.samples[1 :: max(1, len(done.samples) // 10)], done.samples[-1]):
        print(f"{one.tiles:8} tiles: driver {one.driver / MB:.1f} MB, scheduler {one.scheduler / MB:.1f} MB")
    for process in ("driver", "scheduler"):
        print(f"{process}: {bytes_per_tile(done.samples, process):.0f} bytes a tile stay")
    return done


def keep(path: Path | None, name: str, figures: Any) -> None:
    """Add figures to a file, by name."""
    if path is None:
        return
    known = json.loads(path.read_text()) if path.exists() else {}
    if isinstance(figures, list) and isinstance(known.get(name), list):
        figures = [*known[name], *figures]
    known[name] = figures
    path.write_text(json.dumps(known, indent=1) + "\n")


def quick() -> None:
    """Everything in small, in less than two minutes."""
    for workers, seconds in ((4, 0.3), (16, 1.0), (64, 1.0)):
        print(measure(workers, seconds, tiles=workers * 12, scene_count=4).row(), flush=True)
    done = measure(16, 0.0, tiles=2000, scene_count=10, samples=20)
    print(done.row())
    print("bytes a tile:", {name: round(bytes_per_tile(done.samples, name)) for name in ("driver", "scheduler")})
    print("feed:", feed_memory(100_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["efficiency", "memory", "feed", "scenes", "quick"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.1, 0.3, 1.0, 3.0], help="of a tile")
    parser.add_argument("--each", type=int, default=12, help="tiles of each worker, at least")
    parser.add_argument("--length", type=float, default=30.0, help="seconds that a measurement should take")
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--log-length", type=int, default=1000, help="messages the scheduler remembers of a worker")
    parser.add_argument("--settled", action="store_true", help="begin with the scheduler's memory of names full")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--planned", type=int, default=200)
    parser.add_argument("--finished", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="file of figures")
    asked = parser.parse_args()
    match asked.what:
        case "efficiency":
            keep(asked.keep, "efficiency", [asdict(row) for row in efficiency(asked)])
        case "memory":
            keep(asked.keep, "memory", asdict(memory(asked)))
        case "feed":
            figures = feed_memory(asked.tiles)
            print(figures)
            keep(asked.keep, "feed", figures)
        case "scenes":
            from benchmarks.scale import scenes

            figures = scenes.measure(asked.files, asked.planned, asked.finished)
            keep(asked.keep, "scenes", figures)
        case "quick":
            quick()


if __name__ == "__main__":
    main()
