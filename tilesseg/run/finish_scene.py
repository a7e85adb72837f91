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
from tilesseg.planning.plan_scene import stored_plan, unchanged
from tilesseg.reporting.results import SceneReport, scene_report
from tilesseg.run.write_products import write_products
from tilesseg.store.scene_store import FINISHED_FILE, REFUSED_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tilesseg.cluster.executors import Executor
    from tilesseg.events import ProductWritten
    from tilesseg.planning import job as jobs
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_list import Scene
    from tilesseg.planning.scene_plan import ScenePlan
    from tilesseg.store.scene_store import Store


def finish_scene(
    store: Store,
    plan: Plan,
    scene: ScenePlan,
    output: jobs.Output,
    *,
    executor: Executor,
    threads: int,
    written: Callable[[ProductWritten], None] = lambda product: None,
) -> SceneFinished:
    """Write what is asked for of a scene whose tiles have all been tried, and keep what it came to.

    A product that cannot be written costs this scene's products, and is tried again by the next run.
    """
    store.remove(FINISHED_FILE)  # what it says of earlier products does not hold any more
    report = scene_report(store, plan, scene)  # of now: a tile that another process does meanwhile is not in them
    products: dict[str, float] = {}
    problem = None
    if not report.done:
        problem = "no tile could be done, so no product is written"
    else:
        try:
            for product in write_products(store, plan, scene, output, executor=executor, threads=threads):
                products[product.path] = product.seconds
                written(product)
        except Exception as error:
            # ^ of any kind: it costs this scene's products, and the reason is in its record
            problem = reason_of(error)
    return _ended(store, plan, scene, output, report=report, products=products, problem=problem)


def without_products(store: Store, plan: Plan, scene: ScenePlan, output: jobs.Output, *, problem: str) -> SceneFinished:
    """Keep that the products of a scene could not be written: what wrote them has died."""
    return _ended(store, plan, scene, output, report=scene_report(store, plan, scene), products={}, problem=problem)


def _ended(
    store: Store,
    plan: Plan,
    scene: ScenePlan,
    output: jobs.Output,
    *,
    report: SceneReport,
    products: dict[str, float],
    problem: str | None,
) -> SceneFinished:
    """Keep what a scene came to."""
    report = replace(report, products=tuple(products), problem=problem)
    store.write_json(
        FINISHED_FILE,
        {
            "fingerprint": plan.fingerprint(scene),
            "asked": _asked(output),
            "sizes": {path: _size(Path(path)) for path in products},
            "report": {**asdict(report), "state": report.state},
        },
    )
    return SceneFinished(scene.name, report.state, products, problem)


def finished_before(scene: Scene, *, store: Store, plan: Plan, output: jobs.Output) -> ScenePlan | None:
    """Plan of a scene for which nothing is left to do, else None.

    It is complete by this plan, its files are as they were, every product is in its place. A few small files are looked
    at, no image is opened. What is damaged is told of when the scene's turn comes, as is one that was refused since.
    """
    try:
        if store.read_json(FINISHED_FILE) is None or store.read_json(REFUSED_FILE) is not None:
            return None
        data = store.read_json(PLAN_FILE)
        if data is None or data.get("key") != plan.key(scene):
            return None
        planned = stored_plan(store)
        if planned is None or still_finished(store, plan, planned, output) is None or not unchanged(planned):
            return None
        return planned
    except StoreError:
        return None


def still_finished(store: Store, plan: Plan, scene: ScenePlan, output: jobs.Output) -> SceneFinished | None:
    """The end that a scene has come to before, where it is complete and every product that is asked for is there."""
    record = store.read_json(FINISHED_FILE)
    if record is None or record["report"]["state"] != "complete" or record["asked"] != _asked(output):
        return None
    if record["fingerprint"] != plan.fingerprint(scene) or len(store.done_names()) != record["report"]["tiles"]:
        return None
    moved = any(_size(Path(path)) != size for path, size in record["sizes"].items())
    if moved or not store.holds(scores=bool(plan.scores)):
        return None
    return SceneFinished(scene.name, "complete", dict.fromkeys(record["sizes"], 0.0))


def _asked(output: jobs.Output) -> str:
    """Names what is to be written."""
    wanted = output.model_dump(mode="json", include={"products", "preview"})
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _size(path: Path) -> Any:
    """Of a file its bytes, of a folder that it is one; None where there is nothing."""
    if path.is_dir():
        return "folder"
    return path.stat().st_size if path.exists() else None
