"""Products: from the stored mask of a scene to the files that people open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg import __version__
from tilesseg.errors import FormatError
from tilesseg.events import ProductWritten
from tilesseg.finishing import with_levels, with_pieces
from tilesseg.formats import FORMATS, Check, Mask, MaskClass, Scores, Writer, resolve
from tilesseg.preview import write_quick_look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tilesseg import job as jobs
    from tilesseg.executors import Executor
    from tilesseg.finding import Scene
    from tilesseg.models.spec import ModelSpec
    from tilesseg.plan import Plan
    from tilesseg.scenes import ScenePlan
    from tilesseg.store import Store
    from tilesseg.tiling import Tiling


def write_products(
    store: Store, plan: Plan, scene: ScenePlan, output: jobs.Output, *, executor: Executor, threads: int = 1
) -> Iterator[ProductWritten]:
    """Write every product of a scene that is asked for.

    Raises:
        FormatError: a product cannot be written.
    """
    products = [resolved(product, scene) for product in output.products]
    with ExitStack() as until_all_are_written:
        masks = _Masks(mask_of(store, plan, scene), store, scene.tiling, executor, until_all_are_written)
        for product in products:
            start = time.perf_counter()
            path = product_path(store, scene, product)
            if product.beside is None:  # a folder in somebody's image is made by the writer that fills it
                path.parent.mkdir(parents=True, exist_ok=True)
            write: Writer = resolve(str(FORMATS[product.format].writes))
            scores = FORMATS[product.format].kind == "scores"
            content = scores_of(store, plan, scene, product.classes) if scores else masks.for_writer(product)
            write(content, path, threads=threads, **_options(product))
            yield ProductWritten(scene.name, str(path), round(time.perf_counter() - start, 3))
        if output.preview and products:
            start = time.perf_counter()
            path = _quick_look_path(store, scene, products[0])
            write_quick_look(path, source=scene.open_for_tiles(store.folder), mask=masks.with_levels)
            yield ProductWritten(scene.name, str(path), round(time.perf_counter() - start, 3))


@dataclass
class _Masks:
    """A scene's mask as its writers take it; what the workers make for it is made once, when it is first wanted."""

    plain: Mask
    store: Store
    tiling: Tiling
    executor: Executor
    kept: ExitStack
    """Until when that is kept."""

    def for_writer(self, product: jobs.Product) -> Mask:
        """With polygons, with levels, or as it is."""
        if FORMATS[product.format].kind == "polygons":
            return self._with_pieces
        return self.with_levels if _wants_levels(product) else self.plain

    @cached_property
    def _with_pieces(self) -> Mask:
        return self.kept.enter_context(with_pieces(self.plain, self.store, self.tiling, self.executor))

    @cached_property
    def with_levels(self) -> Mask:
        """With levels."""
        return self.kept.enter_context(with_levels(self.plain, self.store, self.executor))


def _options(product: jobs.Product) -> dict[str, Any]:
    """What the writer takes; the classes of scores are chosen before it sees them."""
    chosen = FORMATS[product.format].kind == "scores"
    return {key: value for key, value in product.options.items() if not (chosen and key == "classes")}


def _wants_levels(product: jobs.Product) -> bool:
    """Whether a writer takes the levels that the workers make."""
    return (product.overviews, product.resolution) == ("mode", "model")


def resolved(product: jobs.Product, scene: ScenePlan) -> jobs.Product:
    """The product with its format decided: OME-TIFF for what is measured in micrometres, else COG."""
    if product.format != "auto":
        return product
    return product.model_copy(update={"format": "ome-tiff" if scene.grid.unit == "micrometre" else "cog"})


def check_job(plan: Plan, scenes: Sequence[Scene], output: jobs.Output) -> None:
    """Refuse, before any image is opened, products that could be written of no scene or would destroy something.

    Raises:
        FormatError: two products would have one path, one would replace an image, or it needs scores that are not
            stored.
    """
    for product in output.products:
        if product.format != "auto" and FORMATS[product.format].kind == "scores":
            _check_scores(plan, product)
    given = [(product, product.path) for product in output.products if product.path is not None]
    images = {os.path.realpath(path): path for scene in scenes for path in scene.paths} if given else {}
    taken: dict[str, str] = {}
    for product, template in given:
        for scene in scenes:
            place, what = os.path.realpath(template.replace("{scene}", scene.name)), _what(product, scene.name)
            _refuse_image(place, what, images)
            if place in taken:
                both = f"{place} is {taken[place]} and {what}"
                raise FormatError(f"{both}; put {{scene}} into the path, or give each its own")
            taken[place] = what


def check_products(store: Store, plan: Plan, scene: ScenePlan, output: jobs.Output) -> None:
    """Refuse before a scene's first tile what could not be written after its last one, or would destroy something.

    Raises:
        FormatError: a product would replace another one or the image, its folder cannot be written, or its writer
            refuses.
    """
    images = {os.path.realpath(file): file for file in (*scene.paths, *scene.identity)}
    taken: dict[str, str] = {}
    for path, what, replaceable in _targets(store, scene, output):
        place = os.path.realpath(path)
        _refuse_image(place, what, images)
        if place in taken:
            raise FormatError(f"{path} is {taken[place]} and {what}; put {{scene}} into the path, or give each its own")
        taken[place] = what
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        in_the_way = path.is_dir() and not replaceable
        if in_the_way or not folder.is_dir() or not os.access(folder, os.W_OK):
            obstacle = path if in_the_way else folder
            raise FormatError(f"{path} cannot be written ({obstacle} is in the way); choose another path")
    _let_writers_look(store, plan, scene, output)


def _what(product: jobs.Product, scene: str) -> str:
    return f"the {'mask' if product.format == 'auto' else FORMATS[product.format].kind} of scene {scene}"


def _refuse_image(place: str, what: str, images: Mapping[str, str]) -> None:
    if place in images:
        raise FormatError(f"{what} would be written over the image {images[place]}; choose another path")


def _check_scores(plan: Plan, product: jobs.Product) -> None:
    stored = ", ".join(plan.score_classes)
    if not stored:
        raise FormatError(
            f"a {product.format} needs stored scores, and output.scores is false; set it to true, in a new run"
        )
    for name in product.classes or ():
        if name not in plan.score_classes:
            raise FormatError(
                f"a {product.format} is asked for class {name}, and scores are stored of {stored}; take these"
            )


def _let_writers_look(store: Store, plan: Plan, scene: ScenePlan, output: jobs.Output) -> None:
    for product in (resolved(one, scene) for one in output.products):
        row = FORMATS[product.format]
        if row.checks is not None:
            check: Check = resolve(row.checks)
            scores = row.kind == "scores"
            content = scores_of(store, plan, scene, product.classes) if scores else mask_of(store, plan, scene)
            check(content, product_path(store, scene, product), **_options(product))


def _targets(store: Store, scene: ScenePlan, output: jobs.Output) -> Iterator[tuple[Path, str, bool]]:
    """What is going to be written outside the ledger, what it is, and whether a folder there is the writer's affair."""
    for number, product in enumerate(resolved(one, scene) for one in output.products):
        path, row = product_path(store, scene, product), FORMATS[product.format]
        if product.beside is None and not path.name.lower().endswith(row.suffixes):
            found = path.suffix or "none"
            raise FormatError(
                f"{path} has the suffix {found}, and a {product.format} has {row.suffixes[0]}; give it that"
            )
        yield path, _what(product, scene.name), row.suffixes[0].endswith(".zarr")
        if product.format == "cog":
            yield path.with_suffix(".qml"), f"the style of scene {scene.name}", False
        if output.preview and number == 0:
            yield _quick_look_path(store, scene, product), f"the quick look of scene {scene.name}", False


def product_path(store: Store, scene: ScenePlan, product: jobs.Product) -> Path:
    """Where a product of a scene goes; its format is decided."""
    if product.beside is not None:
        return Path(scene.paths[0]) / "labels" / product.beside
    if product.path is not None:
        return Path(product.path.replace("{scene}", store.scene))
    row = FORMATS[product.format]
    return store.folder / f"{store.scene}{'-scores' if row.kind == 'scores' else ''}{row.suffixes[0]}"


def _quick_look_path(store: Store, scene: ScenePlan, product: jobs.Product) -> Path:
    """Beside the product, or in the scene's folder where the product is inside an image."""
    if product.beside is not None:
        return store.folder / f"{store.scene}.png"
    path = product_path(store, scene, product)
    suffix = next((one for one in FORMATS[product.format].suffixes if path.name.lower().endswith(one)), path.suffix)
    return path.with_name(path.name[: len(path.name) - len(suffix)] + ".png")


def mask_of(store: Store, plan: Plan, scene: ScenePlan) -> Mask:
    """A scene's mask with its place in the world, its classes and where it comes from."""
    return Mask(
        grid=scene.grid,
        read=store.read,
        classes=classes_of(plan.spec),
        provenance=_provenance(plan, scene),
        image=scene.image,
        paths=scene.paths,
    )


def scores_of(store: Store, plan: Plan, scene: ScenePlan, wanted: Sequence[str] | None = None) -> Scores:
    """A scene's stored scores of the classes wanted, or of all, as `mask_of` gives its mask."""
    names = tuple(wanted or plan.score_classes)
    places = [plan.score_classes.index(name) for name in names]
    return Scores(
        grid=scene.grid,
        read=lambda number, window: store.read_scores(places[number], window),
        classes=names,
        provenance=_provenance(plan, scene),
        image=scene.image,
    )


def classes_of(spec: ModelSpec) -> tuple[MaskClass, ...]:
    """Names and colours of the labels 0 … n − 1."""
    return tuple(MaskClass(one.name, one.rgb) for one in spec.classes)


def _provenance(plan: Plan, scene: ScenePlan) -> dict[str, str]:
    return {
        "model": plan.spec.name,
        "model_sha256": plan.model_sha256,
        "model_licence": plan.spec.licence,
        "engine": plan.choice.runtime,
        "precision": plan.choice.precision,
        "version": __version__,
        "plan_fingerprint": plan.fingerprint(scene),
        "source": ", ".join(Path(path).name for path in scene.paths),
    }
