"""Products: from the stored mask of a scene to the files that people open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tilesseg.events import ProductWritten
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.writer import Mask, Writer
from tilesseg.formats.writing.preview import write_quick_look
from tilesseg.planning.product_checks import mask_of, product_path, quick_look_path, resolved, scores_of, writer_options
from tilesseg.run.product_inputs import with_levels, with_tile_polygons

if TYPE_CHECKING:
    from tilesseg.cluster.executors import Executor
    from tilesseg.planning import job as jobs
    from tilesseg.planning.scene_plan import SceneRun
    from tilesseg.raster.tiling import Tiling
    from tilesseg.store.scene_store import Store


def write_products(
    scene_run: SceneRun, output: jobs.Output, *, executor: Executor, threads: int = 1
) -> Iterator[ProductWritten]:
    """Write every requested product of a scene.

    Raises:
        FormatError: a product cannot be written.
    """
    store, scene = scene_run.store, scene_run.scene
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
            yield ProductWritten(scene.name, str(path), round(time.perf_counter() - start, 3))
        if output.preview and products:
            start = time.perf_counter()
            path = quick_look_path(store, scene, products[0])
            write_quick_look(path, source=scene.open_for_tiles(store.folder), mask=masks.with_levels)
            yield ProductWritten(scene.name, str(path), round(time.perf_counter() - start, 3))


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
