"""`report.html`: one self-contained page of what a run came to, to be sent to a colleague.

Written by every run at its end, also by one that was stopped, from the run directory alone. No script, nothing
fetched: pictures are data URIs, charts are SVG. A report never fails a run: what cannot be shown is said.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tilesseg.errors import TilessegError
from tilesseg.monitoring.humanize import area, counted, duration, pixels, share
from tilesseg.planning.plan_scene import stored_plan
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.reporting.html.report_scene import Room, refused_article, scene_article
from tilesseg.reporting.html.report_sections import (
    class_bar,
    failures,
    masked,
    provenance,
    scene_table,
    seen,
    time_bar,
    totals,
)
from tilesseg.reporting.html.report_style import LOGO, STYLE
from tilesseg.reporting.html.svg_charts import BARS, COLOURS, HATCH, Bar, lanes
from tilesseg.reporting.results import Report, SceneReport
from tilesseg.reporting.status import Progress, Watch
from tilesseg.store.ledger import write_text
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.planning.plan import Plan
    from tilesseg.store.run_directory import RunDirectory


REPORT_FILE = "report.html"
DETAILED = 24
"""Scenes that are shown in detail, at most."""
CELLS = 20_000
"""Tiles on all maps together, at most."""
PIXELS = 256_000_000
"""Pixels read for all seam scores together, at most."""


def write_report(run: RunDirectory, plan: Plan, path: Path | None = None, *, seconds: float | None = None) -> Path:
    """Write the report of a run, whole or not at all.

    Args:
        run: the run directory.
        plan: its plan.
        path: the file; None is `report.html` in the run.
        seconds: what the last carrying-out took, where that is known.

    Returns:
        What was written.

    Raises:
        StoreError: a file of the run is damaged.
        OSError: the page cannot be written.
    """
    names = _names(run)
    watch = Watch(run, plan, names)
    status = watch.look()
    page = _Page(run, plan, status.report, status.progress, _job(run), seconds)
    path = path or run.path / REPORT_FILE
    write_text(path, page.html(watch))
    return path


def _names(run: RunDirectory) -> list[str]:
    """Names of all scenes of the job."""
    try:
        return [scene.name for scene in read_scene_list(run.path / SCENE_LIST)]
    except TilessegError:
        return sorted(path.name for path in (run.path / "scenes").glob("*"))


def _job(run: RunDirectory) -> Mapping[str, Any]:
    """The job as it is kept; nothing where it cannot be read."""
    try:
        data = yaml.safe_load((run.path / "job.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return data if isinstance(data, dict) else {}


class _Page:
    """The page, from its head to its foot."""

    def __init__(
        self,
        run: RunDirectory,
        plan: Plan,
        report: Report,
        progress: Progress,
        job: Mapping[str, Any],
        seconds: float | None,
    ) -> None:
        self._run, self._plan, self._report, self._progress = run, plan, report, progress
        self._job, self._seconds = job, seconds
        self._name = str(job.get("name") or run.path.name)
        self._shown = _chosen(report.scenes)
        self._ids = {scene.scene: f"scene-{number}" for number, scene in enumerate(self._shown, start=1)}

    def html(self, watch: Watch) -> str:
        scenes = self._report.scenes
        failed = failures(scenes)
        parts = [
            self._head(),
            f"<h2>Scenes</h2>{scene_table(self._report, self._ids)}" if len(scenes) > 1 else "",
            f"<h2>What failed</h2>{failed}" if failed else "",
            f"<h2>Where the time went</h2>{self._time(watch)}",
            f"<h2>{'Scene by scene' if len(scenes) > 1 else 'The scene'}</h2>{self._left_out()}",
            *(self._article(watch, scene) for scene in self._shown),
            f"<h2>How it was made</h2>{provenance(self._plan, self._job, command=self._command())}",
        ]
        made = time.strftime("%Y-%m-%d %H:%M %Z")
        foot = f"Made {made} by tilesseg {__version__} from {escape(self._run.path.name)}. Mail it, keep it, print it."
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(self._name)} · tilesseg report</title><style>{STYLE}</style></head><body>"
            f"{HATCH}<main>{''.join(parts)}</main><footer>{foot}</footer>"
            "</body></html>"
        )

    def _head(self) -> str:
        counts = totals(self._report.scenes, "pixels")
        return (
            f'<header><div class="brand">{LOGO}<span>tilesseg report</span></div><h1>{escape(self._name)}</h1>'
            f'<p class="lead">{self._summary()}</p></header><ul class="figures">{self._figures()}</ul>'
            f"<h4>Share of each class</h4>{class_bar(counts, self._plan.spec, label='Share of each class')}"
        )

    def _summary(self) -> str:
        progress, spec = self._progress, self._plan.spec
        states = progress.states
        total = len(self._report.scenes)
        scenes = f"{total:,} scenes" if total != 1 else "one scene"
        said = [f"The model <b>{escape(spec.name)}</b> over {scenes}: {_states(states)}."]
        known = seen(totals(self._report.scenes, "pixels"))
        if known and sum(known.values()):
            top = sorted(known.items(), key=lambda one: -one[1])[:3]
            shares = ", ".join(f"{escape(name)} {share(count, sum(known.values()))}" for name, count in top if count)
            said.append(f"{pixels(sum(known.values()))} have a class{self._area()}: {shares}.")
        if progress.failed or states.get("refused"):
            refused = states.get("refused", 0)
            said.append(f"<b>{counted(progress.failed, 'tile')} failed, {counted(refused, 'scene')} refused.</b>")
        if progress.left:
            about = "about " if progress.about else ""
            said.append(f"{about.capitalize()}{pixels(progress.left)} are still to do.")
        return " ".join(said)

    def _area(self) -> str:
        hectares = sum(totals(self._report.scenes, "hectares").values())
        return f", {area(hectares)} on the ground" if hectares else ""

    def _figures(self) -> str:
        progress, scenes = self._progress, self._report.scenes
        worked = sum(progress.seconds.values())
        cards = [
            (f"{progress.states.get('complete', 0):,} / {len(scenes):,}", "scenes complete"),
            (f"{progress.done:,} / {progress.tiles:,}", "tiles done"),
            (pixels(progress.pixels), "pixels tried"),
            (f"{progress.rate:.2f}" if progress.rate else "–", "Mpx/s over the last tiles"),
            (duration(self._seconds), "by the clock, this time")
            if self._seconds
            else (duration(worked), "of tile time"),
        ]
        if progress.failed:
            cards.append((f"{progress.failed:,}", "tiles failed"))
        return "".join(f"<li><b>{value}</b><span>{name}</span></li>" for value, name in cards)

    def _time(self, watch: Watch) -> str:
        total = sum(self._progress.seconds.values())
        told = f"<p class=quiet>Time of all tiles added together, {duration(total)}: not time by the clock.</p>"
        return time_bar(self._progress.seconds, label="Time of all tiles") + told + self._lanes(watch)

    def _lanes(self, watch: Watch) -> str:
        bars: list[Bar] = []
        for number, scene in enumerate(self._shown):
            for one in watch.run.scene(scene.scene).done().values() if scene.done else ():
                if one.wall:
                    told = f"{one.scene} {one.tile}: {duration(one.wall)}, {one.patches} patches"
                    bars.append(Bar(one.worker or "worker", one.started, one.started + one.wall, number, told))
        if not bars:
            return ""
        some = len(self._shown) < len(self._report.scenes)
        of = " of the scenes shown below" if some else ""
        return f"<h4>Who worked when{of}</h4>{lanes(bars, colours=len(self._shown), most=BARS)}{self._keys()}"

    def _keys(self) -> str:
        """Which scene has which colour in the lanes, where there are few."""
        keys = [f'<li><i class="s{k}"></i>{escape(one.scene)}</li>' for k, one in enumerate(self._shown) if one.done]
        return f'<ul class="legend">{"".join(keys)}</ul>' if 1 < len(self._shown) <= COLOURS else ""

    def _left_out(self) -> str:
        shown, all_of_them = len(self._shown), len(self._report.scenes)
        if shown == all_of_them:
            return ""
        told = "those with problems, then some of the others, evenly chosen"
        told = (
            "the others wait for their turn" if shown == all_of_them - self._progress.states.get("waiting", 0) else told
        )
        return f"<p class=quiet>{shown} of {all_of_them:,} scenes: {told}.</p>"

    def _article(self, watch: Watch, scene: SceneReport) -> str:
        anchor, count = self._ids[scene.scene], max(1, sum(one.tiles > 0 for one in self._shown))
        if scene.refused:
            return refused_article(scene, anchor=anchor)
        size = 640 if count == 1 else 440 if count <= 4 else 300 if count <= 12 else 220
        room = Room(size, max(400, CELLS // count), max(4_000_000, PIXELS // count))
        store = watch.run.scene(scene.scene)
        try:
            planned = stored_plan(store)
            return scene_article(store, self._plan, planned, scene, anchor=anchor, room=room) if planned else ""
        except (TilessegError, OSError, ValueError) as error:
            told = escape(masked(" ".join(str(error).split())))
            return f'<article id="{anchor}"><header><h3>{escape(scene.scene)}</h3></header><p>{told}</p></article>'

    def _command(self) -> str:
        return f"tilesseg run {shlex.quote(str(self._run.path / 'job.yaml'))}"


def _chosen(scenes: Sequence[SceneReport]) -> tuple[SceneReport, ...]:
    """Scenes to show in detail, in the job's order: with problems, unfinished, then evenly of the others."""
    planned = [scene for scene in scenes if scene.state != "waiting"]
    bad = [scene for scene in planned if scene.state in ("failed tiles", "failed products")][: DETAILED // 2]
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
