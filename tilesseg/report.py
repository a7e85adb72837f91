"""What a run came to, read from its directory alone: from any machine, after a crash, without a port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilesseg.labels import FAILED, NODATA

if TYPE_CHECKING:
    from tilesseg.models.spec import ModelSpec
    from tilesseg.plan import Plan
    from tilesseg.store import RunDirectory

HECTARE = 10_000.0


@dataclass(frozen=True, slots=True)
class SceneReport:
    """One scene of a run."""

    scene: str
    tiles: int
    done: int
    failed: Mapping[str, str]
    """Reason by tile name."""
    pixels: Mapping[str, int]
    """Pixels by class name, with `failed` and `nodata`."""
    hectares: Mapping[str, float]
    """Area by class name; empty where the grid is not of the Earth."""
    seconds: Mapping[str, float]
    """Wall seconds of all tiles by part: read, prepare, predict, blend, write."""
    refused: str | None = None
    outside: int = 0
    """Pixels that were not looked at; among `pixels` they are nodata or the first class."""
    read: int = 0
    """Pixels of the image that were read, those counted more than once that several patches or tiles see."""

    @property
    def missing(self) -> int:
        """Tiles that no run has tried yet."""
        return self.tiles - self.done - len(self.failed)

    @property
    def state(self) -> str:
        if self.refused:
            return "refused"
        if self.missing:
            return "unfinished"
        return "failed tiles" if self.failed else "complete"

    @property
    def empty(self) -> bool:
        """Whether everything done is nodata."""
        return self.done == self.tiles and not any(n for name, n in self.pixels.items() if name != "nodata")


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    directory: str
    scenes: tuple[SceneReport, ...]
    products: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def exit_code(self) -> int:
        """0 complete, 1 nothing was possible, 3 finished with failed tiles or refused scenes."""
        if all(scene.refused for scene in self.scenes):
            return 1
        return 0 if all(scene.state == "complete" for scene in self.scenes) else 3

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        for scene, fields in zip(self.scenes, data["scenes"], strict=True):
            fields["state"] = scene.state
        return data


def report_of(run: RunDirectory, plan: Plan, **extra: Any) -> Report:
    """Read the ledger of every scene."""
    known = (_scene_report(run, plan, scene.name) for scene in plan.scenes)
    refused = (SceneReport(name, 0, 0, {}, {}, {}, {}, why) for name, why in plan.refused.items())
    return Report(str(run.path), (*known, *refused), **extra)


def _scene_report(run: RunDirectory, plan: Plan, scene: str) -> SceneReport:
    store = run.scene(scene)
    done, failed = store.done(), store.failed()
    pixels = _by_class(_sum(record.counts for record in done.values()), plan.spec)
    if failed:
        pixels["failed"] = sum(record.pixels for record in failed.values())
    areas = _by_class(_sum(record.areas for record in done.values()), plan.spec)
    return SceneReport(
        scene=scene,
        tiles=len(plan.by_name[scene].tiling),
        done=len(done),
        failed={name: record.reason for name, record in failed.items()},
        pixels=pixels,
        hectares={name: round(area / HECTARE, 4) for name, area in areas.items() if name != "nodata"},
        seconds={part: round(value, 3) for part, value in sorted(_sum(r.seconds for r in done.values()).items())},
        outside=sum(record.outside for record in done.values()),
        read=sum(record.read for record in done.values()),
    )


def _sum(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in records:
        total.update(record)
    return total


def _by_class(by_label: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """From labels as text to class names, in class order; classes that do not occur are 0."""
    if not by_label:
        return {}
    named = {one.name: by_label.get(str(label), 0) for label, one in enumerate(spec.classes)}
    for label, name in ((FAILED, "failed"), (NODATA, "nodata")):
        if by_label.get(str(label)):
            named[name] = by_label[str(label)]
    return named
