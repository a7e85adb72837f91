"""Values of the sections of `report.html` that summarise a run: classes, time, scenes, failures, provenance."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, NamedTuple

from tilesseg.events import PARTS, account
from tilesseg.monitoring.humanize import area, duration, share
from tilesseg.paths import without_secrets
from tilesseg.reporting.html.svg_charts import Share
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.plan import Plan
    from tilesseg.reporting.results import SceneReport


ROWS = 400
"""Largest number of scenes in the table."""
REASONS = 60
"""Largest number of reasons in the table of failures."""
LIBRARIES = ("torch", "openvino", "onnxruntime", "dask", "distributed", "zarr", "rasterio", "tifffile", "numpy")
PART_COLOURS = dict(zip(PARTS, ("#009e73", "#b8bec6", "#0072b2", "#e69f00", "#cc79a7"), strict=True))
ORDER = ("failed tiles", "failed products", "damaged", "refused", "unfinished", "waiting", "complete")
"""States of scenes, those first that need attention."""


class TimeShares(NamedTuple):
    """Shares of the parts of the work in the time of tiles."""

    shares: Sequence[Share]
    beside: Mapping[str, str]
    """Time of each part that ran at the same time as these, in words."""


class ClassRow(NamedTuple):
    """A row of the table of classes."""

    name: str
    colour: str
    pixels: int
    share: str
    area: str


class SceneRow(NamedTuple):
    """A row of the table of scenes."""

    scene: SceneReport
    anchor: str | None
    """Anchor of the scene's details on the page; None without details."""
    commonest: str
    """Class of most pixels, and its share."""


class SceneTable(NamedTuple):
    """The table of all scenes."""

    rows: Sequence[SceneRow]
    scenes: int
    more: Mapping[str, int]
    """Number of scenes that are not listed, by state."""


class FailureTable(NamedTuple):
    """Refusals and failures by reason, the most frequent reasons first."""

    rows: Sequence[tuple[str, Sequence[str]]]
    """Reasons, each with the scenes and tiles that it concerns."""
    reasons: int
    """Number of reasons, also of those that are not listed."""


def sums(scenes: Iterable[SceneReport], field: str) -> Counter[str]:
    """Sums over scenes of `pixels`, `hectares` or `seconds`."""
    total: Counter[str] = Counter()
    for scene in scenes:
        total.update(getattr(scene, field))
    return total


def class_pixels(pixels: Mapping[str, int]) -> dict[str, int]:
    """Pixels of the classes alone."""
    return {name: count for name, count in pixels.items() if name not in ("failed", "nodata")}


def class_shares(pixels: Mapping[str, int], spec: ModelSpec) -> list[Share]:
    """Shares of the classes among the pixels that have a class; empty if there are none."""
    known, colours = class_pixels(pixels), _colours(spec)
    whole = sum(known.values())
    shares = [Share(name, count, colours.get(name, "grey"), share(count, whole)) for name, count in known.items()]
    return shares if whole else []


def time_shares(seconds: Mapping[str, float]) -> TimeShares:
    """Shares of the parts of the work in the time of tiles; empty if no tile is done."""
    own, beside = account(seconds)
    whole = sum(own.values())

    def in_words(spent: float) -> str:
        return f"{duration(spent)}, {share(spent, whole)}"

    shares = [Share(name, spent, PART_COLOURS.get(name, "grey"), in_words(spent)) for name, spent in own.items()]
    others = {name: in_words(spent) for name, spent in beside.items()}
    return TimeShares(shares, others) if whole else TimeShares((), {})


def class_rows(scene: SceneReport, spec: ModelSpec) -> list[ClassRow]:
    """Pixels, share and area of each class."""
    colours, known = _colours(spec), class_pixels(scene.pixels)
    whole, largest = sum(known.values()), max(scene.hectares.values(), default=0.0)
    rows = []
    for name, count in scene.pixels.items():
        size = area(scene.hectares[name], largest=largest) if name in scene.hectares else ""
        size = f"{scene.square_mm[name]:,.2f} mm²" if name in scene.square_mm else size
        part = share(count, whole) if name in known else ""
        rows.append(ClassRow(name, colours.get(name, "grey"), count, part, size))
    return rows


def _colours(spec: ModelSpec) -> dict[str, str]:
    """CSS colours of the classes, of failed cores and of nodata."""
    return {**{each.name: each.colour for each in spec.classes}, "failed": "#ff00ff", "nodata": "var(--h1)"}


def scene_table(scenes: Sequence[SceneReport], anchors: Mapping[str, str]) -> SceneTable:
    """All scenes, those that need attention first; `anchors` are those of the scenes that are shown in detail."""
    ordered = sorted(scenes, key=lambda scene: ORDER.index(scene.state))
    rows = [SceneRow(scene, anchors.get(scene.scene), _commonest(scene)) for scene in ordered[:ROWS]]
    return SceneTable(rows, len(scenes), Counter(scene.state for scene in ordered[ROWS:]))


def _commonest(scene: SceneReport) -> str:
    known = class_pixels(scene.pixels)
    name = max(known, key=lambda name: known[name], default="")
    return f"{name} {share(known[name], sum(known.values()))}" if any(known.values()) else ""


def failure_table(scenes: Sequence[SceneReport]) -> FailureTable:
    """Reasons of refused scenes, failed products, failed tiles, and tiles done with damage."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for scene in scenes:
        if scene.refused:
            by_reason[f"refused: {without_secrets(scene.refused)}"].append(scene.scene)
        if scene.problem:
            by_reason[without_secrets(scene.problem)].append(scene.scene)
        for tile, reason in scene.failed.items():
            by_reason[without_secrets(reason)].append(f"{scene.scene} {tile}")
        for tile, what in scene.damaged.items():
            by_reason[f"done with damage: {without_secrets(what)}"].append(f"{scene.scene} {tile}")
    groups = sorted(by_reason.items(), key=lambda group: -len(group[1]))
    return FailureTable(groups[:REASONS], len(groups))


def provenance(plan: Plan, job: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Facts about model, versions, machine and cluster, each under its heading."""
    spec = plan.spec
    model = {
        "model": spec.name,
        "what it is": spec.description,
        "licence": spec.licence,
        "sha256": ", ".join(plan.sha256s),
        **({"averaged": averaged} if (averaged := plan.averaged) else {}),
        "bands": ", ".join(spec.bands),
        "stored scores": ", ".join(plan.score_classes) or "none",
    }
    versions = {"tilesseg": plan.version, "Python": platform.python_version(), **_libraries()}
    if plan.version != __version__:
        versions["this page by"] = f"tilesseg {__version__}"
    machine = {
        "computes on": plan.compute.device,
        "engine": plan.engine,
        "engine threads": str(plan.compute.engine_threads),
        "tiles at the same time": f"planned for {plan.compute.slots}",
        "cluster": _cluster(job) or "not kept",
        "this page made on": f"{platform.system()} {platform.machine()}",
    }
    return {"Model": model, "Versions": versions, "Machine and cluster": machine}


_SECRET = ("environment", "setup", "options", "directives", "driver")
"""Keys of a cluster whose values may be secret."""


def _cluster(job: Mapping[str, Any]) -> str:
    """The `cluster` section of a job in words, without its secrets."""
    options = {key: value for key, value in dict(job.get("cluster") or {}).items() if key not in _SECRET}
    return ", ".join(f"{key} {_plain(value)}" for key, value in options.items() if value not in (None, [], {}, 0))


def _plain(value: Any) -> str:
    """Lists and mappings as people write them."""
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else without_secrets(str(value))


@cache
def _libraries() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            continue
    return versions
