"""One seed: a run under its fault, the fault taken away, one more plain run, and the laws that must hold then."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from numpy.typing import NDArray

from benchmarks.chaos.draw import DISK, NANNY, POISON, SCHEDULER, SHARDS, SIGNALS, WORKERS, Draw
from benchmarks.chaos.network import BAD, FOLDER, HANGING
from benchmarks.harness import CHECKOUT, role
from benchmarks.own_scheduler import OwnScheduler
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.raster.window import Window
from tilesseg.run.run_job import job_status
from tilesseg.store.run_directory import RunDirectory

SIDE, CORE = 768, 128
TILES = (SIDE // CORE) ** 2
BOUND, HANGS = 120.0, 8
"""Seconds within which an execution has to end by itself, and limit of a tile that hangs."""
DISK_BYTES = 4 << 20
ENDS = {SCHEDULER, NANNY}


@dataclass(slots=True)
class Outcome:
    """What became of a seed."""

    draw: Draw
    codes: list[int | None] = field(default_factory=list)
    """Exit codes of all processes; None: it did not end within its bound."""
    seconds: float = 0.0
    """Seconds of the longest execution."""
    broken: list[str] = field(default_factory=list)
    """Laws that did not hold."""

    @property
    def fine(self) -> bool:
        return not self.broken


def trial(draw: Draw, folder: Path) -> Outcome:
    """Carry out a seed in an empty folder."""
    outcome = Outcome(draw)
    with ExitStack() as stack:
        run = folder / "run"
        if draw.fault == DISK:
            stack.enter_context(small_disk(folder / "disk"))
            run = folder / "disk" / "run"
        environment = {**os.environ, FOLDER: str(folder), "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
        there = None
        if draw.executor == "address":
            there = stack.enter_context(
                OwnScheduler(folder / "dask", workers=draw.workers, threads=draw.threads, environment=environment)
            )
        truth = write_job(draw, folder, run, there)
        first = Execution(draw, folder, environment, "first")
        strike(draw, first, folder, run, there)
        first.judge(outcome, draw.codes, BOUND + (2 * HANGS if draw.fault in HANGING else 0))
        lift(draw, folder, run, there, environment, outcome)
        again = Execution(draw, folder, environment, "again")
        # A part of an array that ends before the other one has done its failed tile again says so with 3.
        again.judge(outcome, {0, 3} if draw.executor == "array" else {0}, BOUND)
        judge_run(run, truth, environment, outcome)
    left = [one.pid for one in psutil.process_iter() if _of(one, folder)]
    if left:
        outcome.broken.append(f"{len(left)} processes are left")
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return outcome


def write_job(draw: Draw, folder: Path, run: Path, there: OwnScheduler | None) -> NDArray[np.uint8]:
    """Write image, model and job; returns the mask that is meant."""
    dice = np.random.default_rng(draw.seed)
    rows = dice.integers(0, 3, (1, SIDE, SIDE)).astype(np.uint8)
    truth: NDArray[np.uint8] = rows[0].copy()
    if draw.fault in POISON:
        y, x = (int(dice.integers(0, SIDE // CORE)) * CORE + CORE // 2 for _ in range(2))
        rows[0, y, x], truth[y, x] = BAD, 0
        (folder / "poison").write_text(draw.fault)
    grid = utm_grid((SIDE, SIDE), resolution=10)
    write_image(folder / "scene.tif", grid=grid, rows=[rows], names=["b1"], dtype="uint8")
    (folder / "model").mkdir()
    classes = [{"name": f"class {k}", "colour": f"#{k * 80:02x}8080"} for k in range(3)]
    spec = {
        "name": "chaotic",
        "licence": "CC0-1.0",
        "engine": "benchmarks.chaos.network:Chaotic",
        "bands": ["b1"],
        "input_range": [0, 20],
        "normalise": {"kind": "none"},
        "activation": "none",
        "classes": classes,
        "patch": {"multiple": 16, "stride_multiple": 16, "preferred": 64},
        "margin": 0,
    }
    (folder / "model" / "model.yaml").write_text(yaml.safe_dump(spec))
    (folder / "job.yaml").write_text(
        yaml.safe_dump(
            {
                "scenes": "scene.tif",
                "model": "model",
                "tiling": {"core": CORE, "blend": "crop"},
                "output": {"dir": str(run), "preview": False},
                "cluster": section(draw, there),
                "faults": {"tile_timeout": f"{HANGS}s"} if draw.fault in HANGING else {},
            }
        )
    )
    return truth


def section(draw: Draw, there: OwnScheduler | None) -> dict[str, Any]:
    """Section `cluster` of the job."""
    if draw.executor in ("threads", "array"):
        return {"kind": "threads", "threads": 2}
    if there is not None:
        return {"kind": "address", "address": there.address, "patience": "20s", "engine_threads": 1}
    return {"kind": "local", "workers": draw.workers, "threads": draw.threads, "engine_threads": 1}


class Execution:
    """Processes of one execution: one driver, or the two parts of a job array."""

    def __init__(self, draw: Draw, folder: Path, environment: dict[str, str], name: str) -> None:
        parts: list[list[str]] = [["--part", "1/2"], ["--part", "2/2"]] if draw.executor == "array" else [[]]
        self.begun, self.logs, self.processes = time.monotonic(), list[Path](), list[subprocess.Popen[bytes]]()
        for number, part in enumerate(parts):
            self.logs.append(folder / f"{name}-{number}.log")
            with self.logs[-1].open("wb") as log:
                command = [sys.executable, "-m", "tilesseg", "run", str(folder / "job.yaml"), *part]
                self.processes.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
                )

    @property
    def over(self) -> bool:
        return all(process.poll() is not None for process in self.processes)

    def judge(self, outcome: Outcome, codes: set[int], bound: float) -> None:
        """Wait for the end, and compare codes and messages with what may be."""
        for process, log in zip(self.processes, self.logs, strict=True):
            try:
                code: int | None = process.wait(max(1.0, self.begun + bound - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
                _kill_family(process.pid)
                process.wait(30)
            outcome.codes.append(code)
            said = log.read_text(errors="replace")
            if code not in codes | ({0} if len(self.processes) > 1 else set()):
                outcome.broken.append(f"{log.stem}: code {code}, not {sorted(codes)}: {said[-300:]}")
            if "Traceback" in said and (code is None or code >= 0):
                outcome.broken.append(f"{log.stem}: a traceback: {said[-600:]}")
        outcome.seconds = max(outcome.seconds, round(time.monotonic() - self.begun, 1))


def strike(draw: Draw, execution: Execution, folder: Path, run: Path, there: OwnScheduler | None) -> None:
    """Let the fault strike once enough tiles are done, unless it is there from the beginning or comes later."""
    if draw.fault in (*POISON, *SHARDS):
        return
    done = run / "scenes" / "scene" / "done"
    while not execution.over and len(list(done.glob("r*.json"))) < draw.after:
        time.sleep(0.02)
    driver = execution.processes[draw.seed % len(execution.processes)]
    if draw.fault in SIGNALS:
        _signal(driver, getattr(signal, draw.fault.partition(" ")[0]))
    elif draw.fault in WORKERS:
        workers = [one.pid for one in psutil.process_iter() if _of(one, folder) and role(one.pid) == "worker"]
        for pid in workers[: 1 if draw.fault == WORKERS[0] else None]:
            os.kill(pid, signal.SIGKILL)
    elif draw.fault == DISK:
        fill(folder / "disk")
    elif there is not None:
        there.kill_scheduler() if draw.fault == SCHEDULER else there.kill_nannies()


def lift(
    draw: Draw, folder: Path, run: Path, there: OwnScheduler | None, environment: dict[str, str], outcome: Outcome
) -> None:
    """Take the fault away; or damage what is stored, and have it found."""
    (folder / "poison").unlink(missing_ok=True)
    (folder / "disk" / "filling").unlink(missing_ok=True)
    if there is not None and draw.fault in ENDS:
        there.start()
    if draw.fault in SHARDS:
        damage(draw, run)
        code = verify(run, environment)
        if code != 3:
            outcome.broken.append(f"verify ends with {code} where {draw.fault}")


def damage(draw: Draw, run: Path) -> None:
    """Damage the shard of one of the done tiles."""
    dice = random.Random(draw.seed)
    scene = run / "scenes" / "scene"
    shards = sorted(path for path in (scene / "mask.zarr" / "c").rglob("*") if path.is_file())
    path = dice.choice(shards)
    data = bytearray(path.read_bytes())
    match draw.fault:
        case "a shard is altered":
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "a shard is torn":
            path.write_bytes(data[: len(data) // 2])
        case "a shard is missing":
            path.unlink()
        case "a shard is an older one":
            other = dice.choice([one for one in shards if one.read_bytes() != bytes(data)])
            path.write_bytes(other.read_bytes())
        case _:
            dice.choice(sorted((scene / "done").glob("r*.json"))).unlink()


def judge_run(run: Path, truth: NDArray[np.uint8], environment: dict[str, str], outcome: Outcome) -> None:
    """Compare mask and account with those of a quiet run."""
    store = RunDirectory(run).scene("scene")
    mask = store.read(Window(0, 0, SIDE, SIDE))
    if not np.array_equal(mask, truth):
        outcome.broken.append(f"the mask differs in {np.count_nonzero(mask != truth)} pixels")
    (scene,) = job_status(run).scenes
    if (scene.state, scene.done, len(scene.failed)) != ("complete", TILES, 0):
        outcome.broken.append(f"{scene.state}: done {scene.done}, failed {len(scene.failed)} of {TILES}")
    if (code := verify(run, environment)) != 0:
        outcome.broken.append(f"verify ends with {code} at the end")


def verify(run: Path, environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "tilesseg", "verify", str(run)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=BOUND).returncode


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """File system of a few MB in a folder; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _kill_family(pid: int) -> None:
    for one in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
        one.kill()


def _of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process was started for the seed of a folder."""
    try:
        own: bool = process.pid != os.getpid() and process.environ().get(FOLDER) == str(folder)
    except (psutil.Error, OSError):
        return False
    return own and process.status() != psutil.STATUS_ZOMBIE
