"""Further products of a finished run; its images are not segmented again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.errors import StoreError
from tilesseg.events import Listener, Note, tell
from tilesseg.planning.job import Output, Product
from tilesseg.planning.product_checks import check_job, check_products
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import open_run_directory, stored_scene_plan
from tilesseg.process import available_cores
from tilesseg.reporting.results import report_of
from tilesseg.run.write_products import write_products


def export_run(directory: Path, product: Product, *, listeners: Sequence[Listener] = ()) -> None:
    """Write a further product of every scene of a run.

    Raises:
        StoreError: the directory is no run directory, or tiles are still missing.
        FormatError: the product cannot be written.
    """
    run, plan = open_run_directory(directory)
    output = Output(dir=str(directory), products=(product,), preview=False)
    scenes_of_job = read_scene_list(run.path / SCENE_LIST)
    check_job(plan, scenes_of_job, output)
    report = report_of(run, plan, names=[scene.name for scene in scenes_of_job])
    for scene in report.scenes:
        if scene.missing or not scene.planned:
            how_many = f"{scene.missing} of {scene.tiles}" if scene.planned else "all"
            raise StoreError(
                f"cannot export scene {scene.scene}: {how_many} tiles are still to do; finish it with tilesseg run"
            )
        if scene.refused:
            tell(listeners, Note(f"{scene.scene}: no product is written, it was refused: {scene.refused}"))
    stores = [run.scene(scene.scene) for scene in report.scenes if scene.done]
    scene_runs = [SceneRun(store, plan, planned) for store in stores if (planned := stored_scene_plan(store))]
    for scene_run in scene_runs:
        check_products(scene_run, output)
    threads = available_cores()
    for scene_run in scene_runs:
        executor = ThreadExecutor(threads)
        for written in write_products(scene_run, output, executor=executor, threads=threads):
            tell(listeners, written)
