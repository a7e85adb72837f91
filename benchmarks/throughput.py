"""The main job against its bare network: how much of the time does everything but the network take?

In one run, on one machine: the rate of `model.predict` alone, in as many processes with as many engine threads as the
job has, on batches of the job's own shape; then the job over a generated landscape; then the bare rate again.
    overhead = time of the tiles ÷ (predicted pixels ÷ bare rate)
once by wall time, and once by processor time, which neighbours on a shared machine disturb less.

    python benchmarks/throughput.py --size 4096 --settings 1x2x2 2x1x1 2x1x2 --patches 1216
where a setting is worker processes x engine threads x tiles at a time in each worker.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from tilesseg.cluster import ask_workers, connect
from tilesseg.events import Event, ScenePlanned, TileDone
from tilesseg.formats.image import utm_grid, write_image
from tilesseg.job import parse_job
from tilesseg.models import load_model
from tilesseg.models.receptive import unet_margin
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet import UNet
from tilesseg.planning import stored_plan
from tilesseg.recipes import WORKER_ENVIRONMENT
from tilesseg.run import run_job
from tilesseg.store import RunDirectory
from tilesseg.synthetic import BANDS, CLASSES, landscape
from tilesseg.window import Window

SHAPE = UNetShape(depth=4, width=16)


def write_scene(path: Path, size: int) -> Path:
    rows = (
        landscape((size, size), 1, window=Window(y, 0, min(512, size - y), size)).bands for y in range(0, size, 512)
    )
    return write_image(path, grid=utm_grid((size, size), resolution=10), rows=rows, names=BANDS, dtype="uint16")


def write_model(folder: Path) -> Path:
    """A U-Net with random weights."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder.mkdir()
    weights = folder / "weights.safetensors"
    save_file(UNet(len(BANDS), len(CLASSES), SHAPE).state_dict(), weights)
    spec = {
        "name": "random-unet",
        "licence": "CC0-1.0",
        "engine": "unet",
        "unet": {"depth": SHAPE.depth, "width": SHAPE.width},
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
        "bands": list(BANDS),
        "input_range": [0, 10000],
        "normalise": {"kind": "mean_std", "mean": [600.0, 850.0, 800.0, 2400.0], "std": [300.0, 300.0, 400.0, 800.0]},
        "activation": "softmax",
        "classes": [{"name": name, "colour": f"#{k * 60:02x}8080"} for k, name in enumerate(CLASSES)],
        "patch": {"multiple": 16, "stride_multiple": 16},
        "margin": unet_margin(SHAPE),
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec))
    return folder


@dataclass(frozen=True)
class Setting:
    """Worker processes, engine threads and tiles at a time in each."""

    workers: int
    engine: int
    threads: int

    @classmethod
    def parse(cls, text: str) -> Setting:
        return cls(*map(int, text.split("x")))

    def __str__(self) -> str:
        return f"{self.workers} x {self.engine} x {self.threads}"


class Rate(NamedTuple):
    """Predicted pixels a second."""

    wall: float
    cpu: float


def bare_rate(model: Path, patch: int, batch: int, setting: Setting, seconds: float) -> Rate:
    """Of the network alone, over all processes, each in a worker's environment; `cpu` is per second of processor."""
    environment = {**os.environ, **WORKER_ENVIRONMENT, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}
    call = [sys.executable, __file__, "--bare", str(model), str(patch), str(batch), str(setting.engine), str(seconds)]
    started = [
        subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(setting.workers)
    ]
    rates = [Rate(*map(float, process.communicate()[0].split())) for process in started]
    return Rate(sum(rate.wall for rate in rates), sum(rate.cpu for rate in rates) / len(rates))


def predict_for(model: Path, patch: int, batch: int, engine: int, seconds: float) -> Rate:
    """What one process of `bare_rate` does."""
    network = load_model(model, device="cpu", threads=engine)
    patches = np.random.default_rng(0).standard_normal((batch, len(BANDS), patch, patch)).astype(np.float32)
    network.predict(patches)
    start, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        network.predict(patches)
        done += batch * patch * patch
    return Rate(done / (time.perf_counter() - start), done / (time.process_time() - used))


def run(
    folder: Path, scene: Path, model: Path, setting: Setting, tiling: dict[str, Any]
) -> tuple[dict[str, float], list[TileDone], Any]:
    """Seconds by what they were spent on, the tiles' records and the scene's plan."""
    clock: dict[str, float] = {}
    records: list[TileDone] = []

    def processor_seconds() -> float:
        return float(sum(ask_workers(executor, time.process_time).values()))

    def listen(event: Event) -> None:
        if isinstance(event, ScenePlanned):  # every worker has loaded the model and predicted twice by now
            clock["cpu"], clock["start"] = processor_seconds(), time.perf_counter()
        if isinstance(event, TileDone):
            records.append(event)
            clock["end"], clock["cpu_end"] = time.perf_counter(), processor_seconds()

    cluster = {
        "workers": setting.workers,
        "engine_threads": setting.engine,
        "threads": setting.threads,
        "device": "cpu",
    }
    job = {
        "scenes": str(scene),
        "model": str(model),
        "tiling": tiling,
        "output": {"dir": str(folder)},
        "cluster": cluster,
    }
    asked = parse_job(job, where="benchmark")
    begin = time.perf_counter()
    with connect(asked.cluster, "cpu") as executor:
        run_job(asked, executor=executor, listeners=[listen])
    whole = time.perf_counter() - begin
    plan = stored_plan(RunDirectory(folder).scene(scene.stem))
    assert plan is not None
    return (
        {"tiles": clock["end"] - clock["start"], "job": whole, "cpu": clock["cpu_end"] - clock["cpu"]},
        records,
        plan,
    )


def compare(
    folder: Path, scene: Path, model: Path, setting: Setting, tiling: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        patch, batch = int(tiling["patch"]), int(tiling.get("batch", 1))
        before = bare_rate(model, patch, batch, setting, seconds)
        spent, records, plan = run(Path(place) / "run", scene, model, setting, {**tiling, "batch": batch})
        after = bare_rate(model, patch, batch, setting, seconds)
    wall, cpu = ((one + two) / 2 for one, two in zip(before, after, strict=True))
    predicted = sum(record.patches for record in records) * patch**2
    parts: Counter[str] = Counter()
    for record in records:
        parts.update(record.seconds)
    busy = sum(parts.values())
    return {
        "setting": str(setting),
        "patch": patch,
        "blend": plan.layout.blend,
        "overhead": round(spent["tiles"] * wall / predicted, 3),
        "cpu_overhead": round(spent["cpu"] * cpu / predicted, 3),
        "bare_mpx_s": [round(rate.wall / 1e6, 3) for rate in (before, after)],
        "bare_mpx_cpu_s": [round(rate.cpu / 1e6, 3) for rate in (before, after)],
        "scene_mpx_s": round(plan.grid.width * plan.grid.height / spent["tiles"] / 1e6, 3),
        "work_factor": round(predicted / (plan.grid.width * plan.grid.height), 3),
        "seconds": {part: round(seconds, 1) for part, seconds in spent.items()},
        "peak_mb": round(max(record.peak_mb for record in records)),
        "shares": {part: round(seconds / busy, 3) for part, seconds in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument(
        "--settings", type=Setting.parse, nargs="+", default=[Setting(1, 2, 2), Setting(2, 1, 1), Setting(2, 1, 2)]
    )
    parser.add_argument("--patches", type=int, nargs="+", default=[1216])
    parser.add_argument("--blend", default="crop", choices=["crop", "gaussian"])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the bare network runs, before and after")
    parser.add_argument("--bare", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.bare:
        model, patch, batch, engine, seconds = asked.bare
        print(*predict_for(Path(model), int(patch), int(batch), int(engine), float(seconds)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, model = write_scene(folder / "scene.tif", asked.size), write_model(folder / "model")
        for _ in range(asked.repeat):
            for patch in asked.patches:
                for setting in asked.settings:
                    tiling = {"patch": patch, "blend": asked.blend}
                    print(json.dumps(compare(folder, scene, model, setting, tiling, asked.seconds)), flush=True)


if __name__ == "__main__":
    main()
