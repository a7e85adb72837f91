"""Many scenes: finding them, planning them, finding them finished. Real files, real run directories, no cluster."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.parts import memory as cheap
from benchmarks.parts.slides import write_model as write_slide_model
from benchmarks.parts.slides import write_slide
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import plan_job
from tilesseg.planning.scene_list import find_scenes
from tilesseg.planning.stored_plan import try_scene
from tilesseg.run.finish_scene import finished_before
from tilesseg.run.prepare_run import prepare
from tilesseg.run.run_job import job_status, run_job
from tilesseg.store.run_directory import RunDirectory

FOLDERS = 100
SLOTS = 64
MB = 1e6


def measure(files: int, planned: int, finished: int) -> dict[str, Any]:
    """Every figure, printed as it comes."""
    with tempfile.TemporaryDirectory() as place:
        folder, found = Path(place), dict[str, Any]()
        for name, step in (
            ("begin", lambda: begin(folder / "begin", files)),
            ("plan_geotiff", lambda: plan(folder / "geotiff", planned, slides=False)),
            ("plan_slide", lambda: plan(folder / "slide", max(1, planned // 4), slides=True)),
            ("finished", lambda: resume(folder / "finished", finished)),
        ):
            found[name] = step()
            print(name, found[name], flush=True)
    return found


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    answer = work()
    return time.perf_counter() - begun, answer


def ask(folder: Path, pattern: str, model: Path, **output: Any) -> Job:
    products = {"products": [], "preview": False, **output}
    return parse_job(
        {"scenes": pattern, "model": str(model), "output": {"dir": str(folder / "run"), **products}}, where="benchmark"
    )


def begin(folder: Path, files: int) -> dict[str, float]:
    """From nothing to the first tile of a job of so many images: all are found, chosen, listed, one is planned."""
    folder.mkdir()
    model = cheap.write_model(folder / "model")
    for number in range(files):
        place = folder / "images" / f"{number % FOLDERS:02}"
        if number < FOLDERS:
            place.mkdir(parents=True)
        (place / f"scene-{number:06}.tif").touch()
    first = folder / "images" / "00" / "scene-000000.tif"
    first.unlink(missing_ok=True)
    cheap.write_scene(first, (256, 256))
    me = psutil.Process()
    before = me.memory_info().rss
    job = ask(folder, f"{folder}/images/**/*.tif", model)
    listing, found = timed(lambda: find_scenes(job.scenes))
    context = prepare(job, Machine("cpu", 1, SLOTS))
    seconds, ready = timed(context.__enter__)
    size = (folder / "run" / "scenes.jsonl").stat().st_size
    held = me.memory_info().rss - before
    context.__exit__(None, None, None)
    assert len(ready.scenes) == len(found) == max(files, 1)
    return {"scenes": len(found), "list": listing, "prepare": seconds, "bytes": held, "scenes_jsonl": size}


def plan(folder: Path, count: int, *, slides: bool) -> dict[str, float]:
    """Seconds of planning a scene, of images whose headers are real and whose pixels are few."""
    images = folder / "images"
    images.mkdir(parents=True)
    if slides:
        suffix, model = "svs", write_slide_model(folder / "model")
        write_slide(images / "scene-000000.svs", (4096, 6144), share=0.3)
    else:
        suffix, model = "tif", cheap.write_model(folder / "model", bands=3, margin=96)
        cheap.write_scene(images / "scene-000000.tif", (2048, 2048), bands=3)
    for number in range(1, count):
        shutil.copy(images / f"scene-000000.{suffix}", images / f"scene-{number:06}.{suffix}")
    job = ask(folder, f"{images}/*.{suffix}", model, products=[{"format": "auto"}])
    planned, run = plan_job(job, Machine("cpu", 1, SLOTS)), RunDirectory.create(folder / "run")
    spent = time.process_time()
    every = sorted(
        timed(lambda scene=scene: try_scene(scene, run=run, plan=planned, job=job))[0]  # type: ignore[misc]
        for scene in find_scenes(job.scenes)
    )
    spent = time.process_time() - spent
    store = run.scene("scene-000000")
    assert store.read_json("refused.json") is None, store.read_json("refused.json")
    files = sum(1 for _ in _files(store.folder))
    return {"scenes": count, "median": every[count // 2], "cpu": spent / count, "files": files}


def resume(folder: Path, count: int) -> dict[str, float]:
    """A job of small scenes from end to end; then what it takes to see that nothing is left to do."""
    images = folder / "images"
    images.mkdir(parents=True)
    model = cheap.write_model(folder / "model")
    cheap.write_scene(images / "scene-000000.tif", (128, 128))
    for number in range(1, count):
        shutil.copy(images / "scene-000000.tif", images / f"scene-{number:06}.tif")
    job = ask(folder, f"{images}/*.tif", model, products=[{"format": "auto"}])
    spent = time.process_time()
    whole, _ = timed(lambda: run_job(job, executor=SerialExecutor()))
    spent = time.process_time() - spent
    files = sum(1 for _ in _files(folder / "run"))
    run, machine = RunDirectory(folder / "run"), Machine("cpu", 1, 1)
    planned, found = plan_job(job, machine), find_scenes(job.scenes)
    cpu = time.process_time()
    look, states = timed(
        lambda: [finished_before(one, store=run.scene(one.name), plan=planned, output=job.output) for one in found]
    )
    cpu = time.process_time() - cpu
    assert all(states)
    again, report = timed(lambda: run_job(job, executor=SerialExecutor()))
    assert report.exit_code == 0
    status, _ = timed(lambda: job_status(folder / "run"))
    summary = (folder / "run" / "summary.json").stat().st_size
    return {
        "scenes": count, "first": whole / count, "first_cpu": spent / count, "finished_before": look / count,
        "finished_cpu": cpu / count, "again": again / count,
        "status": status / count, "files": files / count, "summary_bytes": summary / count,
    }  # fmt: skip


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
