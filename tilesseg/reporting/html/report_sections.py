"""The parts of `report.html` that speak of the whole run: figures, tables, failures, where it all came from."""

from __future__ import annotations

import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

from tilesseg.events import PARTS, account
from tilesseg.monitoring.humanize import area, duration, pixels, share
from tilesseg.reporting.html.svg_charts import Share, bar
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.plan import Plan
    from tilesseg.reporting.results import Report, SceneReport


ROWS = 400
"""Scenes in the table, at most."""
LIBRARIES = ("torch", "openvino", "onnxruntime", "dask", "distributed", "zarr", "rasterio", "tifffile", "numpy")
PART_COLOURS = dict(zip(PARTS, ("#009e73", "#b8bec6", "#0072b2", "#e69f00", "#cc79a7"), strict=True))
STATE_CLASSES = {"complete": "complete", "unfinished": "open", "waiting": "open"}


def state(name: str) -> str:
    """A state as a badge."""
    return f'<span class="state {STATE_CLASSES.get(name, "bad")}">{escape(name)}</span>'


def colours_of(spec: ModelSpec) -> dict[str, str]:
    """CSS colours of the classes, of what failed and of nodata."""
    return {**{one.name: one.colour for one in spec.classes}, "failed": "#ff00ff", "nodata": "var(--h1)"}


def totals(scenes: Iterable[SceneReport], what: str) -> Counter[str]:
    """Sums over scenes of `pixels`, `hectares` or `seconds`."""
    total: Counter[str] = Counter()
    for scene in scenes:
        total.update(getattr(scene, what))
    return total


def seen(counts: Mapping[str, int]) -> dict[str, int]:
    """Pixels of the classes alone."""
    return {name: count for name, count in counts.items() if name not in ("failed", "nodata")}


def class_bar(counts: Mapping[str, int], spec: ModelSpec, *, label: str) -> str:
    """Shares of the classes among the pixels that have one."""
    known, colours = seen(counts), colours_of(spec)
    whole = sum(known.values())
    shares = [Share(name, count, colours.get(name, "grey"), share(count, whole)) for name, count in known.items()]
    return bar(shares, label=label) if whole else "<p class=quiet>No pixel has a class yet.</p>"


def time_bar(seconds: Mapping[str, float], *, label: str) -> str:
    """Where the time of the tiles went, and what was done beside."""
    own, beside = account(seconds)
    whole = sum(own.values())
    if not whole:
        return "<p class=quiet>No tile is done yet.</p>"

    def told(spent: float) -> str:
        return f"{duration(spent)}, {share(spent, whole)}"

    shares = [Share(name, spent, PART_COLOURS.get(name, "grey"), told(spent)) for name, spent in own.items()]
    others = "; ".join(f"{name} {told(spent)}" for name, spent in beside.items())
    note = f"<p class=quiet>At the same time, in threads of their own: {others}.</p>" if others else ""
    return bar(shares, label=label) + note


def class_table(scene: SceneReport, spec: ModelSpec, *, square_mm: float | None) -> str:
    """Pixels, share and area of each class; `square_mm` is the area of a pixel where it is measured in micrometres."""
    colours, whole = colours_of(spec), sum(seen(scene.pixels).values())
    measured = "area" if scene.hectares or square_mm else ""
    rows, largest = [], max(scene.hectares.values(), default=0.0)
    for name, count in scene.pixels.items():
        counted = name not in ("failed", "nodata")
        size = area(scene.hectares[name], largest=largest) if name in scene.hectares else ""
        size = f"{count * square_mm:,.2f} mm²" if square_mm and counted else size
        cells = [f"{count:,}", share(count, whole) if counted else "", *([size] if measured else [])]
        key = f'<i style="background:{colours.get(name, "grey")}"></i>{escape(name)}'
        rows.append((key, *cells))
    if not rows:
        return "<p class=quiet>No tile is done yet.</p>"
    head = ("class", "pixels", "share", *([measured] if measured else []))
    return table(head, rows, numbers=range(1, len(head)), caption="Shares are of the pixels that have a class.")


def scene_table(report: Report, ids: Mapping[str, str]) -> str:
    """All scenes, those that need a look first; `ids` are the anchors of those that are shown below."""
    order = ("failed tiles", "failed products", "refused", "unfinished", "waiting", "complete")
    scenes = sorted(report.scenes, key=lambda scene: order.index(scene.state))
    rows = [_scene_row(scene, ids.get(scene.scene)) for scene in scenes[:ROWS]]
    left = Counter(scene.state for scene in scenes[ROWS:])
    more = f" and {', '.join(f'{n:,} {name}' for name, n in left.items())}; all are in summary.csv" if left else ""
    head = ("scene", "state", "tiles", "failed", "pixels", "most of it", "time of the tiles")
    caption = f"{len(rows):,} of {len(scenes):,} scenes are listed{more}." if more else f"{len(scenes):,} scenes."
    return table(head, rows, numbers=(2, 3, 4, 6), caption=caption)


def _scene_row(scene: SceneReport, anchor: str | None) -> tuple[str, ...]:
    name = f'<a href="#{anchor}">{escape(scene.scene)}</a>' if anchor else escape(scene.scene)
    known = seen(scene.pixels)
    largest = max(known, key=lambda one: known[one], default="")
    most = f"{escape(largest)} {share(known[largest], sum(known.values()))}" if known and any(known.values()) else ""
    tiles = f"{scene.done:,} of {scene.tiles:,}" if scene.tiles else ""
    tried = sum(scene.pixels.values())
    seconds = sum(scene.seconds.values())
    failed = f"{len(scene.failed):,}" if scene.failed else ""
    return (
        name,
        state(scene.state),
        tiles,
        failed,
        pixels(tried) if tried else "",
        most,
        duration(seconds) if seconds else "",
    )


def failures(scenes: Sequence[SceneReport], most: int = 60) -> str:
    """What was refused or failed, by reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for scene in scenes:
        if scene.refused:
            by_reason[f"refused: {masked(scene.refused)}"].append(scene.scene)
        if scene.problem:
            by_reason[masked(scene.problem)].append(scene.scene)
        for tile, why in scene.failed.items():
            by_reason[masked(why)].append(f"{scene.scene} {tile}")
    if not by_reason:
        return ""
    groups = sorted(by_reason.items(), key=lambda group: -len(group[1]))
    rows = [(escape(why), f"{len(names):,}", _names(names)) for why, names in groups[:most]]
    caption = f"The {most} most frequent of {len(groups):,} reasons." if len(groups) > most else "By reason."
    return table(("why", "how often", "where"), rows, numbers=(1,), caption=caption)


def _names(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return escape(", ".join(names[:most])) + more


def provenance(plan: Plan, job: Mapping[str, Any], *, command: str) -> str:
    """Model, versions, machine, cluster, and how to go on."""
    spec = plan.spec
    model = {
        "model": spec.name,
        "what it is": spec.description,
        "licence": spec.licence,
        "sha256": mono(plan.model_sha256),
        "bands": ", ".join(spec.bands),
        "stored scores": ", ".join(plan.score_classes) or "none",
    }
    versions = {"tilesseg": plan.version, "Python": platform.python_version(), **libraries()}
    if plan.version != __version__:
        versions["this page by"] = f"tilesseg {__version__}"
    cluster = {key: value for key, value in dict(job.get("cluster") or {}).items() if value not in (None, [], {}, 0)}
    who = ", ".join(f"{key} {_plain(value)}" for key, value in cluster.items() if key not in _SECRET)
    machine = {
        "computes on": plan.device,
        "engine": plan.engine,
        "engine threads": str(plan.engine_threads),
        "tiles at the same time": f"planned for {plan.slots}",
        "cluster": who or "not kept",
        "this page made on": f"{platform.system()} {platform.machine()}",
    }
    return (
        f'<div class="two"><div><h4>Model</h4>{facts(model)}</div><div><h4>Versions</h4>{facts(versions)}</div>'
        f"<div><h4>Machine and cluster</h4>{facts(machine)}</div>"
        f"<div><h4>To go on, or to do it again</h4><pre>{escape(command)}</pre>"
        "<p class=quiet>What is done is not done again; failed tiles and refused scenes are tried again.</p>"
        "</div></div>"
    )


_SECRET = ("environment", "setup", "options", "directives", "driver")
"""Keys of a cluster that may hold what is not for everybody's eyes."""
_SIGNED = re.compile(r"""((?:\w://|/vsi)[^\s?"'<>]*)\?[^\s"'<>]*[^\s"'<>;:,.)]""")
_USER = re.compile(r"(\w://)[^\s/@]+@")


def masked(text: str) -> str:
    """Without what addresses in it may say to a server alone: names, passwords, signatures and tokens."""
    return _SIGNED.sub(r"\1?…", _USER.sub(r"\1…@", text))


def _plain(value: Any) -> str:
    """Lists and mappings as people write them."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else masked(str(value))


@cache
def libraries() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    return dict(_libraries())


def _libraries() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, installed(name)
        except PackageNotFoundError:
            continue


class Markup(str):
    """Text that is HTML already."""


def mono(text: str) -> Markup:
    """A hash or a path."""
    return Markup(f'<span class="mono">{escape(text)}</span>')


def facts(named: Mapping[str, str]) -> str:
    """Names and values; empty values are left out."""
    rows = (
        f"<dt>{escape(name)}</dt><dd>{value if isinstance(value, Markup) else escape(value)}</dd>"
        for name, value in named.items()
        if value
    )
    return f"<dl>{''.join(rows)}</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int], caption: str) -> str:
    """A table of cells that are HTML already; the first of each row is its heading."""
    right = {*numbers}

    def cell(column: int, text: str) -> str:
        kind = ' class="n"' if column in right else ""
        return f'<th scope="row"{kind}>{text}</th>' if column == 0 else f"<td{kind}>{text}</td>"

    top = "".join(
        f'<th scope="col"{" class=n" if k in right else ""}>{escape(name)}</th>' for k, name in enumerate(head)
    )
    body = "".join(f"<tr>{''.join(cell(k, text) for k, text in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
