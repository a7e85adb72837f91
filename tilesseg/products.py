"""Products: from the stored mask of a scene to the files that people open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg import __version__
from tilesseg.errors import FormatError
from tilesseg.events import ProductWritten
from tilesseg.formats import FORMATS, Mask, MaskClass, Scores, Writer, resolve
from tilesseg.preview import write_quick_look

if TYPE_CHECKING:
    from tilesseg import job as jobs
    from tilesseg.models.spec import ModelSpec
    from tilesseg.plan import Plan
    from tilesseg.store import RunDirectory, Store

SUFFIX = {"cog": ".tif", "scores-cog": "-scores.tif"}


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
        _write(product, store, plan, path, threads)
        yield ProductWritten(scene, str(path), round(time.perf_counter() - start, 3))
    if output.preview and output.products:
        start = time.perf_counter()
        path = product_path(store, output.products[0]).with_suffix(".png")
        write_quick_look(path, source=plan.by_name[scene].open_for_tiles(store.folder), mask=mask_of(store, plan))
        yield ProductWritten(scene, str(path), round(time.perf_counter() - start, 3))


def _write(product: jobs.Product, store: Store, plan: Plan, path: Path, threads: int) -> None:
    write = resolve(str(FORMATS[product.format].writes))
    if product.format == "scores-cog":
        write(scores_of(store, plan, product.classes), path, threads=threads)
    else:
        writer: Writer = write
        writer(mask_of(store, plan), path, overviews=product.overviews, threads=threads)


def check_products(run: RunDirectory, plan: Plan, output: jobs.Output) -> None:
    """Refuse before the first tile what could not be written after the last one, or would destroy something.

    Raises:
        FormatError: a product would replace another one or an image, its folder cannot be written, or it needs scores
            that are not stored.
    """
    for product in output.products:
        if product.format == "scores-cog":
            _check_scores(plan, product.classes or ())
    images = {os.path.realpath(file): file for scene in plan.scenes for file in (*scene.paths, *scene.identity)}
    taken: dict[str, str] = {}
    for path, what in _targets(run, plan, output):
        place = os.path.realpath(path)
        if place in images:
            raise FormatError(f"{what} would be written over the image {images[place]}; choose another path")
        if place in taken:
            raise FormatError(f"{path} is {taken[place]} and {what}; put {{scene}} into the path, or give each its own")
        taken[place] = what
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            obstacle = path if path.is_dir() else folder
            raise FormatError(f"{path} cannot be written ({obstacle} is in the way); choose another path")


def _check_scores(plan: Plan, wanted: Sequence[str]) -> None:
    stored = ", ".join(plan.score_classes)
    if not stored:
        raise FormatError("a scores-cog needs stored scores, and output.scores is false; set it to true, in a new run")
    for name in wanted:
        if name not in plan.score_classes:
            raise FormatError(f"a scores-cog is asked for class {name}, and scores are stored of {stored}; take these")


def _targets(run: RunDirectory, plan: Plan, output: jobs.Output) -> Iterator[tuple[Path, str]]:
    """Every file that is going to be written outside the ledger, and what it is."""
    for scene in plan.scenes:
        for number, product in enumerate(output.products):
            path, suffixes = product_path(run.scene(scene.name), product), FORMATS[product.format].suffixes
            if path.suffix.lower() not in suffixes:
                found = path.suffix or "none"
                raise FormatError(
                    f"{path} has the suffix {found}, and a {product.format} has {suffixes[0]}; give it that"
                )
            if product.format == "scores-cog":
                yield path, f"the scores of scene {scene.name}"
            else:
                yield path, f"the mask of scene {scene.name}"
                yield path.with_suffix(".qml"), f"the style of scene {scene.name}"
            if output.preview and number == 0:
                yield path.with_suffix(".png"), f"the quick look of scene {scene.name}"


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


def scores_of(store: Store, plan: Plan, wanted: Sequence[str] | None = None) -> Scores:
    """A scene's stored scores of the classes wanted, or of all, as `mask_of` gives its mask."""
    names = tuple(wanted or plan.score_classes)
    places = [plan.score_classes.index(name) for name in names]
    return Scores(
        grid=plan.by_name[store.scene].grid,
        read=lambda number, window: store.read_scores(places[number], window),
        classes=names,
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
