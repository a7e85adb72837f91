"""`report.html`: one self-contained page of the results of a run, to be sent to a colleague.

Every run writes it at its end, also a run that was stopped, from the run directory alone. No script, nothing
fetched: pictures are data URIs, charts are SVG. A report never fails a run: it says what it cannot show. Python
gathers the values here and in the modules beside; the templates beside make HTML of them and escape every text.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tilesseg.errors import TilessegError, joined_lines
from tilesseg.monitoring.html_templates import templates_of
from tilesseg.monitoring.humanize import duration, share
from tilesseg.paths import without_secrets
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.reporting.html.report_evaluation import EvaluationTable, evaluation_table
from tilesseg.reporting.html.report_scene import SceneFacts, SceneLimits, scene_details
from tilesseg.reporting.html.report_sections import (
    FailureTable,
    SceneTable,
    TimeShares,
    class_pixels,
    class_shares,
    failure_table,
    provenance,
    scene_table,
    sums,
    time_shares,
)
from tilesseg.reporting.html.svg_charts import COLOURS, Share, TileBar, TimelineLayout, lay_out_timeline
from tilesseg.reporting.results import SceneReport
from tilesseg.reporting.status import Progress, Watch
from tilesseg.store.ledger import write_text
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan
    from tilesseg.store.run_directory import RunDirectory


REPORT_FILE = "report.html"
DETAILED = 24
"""Largest number of scenes that are shown in detail."""
SQUARES = 20_000
"""Largest number of squares on all maps together."""
PIXELS = 256_000_000
"""Largest number of pixels read for all seam scores together."""


@dataclass(frozen=True, slots=True)
class PageFacts:
    """Values of the page, from its head to its foot."""

    name: str
    model: str
    run: str
    """Name of the run directory."""
    states: str
    """Number of scenes by state, in words."""
    progress: Progress
    seconds: float | None
    """Seconds of the last execution, if known."""
    pixels: int
    """Pixels that have a class."""
    hectares: float
    largest: str
    """Classes of most pixels with their shares, in words."""
    classes: Sequence[Share]
    scenes: SceneTable
    failures: FailureTable
    evaluation: EvaluationTable | None
    """Figures of `tilesseg evaluate`, where the run has been evaluated."""
    times: TimeShares
    timeline: TimelineLayout | None
    keys: Sequence[tuple[int, str]]
    """Colours on the timeline, as numbers, with the scenes that have them."""
    articles: Sequence[SceneFacts]
    provenance: Mapping[str, Mapping[str, str]]
    command: str
    """Command that continues the run."""
    version: str
    time: str


def write_report(run: RunDirectory, plan: Plan, path: Path | None = None, *, seconds: float | None = None) -> Path:
    """Write the report of a run, whole or not at all.

    Args:
        run: the run directory.
        plan: its plan.
        path: the file; None is `report.html` in the run.
        seconds: duration of the last execution, if known.

    Returns:
        Path of the page.

    Raises:
        StoreError: a file of the run is damaged.
        OSError: the page cannot be written.
    """
    path = path or run.path / REPORT_FILE
    facts = _gather(run, plan, seconds)
    write_text(path, templates_of(__package__).get_template("page.html.j2").render(page=facts))
    return path


def _gather(run: RunDirectory, plan: Plan, seconds: float | None) -> PageFacts:
    watch, job = Watch(run, plan, _names(run)), _job(run)
    status = watch.look()
    scenes, progress = status.report.scenes, status.progress
    shown = _shown_in_detail(scenes)
    anchors = {scene.scene: f"scene-{number}" for number, scene in enumerate(shown, start=1)}
    counts = sums(scenes, "pixels")
    known = class_pixels(counts)
    whole = sum(known.values())
    largest = sorted(known.items(), key=lambda item: -item[1])[:3]
    keys = [(number, scene.scene) for number, scene in enumerate(shown) if scene.done]
    return PageFacts(
        name=str(job.get("name") or run.path.name),
        model=plan.spec.name,
        run=run.path.name,
        states=_states(progress.states),
        progress=progress,
        seconds=seconds,
        pixels=whole,
        hectares=sum(sums(scenes, "hectares").values()),
        largest=", ".join(f"{name} {share(count, whole)}" for name, count in largest if count),
        classes=class_shares(counts, plan.spec),
        scenes=scene_table(scenes, anchors),
        failures=failure_table(scenes),
        evaluation=evaluation_table(run),
        times=time_shares(progress.seconds),
        timeline=lay_out_timeline(list(_bars(watch, shown)), colours=len(shown)),
        keys=keys if 1 < len(shown) <= COLOURS else (),
        articles=tuple(_articles(watch, plan, shown, anchors)),
        provenance=provenance(plan, job),
        command=f"tilesseg run {shlex.quote(str(run.path / 'job.yaml'))}",
        version=__version__,
        time=time.strftime("%Y-%m-%d %H:%M %Z"),
    )


def _names(run: RunDirectory) -> list[str]:
    """Names of all scenes of the job."""
    try:
        return [scene.name for scene in read_scene_list(run.path / SCENE_LIST)]
    except TilessegError:
        return sorted(path.name for path in (run.path / "scenes").glob("*"))


def _job(run: RunDirectory) -> Mapping[str, Any]:
    """The stored job; empty if it cannot be read."""
    try:
        data = yaml.safe_load((run.path / "job.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


def _shown_in_detail(scenes: Sequence[SceneReport]) -> tuple[SceneReport, ...]:
    """Scenes to show in detail, in the job's order: with problems, unfinished, then evenly of the others."""
    planned = [scene for scene in scenes if scene.state != "waiting"]
    bad = [scene for scene in planned if scene.state in ("failed tiles", "failed products", "damaged")][: DETAILED // 2]
    bad += [scene for scene in planned if scene.state == "unfinished"][: DETAILED // 4]
    bad += [scene for scene in planned if scene.state == "refused" and len(scenes) <= DETAILED]
    good = [scene for scene in planned if scene.state == "complete"]
    room = max(0, DETAILED - len(bad))
    step = max(1.0, len(good) / room) if room else 1.0
    some = [good[int(k * step)] for k in range(min(room, len(good)))]
    names = {scene.scene for scene in (*bad, *some)}
    return tuple(scene for scene in scenes if scene.scene in names)


def _states(states: Mapping[str, int]) -> str:
    if set(states) == {"complete"}:
        return "all complete" if states["complete"] > 1 else "complete"
    words = {"failed tiles": "with failed tiles", "failed products": "with failed products"}
    return ", ".join(f"{count:,} {words.get(name, name)}" for name, count in sorted(states.items()))


def _bars(watch: Watch, shown: Sequence[SceneReport]) -> Iterator[TileBar]:
    """A bar for each tile of the scenes that are shown in detail."""
    for number, scene in enumerate(shown):
        for tile in watch.run.scene(scene.scene).done().values() if scene.done else ():
            if tile.wall:
                text = f"{tile.scene} {tile.tile}: {duration(tile.wall)}, {tile.patches} patches"
                yield TileBar(tile.worker or "worker", tile.started, tile.started + tile.wall, number, text)


def _articles(
    watch: Watch, plan: Plan, shown: Sequence[SceneReport], anchors: Mapping[str, str]
) -> Iterator[SceneFacts]:
    """Facts about each scene that is shown in detail; the limits of the effort are shared among these scenes."""
    count = max(1, sum(scene.tiles > 0 for scene in shown))
    size = 640 if count == 1 else 440 if count <= 4 else 300 if count <= 12 else 220
    limits = SceneLimits(size, max(400, SQUARES // count), max(4_000_000, PIXELS // count))
    for scene in shown:
        anchor = anchors[scene.scene]
        if scene.refused:
            yield SceneFacts(scene, anchor, problem=without_secrets(scene.refused))
            continue
        store = watch.run.scene(scene.scene)
        try:
            planned = stored_scene_plan(store)
            if planned:
                yield SceneFacts(scene, anchor, scene_details(SceneRun(store, plan, planned), scene, limits))
        except (TilessegError, OSError, ValueError) as error:
            yield SceneFacts(scene, anchor, problem=without_secrets(joined_lines(error)))
