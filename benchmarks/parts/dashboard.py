"""What the page /tilesseg costs the scheduler: its CPU time for no-op tiles, with and without the plugin.

    python -m benchmarks.parts.dashboard [--tiles 10000] [--rounds 3]

The scheduler is a process of its own, so that its CPU time is its own. Each round sends all tiles through
`DaskExecutor`, as a run does, to two worker processes; with the plugin, each tile's record goes to a `Publisher` too,
and with `watched` a browser's worth of JSON is asked for every second besides.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.events import RunFinished, RunStarted, ScenePlanned, TileDone
from tilesseg.monitoring.dashboard.publisher import open_publisher
from tilesseg.raster.tiling import tile_name

COLUMNS, CORE = 100, 2048


def no_op(number: int) -> TileDone:
    """A tile that takes no time; its record is as large as a real one."""
    return TileDone(
        "scene",
        tile_name(*divmod(number, COLUMNS)),
        CORE**2,
        patches=25,
        skipped=0,
        counts={"0": 1, "1": 2, "2": 3, "255": 4},
        areas={"0": 1.0, "1": 2.0, "2": 3.0},
        seconds={"read": 0.1, "prepare": 0.05, "predict": 0.7, "blend": 0.05, "write": 0.1},
        peak_mb=1200.0,
        worker=f"node{number % 64}:4711",
        started=time.time(),
        wall=1.0,
    )


def lost(number: int, reason: str) -> TileDone:
    raise RuntimeError(reason)


def cpu_seconds(dask_scheduler: object = None) -> float:
    """Of the scheduler's process so far."""
    return time.process_time()


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler and two workers as processes; the file that says where."""
    file = folder / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "4"]
    processes = [subprocess.Popen([*dask, *here], **quiet)]
    while not file.exists():
        time.sleep(0.1)
    processes += [subprocess.Popen([*worker, "--no-nanny", *here], **quiet) for _ in range(2)]
    try:
        yield str(file)
    finally:
        for process in processes:  # nothing of theirs is to be kept
            process.kill()
            process.wait()


def measure(tiles: int, *, published: bool, watched: bool = False) -> float:
    """Milliseconds of the scheduler's CPU for each tile."""
    from distributed import Client

    with (
        tempfile.TemporaryDirectory() as name,
        cluster(Path(name)) as file,
        Client(scheduler_file=file, set_as_default=False) as client,
    ):
        client.wait_for_workers(2)
        executor, stop = DaskExecutor(client), threading.Event()
        list(executor.map(no_op, range(200), lost=lost))
        publisher = open_publisher(client, run=Path(name), quick_look=False) if published else None
        if isinstance(publisher, str):
            raise SystemExit(publisher)
        before = client.run_on_scheduler(cpu_seconds)
        if publisher:
            publisher(RunStarted(1, job="benchmark"))
            shape = (-(-tiles // COLUMNS) * CORE, COLUMNS * CORE)
            publisher(ScenePlanned("scene", tiles, 0, tiles * CORE**2, shape=shape, core=(CORE, CORE)))
            if watched:
                threading.Thread(target=watch, args=(publisher.link, stop), daemon=True).start()
        for event in executor.map(no_op, range(tiles), lost=lost):
            if publisher:
                publisher(event)
        if publisher:
            publisher(RunFinished(tiles, 0, 0, 1.0))
            publisher.close()
        stop.set()
        spent = client.run_on_scheduler(cpu_seconds) - before
    return 1000 * spent / tiles


def watch(link: str, stop: threading.Event) -> None:
    """Ask for the map of all tiles every second, as somebody who looks does."""
    while not stop.wait(1.0):
        with urllib.request.urlopen(link + "/status.json?scene=scene") as answer:
            answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ways = {
        "without": {"published": False},
        "with": {"published": True},
        "watched": {"published": True, "watched": True},
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(asked.rounds):  # in turn, so that a busy machine is unfair to all of them
        for way, options in ways.items():
            found[way].append(measure(asked.tiles, **options))
            print(f"{way:8} {found[way][-1]:.3f} ms of the scheduler's CPU per tile", flush=True)
    base = statistics.median(found["without"])
    for way in ("with", "watched"):
        print(f"{way}: {statistics.median(found[way]) - base:+.3f} ms per tile (medians of {asked.rounds})")


if __name__ == "__main__":
    main()
