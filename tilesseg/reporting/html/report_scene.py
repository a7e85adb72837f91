"""Values of the article about a scene in `report.html`: pictures, classes, a map of its tiles, seams, its origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import TilessegError, joined_lines
from tilesseg.events import TileDone, TileFailed
from tilesseg.monitoring.humanize import duration, pixels
from tilesseg.paths import name_of, without_secrets
from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window
from tilesseg.reporting.html.report_pictures import Pictures, pictures_of
from tilesseg.reporting.html.report_sections import (
    ClassRow,
    TimeShares,
    class_rows,
    time_shares,
)
from tilesseg.reporting.html.seam_statistics import SeamScore, measure_seams
from tilesseg.reporting.html.svg_charts import MapLayout, TileOutcome, lay_out_map

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan, SceneRun
    from tilesseg.reporting.results import SceneReport
    from tilesseg.store.scene_store import Store


class SceneLimits(NamedTuple):
    """Limits of the effort for a scene."""

    picture: int
    """Long side of its pictures, in pixels."""
    squares: int
    """Squares of its map."""
    pixels: int
    """Pixels to read for its seam score."""


@dataclass(frozen=True, slots=True)
class SeamFacts:
    """Seam scores of a scene, or why there are none."""

    problem: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    pairs: int = 0
    """Pairs of labels across borders of patches."""
    sampled: float = 1.0
    """Share of the scene's pixels that were read."""


@dataclass(frozen=True, slots=True)
class SceneDetails:
    """Values of a scene that is planned and can be read."""

    size: str
    pictures: Pictures
    classes: Sequence[ClassRow]
    tile_map: MapLayout
    times: TimeShares
    seams: SeamFacts
    origin: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """Values of an article: details of a scene, or why there are none."""

    report: SceneReport
    anchor: str
    details: SceneDetails | None = None
    problem: str = ""


def scene_details(scene_run: SceneRun, report: SceneReport, limits: SceneLimits) -> SceneDetails:
    """Gather what the page shows of a scene."""
    store, plan, scene = scene_run.store, scene_run.plan, scene_run.scene
    return SceneDetails(
        _size(scene),
        pictures_of(scene_run, report, size=limits.picture),
        class_rows(report, plan.spec),
        _map(scene, store.done(), store.failed(), limits.squares),
        time_shares(report.seconds),
        _seams(store, scene, report, limits.pixels),
        _origin(plan, scene, report),
    )


def _size(scene: ScenePlan) -> str:
    height, width = scene.grid.shape
    across, unit = scene.grid.resolution[1], {"metre": "m", "micrometre": "µm", "degree": "°"}.get(scene.grid.unit)
    return f"{height:,} × {width:,} px" + (f" of {across:.4g} {unit}" if unit else "")


def _map(scene: ScenePlan, done: Mapping[str, TileDone], failed: Mapping[str, TileFailed], most: int) -> MapLayout:
    tiling = scene.tiling
    tiles = {
        (tile.row, tile.column): _outcome(tile.name, done.get(tile.name), failed.get(tile.name)) for tile in tiling
    }
    return lay_out_map((tiling.rows, tiling.columns), tiles, shape=scene.grid.shape, most=most)


def _outcome(name: str, done: TileDone | None, failed: TileFailed | None) -> TileOutcome:
    if done is not None:
        again = f", attempt {done.attempts}" if done.attempts > 1 else ""
        wall = done.wall or sum(done.seconds.values())
        text = f"{name}: {duration(wall)}, {done.patches} patches, {done.worker}{again}"
        return TileOutcome("done" if done.patches else "skipped", wall, text)
    if failed is not None:
        return TileOutcome("failed", 0.0, f"{name} failed: {without_secrets(failed.reason)}")
    return TileOutcome("left", 0.0, f"{name}: not tried yet")


def _seams(store: Store, scene: ScenePlan, report: SceneReport, budget: int) -> SeamFacts:
    """Seam scores of the labels, and of the scores where they are stored."""
    if not report.done:
        return SeamFacts("No tile is done yet.")
    store = store.of_done_tiles(scene.tiling)
    try:
        measured = {"labels": measure_seams(scene.tiling, _labels(store, scene), budget=budget)}
        classes = min(len(store.score_classes), 4)
        if classes:
            read = _scores(store, classes)
            measured["scores"] = measure_seams(scene.tiling, read, scores=True, budget=budget // classes)
    except (TilessegError, OSError, ValueError) as error:
        return SeamFacts(f"Not measured: {without_secrets(joined_lines(error))}")
    rows = {
        f"{values}, {where}": _score(score)
        for values, result in measured.items()
        for where, score in (("patches", result.patches), ("cores", result.cores))
    }
    return SeamFacts("", rows, measured["labels"].patches.pairs, measured["labels"].sampled)


def _labels(store: Store, scene: ScenePlan) -> Callable[[Window], NDArray[np.uint8]]:
    """Labels, with nodata outside the region of interest: its rim follows the lattice."""

    def read(window: Window) -> NDArray[np.uint8]:
        labels = np.array(store.read(window))
        for part in scene.cells.inside(window, in_roi=False) if scene.cells else ():
            labels[part.slices(window)] = NODATA
        return labels

    return read


def _scores(store: Store, classes: int) -> Callable[[Window], NDArray[np.uint8]]:
    return lambda window: np.stack([store.read_scores(number, window) for number in range(classes)])


def _score(score: SeamScore) -> str:
    if score.ratio is None:
        return score.verdict
    return f"{score.ratio:.2f} ± {2 * score.error:.2f}: {score.verdict}"


def _origin(plan: Plan, scene: ScenePlan, report: SceneReport) -> dict[str, str]:
    """Origin of the mask of a scene, and its products; empty values are not shown."""
    layout = scene.layout
    names = [name_of(path) for path in scene.paths]
    more = f" and {len(names) - 4:,} more" if len(names) > 4 else ""
    crs = re.search(r'"([^"]+)"', scene.grid.crs or "")
    return {
        "image": ", ".join(names[:4]) + more,
        "CRS": crs.group(1) if crs else "",
        "patches": f"{layout.lattice.patch} px every {layout.lattice.stride} px, batch {layout.batch}",
        "blend": layout.blend,
        "cores": f"{layout.core[0]:,} × {layout.core[1]:,} px",
        "predicted": f"{report.patches:,} patches, {pixels(report.patches * layout.lattice.patch**2)}",
        "smaller batches": f"{report.reduced:,} tiles, because device memory was short" if report.reduced else "",
        "outside the region of interest": pixels(report.outside) if report.outside else "",
        "fingerprint": scene.fingerprint(plan),
        "products": ", ".join(Path(path).name for path in report.products) or "none yet",
        "notes": without_secrets("; ".join(scene.notes)),
    }
