"""Checks of a job's products before the first tile: names, targets, formats, stored scores, and each writer's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import FormatError
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.writer import Check, Mask, MaskClass, Scores
from tilesseg.formats.writing.publish import check_target, replaced_at
from tilesseg.paths import name_of
from tilesseg.planning.job import Job
from tilesseg.planning.plan import PLAN_FILE, parse_plan, plan_job
from tilesseg.planning.scene_list import find_scenes
from tilesseg.store.run_directory import RunDirectory
from tilesseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning import job as jobs
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_list import Scene
    from tilesseg.planning.scene_plan import ScenePlan, SceneRun
    from tilesseg.store.scene_store import Store


def check_job(plan: Plan, scenes: Sequence[Scene], output: jobs.Output) -> None:
    """Refuse, before any image is opened, products that can be written of no scene or would destroy something.

    Raises:
        FormatError: two products would have one path, a product would replace an image, or it needs scores that are
            not stored.
    """
    for product in output.products:
        if product.format != "auto" and FORMATS[product.format].kind == "scores":
            _check_scores(plan, product)
    with_path = [(product, product.path) for product in output.products if product.path is not None]
    images = {os.path.realpath(path): path for scene in scenes for path in scene.paths} if with_path else {}
    taken: dict[str, str] = {}
    for product, template in with_path:
        for scene in scenes:
            place, what = os.path.realpath(template.replace("{scene}", scene.name)), _name_of(product, scene.name)
            _refuse_image(place, what, images)
            if place in taken:
                both = f"{place} is {taken[place]} and {what}"
                raise FormatError(f"{both}; put {{scene}} into the path, or give each its own")
            taken[place] = what


def check_products(scene_run: SceneRun, output: jobs.Output) -> None:
    """Refuse before a scene's first tile products that cannot be written after its last one, or destroy something.

    Raises:
        FormatError: a product would replace another product or the image, its folder cannot be written, or its writer
            refuses, or a file lies in its place that this run did not write.
    """
    scene = scene_run.scene
    images = {os.path.realpath(file): file for file in (*scene.paths, *scene.identity)}
    taken: dict[str, str] = {}
    for path, what, may_replace_folder in _targets(scene_run.store, scene, output):
        place = os.path.realpath(path)
        _refuse_image(place, what, images)
        if place in taken:
            raise FormatError(f"{path} is {taken[place]} and {what}; put {{scene}} into the path, or give each its own")
        taken[place] = what
        check_target(path, folder=may_replace_folder)
    _let_writers_check(scene_run, output)
    files_there(scene_run, output)


def files_there(scene_run: SceneRun, output: jobs.Output) -> dict[Path, str]:
    """Files that lie at the targets of a scene's products, each in words (see `replaced_at`), by their paths.

    Raises:
        FormatError: a file is not of this run, and is not to be replaced.
    """
    paths = [path for path, _, _ in _targets(scene_run.store, scene_run.scene, output)]
    found = {path: replaced_at(path, scene_run.fingerprint, overwrite=output.overwrite) for path in paths}
    return {path: what for path, what in found.items() if what}


def _name_of(product: jobs.Product, scene: str) -> str:
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
                f"a {product.format} is requested for class {name}, and scores are stored of {stored}; "
                "choose among these"
            )


def _let_writers_check(scene_run: SceneRun, output: jobs.Output) -> None:
    for product in (resolved(product, scene_run.scene) for product in output.products):
        row = FORMATS[product.format]
        if row.checks is not None:
            check: Check = resolve(row.checks)
            content = scores_of(scene_run, product.classes) if row.kind == "scores" else mask_of(scene_run)
            check(content, product_path(scene_run.store, scene_run.scene, product), **writer_options(product))


def _targets(store: Store, scene: ScenePlan, output: jobs.Output) -> Iterator[tuple[Path, str, bool]]:
    """(path, description, may_replace_folder) of every file that this scene's products create."""
    for number, product in enumerate(resolved(product, scene) for product in output.products):
        path, row = product_path(store, scene, product), FORMATS[product.format]
        if product.beside is None and not path.name.lower().endswith(row.suffixes):
            suffix = path.suffix or "none"
            raise FormatError(
                f"cannot write {path} as {product.format}: its suffix is {suffix}; give it the suffix {row.suffixes[0]}"
            )
        yield path, _name_of(product, scene.name), row.suffixes[0].endswith(".zarr")
        if product.format == "cog":
            yield path.with_suffix(".qml"), f"the style of scene {scene.name}", False
        if output.preview and number == 0:
            yield quick_look_path(store, scene, product), f"the quick look of scene {scene.name}", False


def writer_options(product: jobs.Product) -> dict[str, Any]:
    """Options for a product's writer; the classes of scores are chosen before."""
    chosen = FORMATS[product.format].kind == "scores"
    return {key: value for key, value in product.options.items() if not (chosen and key == "classes")}


def resolved(product: jobs.Product, scene: ScenePlan) -> jobs.Product:
    """The product with its format decided: OME-TIFF for an image measured in micrometres, else COG."""
    if product.format != "auto":
        return product
    return product.model_copy(update={"format": "ome-tiff" if scene.grid.unit == "micrometre" else "cog"})


def product_path(store: Store, scene: ScenePlan, product: jobs.Product) -> Path:
    """Path of a product whose format is decided."""
    if product.beside is not None:
        return Path(scene.paths[0]) / "labels" / product.beside
    if product.path is not None:
        return Path(product.path.replace("{scene}", store.scene))
    row = FORMATS[product.format]
    return store.folder / f"{store.scene}{'-scores' if row.kind == 'scores' else ''}{row.suffixes[0]}"


def quick_look_path(store: Store, scene: ScenePlan, product: jobs.Product) -> Path:
    """Path beside the product, or in the scene's folder where the product is inside an image."""
    if product.beside is not None:
        return store.folder / f"{store.scene}.png"
    path = product_path(store, scene, product)
    endings = (ending for ending in FORMATS[product.format].suffixes if path.name.lower().endswith(ending))
    suffix = next(endings, path.suffix)
    return path.with_name(path.name[: len(path.name) - len(suffix)] + ".png")


def mask_of(scene_run: SceneRun) -> Mask:
    """A scene's mask with its place in the world, its classes and its provenance."""
    scene = scene_run.scene
    return Mask(
        grid=scene.grid,
        read=scene_run.store.read,
        classes=classes_of(scene_run.plan.spec),
        provenance=_provenance(scene_run),
        image=scene.image,
        paths=scene.paths,
    )


def scores_of(scene_run: SceneRun, wanted: Sequence[str] | None = None) -> Scores:
    """A scene's stored scores of the classes wanted, or of all, as `mask_of` gives its mask."""
    stored, store = scene_run.plan.score_classes, scene_run.store
    names = tuple(wanted or stored)
    places = [stored.index(name) for name in names]
    return Scores(
        grid=scene_run.scene.grid,
        read=lambda number, window: store.read_scores(places[number], window),
        classes=names,
        provenance=_provenance(scene_run),
        image=scene_run.scene.image,
    )


def classes_of(spec: ModelSpec) -> tuple[MaskClass, ...]:
    """Names and colours of the labels 0 … n − 1."""
    return tuple(MaskClass(label.name, label.rgb) for label in spec.classes)


def _provenance(scene_run: SceneRun) -> dict[str, str]:
    plan = scene_run.plan
    return {
        "model": plan.spec.name,
        "model_sha256": ", ".join(plan.sha256s),
        "model_licence": plan.spec.licence,
        "engine": ", ".join(dict.fromkeys(choice.runtime for choice in plan.choices)),
        "precision": ", ".join(dict.fromkeys(choice.precision for choice in plan.choices)),
        "version": __version__,
        "plan_fingerprint": scene_run.fingerprint,
        "source": ", ".join(map(name_of, scene_run.scene.paths)),
    }


def check_submission(job: Job) -> None:
    """Refuse on this machine everything that can be refused without an image, a worker or a GPU.

    Raises:
        TilessegError: no scene, no model, a product that cannot be written, or a run that was planned differently.
    """
    directory = RunDirectory(Path(job.output.dir))
    directory.refuse_occupied()
    begun = directory.path.exists() and directory.any_done()
    stored = parse_plan(directory.read_json(PLAN_FILE), where=directory.path) if begun else None
    plan = plan_job(job, None, stored=stored)  # engine and precision are for the machine that will compute to decide
    check_job(plan, find_scenes(job.scenes), job.output)
