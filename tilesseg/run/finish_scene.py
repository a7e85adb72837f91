"""The end of a scene: its products are written, and a record says so. A run that goes on leaves such a scene alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.errors import StoreError, reason_of
from tilesseg.events import SceneFinished
from tilesseg.planning.plan import PLAN_FILE
from tilesseg.planning.scene_plan import ScenePlan, SceneRun
from tilesseg.planning.stored_plan import altered_note, changed_meanwhile, stored_scene_plan, unchanged
from tilesseg.reporting.results import OVER, SceneReport, scene_report, stored_as
from tilesseg.run.write_products import write_products
from tilesseg.store.scene_store import FINISHED_FILE, REFUSED_FILE
from tilesseg.store.shard_checks import extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tilesseg.cluster.executors import Executor
    from tilesseg.events import ProductWritten
    from tilesseg.planning import job as jobs
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_list import Scene
    from tilesseg.store.scene_store import Store


def finish_scene(
    scene_run: SceneRun,
    output: jobs.Output,
    *,
    executor: Executor,
    threads: int,
    written: Callable[[ProductWritten], None] = lambda product: None,
) -> SceneFinished:
    """Write the products of a scene whose tiles have all been tried, and store a record of its end.

    A product that cannot be written costs this scene's products, and is tried again by the next run.
    """
    scene_run.store.remove(FINISHED_FILE)  # a record of earlier products does not hold any more
    report = scene_report(scene_run)  # of now: a tile that another process does meanwhile is not in the products
    products: dict[str, float] = {}
    replaced: dict[str, str] = {}
    problem = None
    if not report.done:
        problem = "no tile could be done, so no product is written"
    elif changed := changed_meanwhile(scene_run.scene):
        problem = f"the image has changed while it was segmented: {changed}; start again in a new run directory"
    else:
        try:
            for product in write_products(scene_run, output, executor=executor, threads=threads):
                products[product.path] = product.seconds
                replaced |= {product.path: product.replaced} if product.replaced else {}
                written(product)
        except Exception as error:
            # ^ of any kind: it costs this scene's products, and the reason is in its record
            problem = _altered(scene_run) or reason_of(error)
    ended = _ended(scene_run, output, report=report, products=products, problem=problem)
    return replace(ended, replaced=replaced)


def _altered(scene_run: SceneRun) -> str | None:
    """Forget the tiles whose stored bytes are not those of their records, and say so; None where there are none.

    A product reads no such shard, see `Store.of_done_tiles`: this tells which tiles the next run has to do again.
    """
    problems = scene_run.store.forget_altered(scene_run.scene.tiling, by_bytes=True)
    return altered_note(problems, "the next run does them again, then its products") if problems else None


def without_products(scene_run: SceneRun, output: jobs.Output, *, problem: str) -> SceneFinished:
    """Record that the products of a scene could not be written: the process that wrote them has died."""
    return _ended(scene_run, output, report=scene_report(scene_run), products={}, problem=problem)


def _ended(
    scene_run: SceneRun,
    output: jobs.Output,
    *,
    report: SceneReport,
    products: dict[str, float],
    problem: str | None,
) -> SceneFinished:
    """Store the record of a scene's end."""
    report = replace(report, products=tuple(products), problem=problem)
    scene_run.store.write_json(
        FINISHED_FILE,
        {
            "fingerprint": scene_run.fingerprint,
            "asked": _hash_of(output),
            "sizes": {path: _size(Path(path)) for path in products},
            "stored": list(extent(scene_run.store.folder)),
            "report": {**asdict(report), "state": report.state},
        },
    )
    return SceneFinished(scene_run.scene.name, report.state, products, problem)


def finished_before(scene: Scene, *, store: Store, plan: Plan, output: jobs.Output) -> ScenePlan | None:
    """Plan of a scene for which nothing is left to do, else None.

    Then it is complete by this plan, its files are as they were, and every product is in its place. A few small files
    are read, no image is opened. Damage is reported when the scene's turn comes, as is a refusal since.
    """
    try:
        if store.read_json(FINISHED_FILE) is None or store.read_json(REFUSED_FILE) is not None:
            return None
        data = store.read_json(PLAN_FILE)
        if data is None or data.get("key") != plan.key(scene):
            return None
        planned = stored_scene_plan(store)
        if planned is None or still_finished(SceneRun(store, plan, planned), output) is None:
            return None
        return planned if unchanged(planned, scene.paths) else None
    except StoreError:
        return None


def still_finished(scene_run: SceneRun, output: jobs.Output) -> SceneFinished | None:
    """The earlier end of a scene that is complete and whose requested products are all there; else None."""
    store = scene_run.store
    record = store.read_json(FINISHED_FILE)
    if record is None or record["report"]["state"] not in OVER or record["asked"] != _hash_of(output):
        return None
    if record["fingerprint"] != scene_run.fingerprint or len(store.done_names()) != record["report"]["tiles"]:
        return None
    if any(_moved(record)) or not store.holds(scores=bool(scene_run.plan.scores)) or not stored_as(record, store):
        return None
    return SceneFinished(scene_run.scene.name, record["report"]["state"], dict.fromkeys(record["sizes"], 0.0))


def moved_products(store: Store) -> list[str]:
    """Problems of the products of a finished scene that are gone or have another size than they were written with."""
    record = store.read_json(FINISHED_FILE)
    return [] if record is None else list(_moved(record))


def _moved(record: Mapping[str, Any]) -> Iterator[str]:
    for path, size in record["sizes"].items():
        now = _size(Path(path))
        if now != size:
            what = "it is missing" if now is None else f"its size is {now}"
            yield f"product {path}: {what}, and it was written with {size}"


def _hash_of(output: jobs.Output) -> str:
    """Hash of the requested products."""
    wanted = output.model_dump(mode="json", include={"products", "preview"})
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _size(path: Path) -> Any:
    """Number of bytes of a file, `folder` for a folder, None where there is nothing."""
    if path.is_dir():
        return "folder"
    return path.stat().st_size if path.exists() else None
