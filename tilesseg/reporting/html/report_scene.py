"""What `report.html` shows of one scene: pictures, classes, a map of its tiles, seams, where it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import TilessegError
from tilesseg.events import TileDone, TileFailed
from tilesseg.monitoring.humanize import duration, pixels
from tilesseg.raster.labels import NODATA
from tilesseg.raster.window import Window
from tilesseg.reporting.html.report_pictures import Pictures, pictures_of
from tilesseg.reporting.html.report_sections import class_table, facts, masked, mono, state, time_bar
from tilesseg.reporting.html.seam_statistics import Seams, SeamScore, seams
from tilesseg.reporting.html.svg_charts import Cell, tile_map

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan
    from tilesseg.reporting.results import SceneReport
    from tilesseg.store.scene_store import Store


class Room(NamedTuple):
    """What one scene may cost."""

    picture: int
    """Long side of its pictures, in pixels."""
    cells: int
    """Cells of its map."""
    pixels: int
    """Pixels to read for its seam score."""


def scene_article(store: Store, plan: Plan, scene: ScenePlan, report: SceneReport, *, anchor: str, room: Room) -> str:
    """Everything about one scene, as an article."""
    done, failed = store.done(), store.failed()
    square = scene.grid.resolution[0] * scene.grid.resolution[1] / 1e6 if scene.grid.unit == "micrometre" else None
    tiles = f"{report.done:,} of {report.tiles:,} tiles done"
    tiles += f", {len(report.failed):,} failed" if report.failed else ""
    tiles += f", {report.skipped:,} with nothing to predict" if report.skipped else ""
    return (
        f'<article id="{anchor}"><header><h3>{escape(report.scene)}</h3>{state(report.state)}'
        f'<span class="quiet">{_size(scene)} · {tiles}</span></header>'
        f"{_figures(pictures_of(store, plan, scene, report, size=room.picture), report)}"
        f'<div class="two"><div><h4>Classes</h4>{class_table(report, plan.spec, square_mm=square)}</div>'
        f"<div><h4>Seconds of each tile</h4>{_map(scene, done, failed, room.cells)}</div></div>"
        f"<h4>Where the time went</h4>{time_bar(report.seconds, label=f'Time of the tiles of {report.scene}')}"
        f'<div class="two"><div><h4>Seams</h4>{_seams(store, scene, report, room.pixels)}</div>'
        f"<div><h4>Where it comes from</h4>{_origin(plan, scene, report)}</div></div></article>"
    )


def refused_article(report: SceneReport, *, anchor: str) -> str:
    """A scene that was refused."""
    return (
        f'<article id="{anchor}"><header><h3>{escape(report.scene)}</h3>{state(report.state)}</header>'
        f"<p>{escape(masked(report.refused or ''))}</p></article>"
    )


def _size(scene: ScenePlan) -> str:
    height, width = scene.grid.shape
    across, unit = scene.grid.resolution[1], {"metre": "m", "micrometre": "µm", "degree": "°"}.get(scene.grid.unit)
    each = f" of {across:.4g} {unit}" if unit else ""
    return f"{height:,} × {width:,} px{each}"


def _figures(pictures: Pictures, report: SceneReport) -> str:
    named = escape(report.scene)
    parts = []
    for source, alt, caption in (
        (pictures.image, f"The image of {named}", "Image, stretched between its 2 and 98 % values"),
        (
            pictures.mask,
            f"The image of {named} under its mask, in the colours of the classes",
            "Mask in the colours of its classes"
            + ("" if report.done == report.tiles else "; magenta: failed or not tried yet"),
        ),
    ):
        if source:
            parts.append(f'<figure><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>')
    problem = f'<div class="missing">{escape(masked(pictures.problem))}</div>' if pictures.problem else ""
    return f'<div class="pair{" tall" if pictures.wide else ""}">{"".join(parts)}{problem}</div>'


def _map(scene: ScenePlan, done: Mapping[str, TileDone], failed: Mapping[str, TileFailed], most: int) -> str:
    tiling = scene.tiling
    cells = {(tile.row, tile.column): _cell(tile.name, done.get(tile.name), failed.get(tile.name)) for tile in tiling}
    return tile_map((tiling.rows, tiling.columns), cells, shape=scene.grid.shape, most=most)


def _cell(name: str, done: TileDone | None, failed: TileFailed | None) -> Cell:
    if done is not None:
        again = f", attempt {done.attempts}" if done.attempts > 1 else ""
        wall = done.wall or sum(done.seconds.values())
        told = f"{name}: {duration(wall)}, {done.patches} patches, {done.worker}{again}"
        return Cell("done" if done.patches else "skipped", wall, told)
    if failed is not None:
        return Cell("failed", 0.0, f"{name} failed: {masked(failed.reason)}")
    return Cell("left", 0.0, f"{name}: not tried yet")


def _seams(store: Store, scene: ScenePlan, report: SceneReport, budget: int) -> str:
    """The seam scores of the labels, and of the scores where they are stored."""
    if not report.done:
        return "<p class=quiet>No tile is done yet.</p>"
    try:
        found = {"labels": seams(scene.tiling, _labels(store, scene), budget=budget)}
        classes = len(store.score_classes)
        if classes:
            read = _scores(store, min(classes, 4))
            found["scores"] = seams(scene.tiling, read, scores=True, budget=budget // min(classes, 4))
    except (TilessegError, OSError, ValueError) as error:
        return f"<p class=quiet>Not measured: {escape(masked(' '.join(str(error).split())))}</p>"
    rows = {
        f"{what}, {where}": _score(score)
        for what, one in found.items()
        for where, score in (("patches", one.patches), ("cores", one.cores))
    }
    return facts(rows) + _explained(found)


def _labels(store: Store, scene: ScenePlan) -> Callable[[Window], NDArray[np.uint8]]:
    """Labels; what was not looked at is as nodata, for its rim follows the lattice."""

    def read(window: Window) -> NDArray[np.uint8]:
        labels = np.array(store.read(window))
        for part in scene.cells.inside(window, looked_at=False) if scene.cells else ():
            labels[part.slices(window)] = NODATA
        return labels

    return read


def _scores(store: Store, classes: int) -> Callable[[Window], NDArray[np.uint8]]:
    return lambda window: np.stack([store.read_scores(number, window) for number in range(classes)])


def _score(score: SeamScore) -> str:
    if score.ratio is None:
        return score.verdict
    return f"{score.ratio:.2f} ± {2 * score.error:.2f}: {score.verdict}"


def _explained(found: Mapping[str, Seams]) -> str:
    labels = found["labels"]
    part = "" if labels.sampled > 0.999 else f" From {max(0.1, 100 * labels.sampled):.1f} % of the pixels."
    return (
        '<p class="quiet">What changes across the lines where patches begin and end, or where cores meet, ÷ what '
        f"changes close by; 1 is no seam. ± is twice the standard error; "
        f"{labels.patches.pairs:,} pairs of labels.{part}</p>"
    )


def _origin(plan: Plan, scene: ScenePlan, report: SceneReport) -> str:
    layout = scene.layout
    names = [Path(masked(path)).name.removesuffix("?…") for path in scene.paths]
    more = f" and {len(names) - 4:,} more" if len(names) > 4 else ""
    crs = re.search(r'"([^"]+)"', scene.grid.crs or "")
    return facts(
        {
            "image": ", ".join(names[:4]) + more,
            "CRS": crs.group(1) if crs else "",
            "patches": f"{layout.lattice.patch} px every {layout.lattice.stride} px, batch {layout.batch}",
            "blend": layout.blend,
            "cores": f"{layout.core[0]:,} × {layout.core[1]:,} px",
            "predicted": f"{report.patches:,} patches, {pixels(report.patches * layout.lattice.patch**2)}",
            "smaller batches": f"{report.reduced:,} tiles, for want of device memory" if report.reduced else "",
            "not looked at": pixels(report.outside) if report.outside else "",
            "fingerprint": mono(plan.fingerprint(scene)),
            "products": ", ".join(Path(path).name for path in report.products) or "none yet",
            "notes": masked("; ".join(scene.notes)),
        }
    )
