"""Products: from the stored mask of a scene to the files that people open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg import __version__
from tilesseg.events import ProductWritten
from tilesseg.formats import FORMATS, Mask, MaskClass, Writer, resolve
from tilesseg.preview import write_quick_look

if TYPE_CHECKING:
    from tilesseg import job as jobs
    from tilesseg.models.spec import ModelSpec
    from tilesseg.plan import Plan
    from tilesseg.store import RunDirectory, Store

SUFFIX = {"cog": ".tif"}


def write_products(
    run: RunDirectory, plan: Plan, scene: str, output: jobs.Output, *, threads: int = 1
) -> Iterator[ProductWritten]:
    """Write every product of a scene that is asked for.

    Raises:
        FormatError: a product cannot be written.
    """
    store = run.scene(scene)
    for product in output.products:
        start = time.perf_counter()
        path = product_path(store, product)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: Writer = resolve(str(FORMATS[product.format].writes))
        writer(mask_of(store, plan), path, overviews=product.overviews, threads=threads)
        yield ProductWritten(scene, str(path), round(time.perf_counter() - start, 3))
    if output.preview and output.products:
        start = time.perf_counter()
        path = product_path(store, output.products[0]).with_suffix(".png")
        write_quick_look(path, source=plan.by_name[scene].open(), mask=mask_of(store, plan))
        yield ProductWritten(scene, str(path), round(time.perf_counter() - start, 3))


def product_path(store: Store, product: jobs.Product) -> Path:
    """Where a product of a scene goes."""
    if product.path is not None:
        return Path(product.path.replace("{scene}", store.scene))
    return store.folder / f"{store.scene}{SUFFIX[product.format]}"


def mask_of(store: Store, plan: Plan) -> Mask:
    """A scene's mask with its place on Earth, its classes and where it comes from."""
    return Mask(
        grid=plan.by_name[store.scene].grid,
        read=store.read,
        classes=classes_of(plan.spec),
        provenance=_provenance(plan, store.scene),
    )


def classes_of(spec: ModelSpec) -> tuple[MaskClass, ...]:
    """Names and colours of the labels 0 … n − 1."""
    return tuple(MaskClass(one.name, one.rgb) for one in spec.classes)


def _provenance(plan: Plan, scene: str) -> dict[str, str]:
    return {
        "model": plan.spec.name,
        "model_sha256": plan.model_sha256,
        "model_licence": plan.spec.licence,
        "version": __version__,
        "plan_fingerprint": plan.fingerprint(scene),
        "source": ", ".join(Path(path).name for path in plan.by_name[scene].paths),
    }
