"""Products: from the stored mask of a scene to the files that people open; also of a run that has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.errors import StoreError
from tilesseg.events import Listener, Note, ProductWritten, tell
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.writer import Mask, Writer
from tilesseg.formats.writing.preview import write_quick_look
from tilesseg.planning.job import Output, Product
from tilesseg.planning.product_checks import (
    check_job,
    check_products,
    files_there,
    mask_of,
    product_path,
    quick_look_path,
    resolved,
    scores_of,
    writer_options,
)
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import open_run_directory, stored_scene_plan
from tilesseg.process import available_cores
from tilesseg.reporting.results import report_of
from tilesseg.run.product_inputs import with_levels, with_tile_polygons

if TYPE_CHECKING:
    from tilesseg.cluster.executors import Executor
    from tilesseg.planning import job as jobs
    from tilesseg.raster.tiling import Tiling
    from tilesseg.store.scene_store import Store


def write_products(
    scene_run: SceneRun, output: jobs.Output, *, executor: Executor, threads: int = 1
) -> Iterator[ProductWritten]:
    """Write every requested product of a scene.

    Raises:
        FormatError: a product cannot be written, or a file lies in its place that this run did not write.
    """
    scene = scene_run.scene
    store = scene_run.store.of_done_tiles(scene.tiling)
    scene_run = replace(scene_run, store=store)
    there = files_there(scene_run, output)  # again: files may have come since the plan
    products = [resolved(product, scene) for product in output.products]
    with ExitStack() as until_all_are_written:
        masks = _Masks(mask_of(scene_run), store, scene.tiling, executor, until_all_are_written)
        for product in products:
            start = time.perf_counter()
            path = product_path(store, scene, product)
            if product.beside is None:  # a folder in somebody's image is made by the writer that fills it
                path.parent.mkdir(parents=True, exist_ok=True)
            write: Writer = resolve(str(FORMATS[product.format].writes))
            scores = FORMATS[product.format].kind == "scores"
            content = scores_of(scene_run, product.classes) if scores else masks.for_writer(product)
            write(content, path, threads=threads, **writer_options(product))
            seconds = round(time.perf_counter() - start, 3)
            yield ProductWritten(scene.name, str(path), seconds, there.get(path, ""))
        if output.preview and products:
            start = time.perf_counter()
            path = quick_look_path(store, scene, products[0])
            write_quick_look(path, source=scene.open_for_tiles(store.folder), mask=masks.with_levels)
            seconds = round(time.perf_counter() - start, 3)
            yield ProductWritten(scene.name, str(path), seconds, there.get(path, ""))


@dataclass
class _Masks:
    """A scene's mask as its writers take it; levels and polygons are made by workers, once, when first needed."""

    plain: Mask
    store: Store
    tiling: Tiling
    executor: Executor
    kept: ExitStack
    """Holds levels and polygons until all products are written."""

    def for_writer(self, product: jobs.Product) -> Mask:
        """The mask with polygons, with levels, or with neither, as the product needs it."""
        if FORMATS[product.format].kind == "polygons":
            return self._with_tile_polygons
        return self.with_levels if _wants_levels(product) else self.plain

    @cached_property
    def _with_tile_polygons(self) -> Mask:
        return self.kept.enter_context(with_tile_polygons(self.plain, self.store, self.tiling, self.executor))

    @cached_property
    def with_levels(self) -> Mask:
        """The mask with its coarser levels."""
        return self.kept.enter_context(with_levels(self.plain, self.store, self.executor))


def _wants_levels(product: jobs.Product) -> bool:
    """Whether a product's writer takes the levels that the workers make."""
    return (product.overviews, product.resolution) == ("mode", "model")


def export_run(
    directory: Path, product: Product, *, overwrite: bool = False, listeners: Sequence[Listener] = ()
) -> None:
    """Write a further product of every scene of a run.

    Args:
        directory: the run directory.
        product: the product.
        overwrite: whether files that the run did not write are replaced.
        listeners: called with every event, in this thread.

    Raises:
        StoreError: the directory is no run directory, or tiles are still missing.
        FormatError: the product cannot be written.
    """
    run, plan = open_run_directory(directory)
    output = Output(dir=str(directory), products=(product,), preview=False, overwrite=overwrite)
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
