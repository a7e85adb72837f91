"""Results of a run, read from its directory alone: from any machine, after a crash, without a port."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tilesseg.doubts import ANY, codes_of, doubt
from tilesseg.errors import StoreError
from tilesseg.monitoring.humanize import counted
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import altered_note, stored_scene_plan
from tilesseg.raster.labels import FAILED, NODATA
from tilesseg.store.scene_store import FINISHED_FILE, REFUSED_FILE
from tilesseg.store.shard_checks import extent

if TYPE_CHECKING:
    from tilesseg.events import TileDone
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.plan import Plan
    from tilesseg.planning.scene_plan import ScenePlan
    from tilesseg.store.run_directory import RunDirectory
    from tilesseg.store.scene_store import Store


HECTARE = 10_000.0
OVER = ("complete", "damaged")
"""States of a scene with which a run has nothing left to do."""


@dataclass(frozen=True, slots=True)
class SceneReport:
    """Results of one scene of a run."""

    scene: str
    tiles: int
    done: int
    failed: Mapping[str, str]
    """Reason by tile name."""
    pixels: Mapping[str, int]
    """Pixels by class name, with `failed` and `nodata`."""
    hectares: Mapping[str, float]
    """Area on the ground by class name; empty where the grid is not of the Earth."""
    seconds: Mapping[str, float]
    """Seconds of all tiles by part, see `events.PARTS`."""
    refused: str | None = None
    outside: int = 0
    """Pixels outside the region of interest; among `pixels` they are nodata or the first class."""
    read: int = 0
    """Pixels of the image that were read; pixels that several tiles read count several times."""
    skipped: int = 0
    """Number of stored tiles without a prediction: no pixel in them is valid and of interest."""
    patches: int = 0
    """Number of patches that were predicted."""
    reduced: int = 0
    """Number of tiles with smaller batches than planned, for lack of device memory."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Damage by name of the tile that is done with it, one line each."""
    damaged_pixels: int = 0
    """Number of pixels of these tiles that are 254, because they depend on damaged pixels."""
    products: tuple[str, ...] = ()
    """Paths of the products that were written."""
    problem: str | None = None
    """Reason why a product could not be written."""
    planned: bool = True
    """Whether the scene is planned; it is when its turn comes."""
    ended: bool = True
    """Whether its products were written or failed, after its last tile."""
    square_mm: Mapping[str, float] = field(default_factory=dict)
    """Area in square millimetres by class name; empty where pixels are not measured in micrometres."""
    notes: tuple[str, ...] = ()
    """Notes of its plan and of its end; those that state a doubt end with a code."""
    altered: Mapping[str, str] = field(default_factory=dict)
    """Problems by name of the tiles that are recorded as done and whose shards are missing or have another size: they
    count as not done."""

    @property
    def missing(self) -> int:
        """Number of tiles that are still to do."""
        return self.tiles - self.done - len(self.failed)

    @property
    def state(self) -> str:
        """`refused`, `waiting`, `unfinished`, `failed tiles`, `failed products`, `damaged` or `complete`."""
        if self.refused:
            return "refused"
        if not self.planned:
            return "waiting"
        if self.missing:
            return "unfinished"
        if self.failed:
            return "failed tiles"
        if not self.ended:
            return "unfinished"
        if self.problem:
            return "failed products"
        return "damaged" if self.damaged else "complete"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Codes of the doubts among its notes."""
        return codes_of(self.notes)


@dataclass(frozen=True, slots=True)
class Report:
    """Results of a whole run."""

    directory: str
    scenes: tuple[SceneReport, ...]
    products: tuple[str, ...] = ()
    seconds: float | None = None
    name: str = ""
    """Name of the job, or of its model."""
    share: str | None = None
    """Share of the tiles that this process computes, as `3/8`: other processes finish the rest. None: all tiles."""

    @property
    def exit_code(self) -> int:
        """Exit code: 0 complete, 1 nothing was possible, 3 finished with failures or refused scenes."""
        if all(scene.refused for scene in self.scenes):
            return 1
        fine = ("complete", "unfinished", "waiting") if self.share else ("complete",)
        return 0 if all(scene.state in fine for scene in self.scenes) else 3

    def exit_code_on(self, codes: Collection[str]) -> int:
        """Exit code where doubts of these codes (`any`: of all codes) count as failures."""
        doubts = {code for scene in self.scenes for code in scene.doubts}
        doubted = bool(doubts) if ANY in codes else not doubts.isdisjoint(codes)
        return self.exit_code or (3 if doubted else 0)

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["shard"] = data.pop("share")
        for scene, fields in zip(self.scenes, data["scenes"], strict=True):
            fields["state"] = scene.state
            fields["doubts"] = list(scene.doubts)
        return data


def report_of(run: RunDirectory, plan: Plan, *, names: Sequence[str], **extra: Any) -> Report:
    """Read the results of every scene: one small file of a finished scene, the ledger of any other.

    Raises:
        StoreError: a file of the run is damaged.
    """
    alone = len(names) == 1
    return Report(str(run.path), tuple(_read_scene(run.scene(name), plan, alone=alone) for name in names), **extra)


def _read_scene(store: Store, plan: Plan, *, alone: bool) -> SceneReport:
    """Read a scene; one of many whose files are damaged is reported as refused, for that reason."""
    try:
        return _read_sound_scene(store, plan)
    except StoreError as error:
        if alone:
            raise
        return SceneReport(store.scene, 0, 0, {}, {}, {}, {}, refused=str(error))


def _read_sound_scene(store: Store, plan: Plan) -> SceneReport:
    refused = store.read_json(REFUSED_FILE)
    if refused is not None:
        return SceneReport(store.scene, 0, 0, {}, {}, {}, {}, refused=refused["reason"])
    record = store.read_json(FINISHED_FILE)
    if record is not None and record["report"]["state"] in OVER:
        report = _stored(record["report"])
        if len(store.done_names()) == report.tiles and stored_as(record, store):
            return report
    planned = stored_scene_plan(store)
    if planned is None:
        return SceneReport(store.scene, 0, 0, {}, {}, {}, {}, planned=False)
    before = record["report"] if record else {}
    products, problem = tuple(before.get("products", ())), before.get("problem")
    report = scene_report(SceneRun(store, plan, planned), products=products, problem=problem)
    return replace(report, ended=record is not None)


def stored_as(record: Mapping[str, Any], store: Store) -> bool:
    """Whether as many shards and bytes are stored as the record of a scene's end says; older records do not say."""
    return "stored" not in record or list(extent(store.folder)) == record["stored"]


def _stored(fields: dict[str, Any]) -> SceneReport:
    known = {key: value for key, value in fields.items() if key != "state"}
    return SceneReport(**{**known, **{key: tuple(known.get(key, ())) for key in ("products", "notes")}})


def scene_report(scene_run: SceneRun, *, products: tuple[str, ...] = (), problem: str | None = None) -> SceneReport:
    """Read the ledger of a planned scene."""
    store, scene, spec = scene_run.store, scene_run.scene, scene_run.plan.spec
    done, failed = store.done(), store.failed()
    altered = store.altered(done, scene.tiling)
    done = {name: record for name, record in done.items() if name not in altered}
    pixels = _by_class(_sum(record.counts for record in done.values()), spec)
    damaged_pixels = pixels.get("failed", 0)
    if failed:
        pixels["failed"] = damaged_pixels + sum(record.pixels for record in failed.values())
    classes = {kind.name for kind in spec.classes}
    areas = _by_class(_exact_sum([record.areas for record in done.values()]), spec)
    return SceneReport(
        scene=scene.name,
        tiles=len(scene.tiling),
        done=len(done),
        failed={name: record.reason for name, record in failed.items()},
        pixels=pixels,
        hectares={name: round(area / HECTARE, 4) for name, area in areas.items() if name in classes},
        seconds={part: round(value, 3) for part, value in sorted(_sum(r.seconds for r in done.values()).items())},
        outside=sum(record.outside for record in done.values()),
        read=sum(record.read for record in done.values()),
        skipped=sum(not record.patches for record in done.values()),
        patches=sum(record.patches for record in done.values()),
        reduced=sum(record.batch > 0 for record in done.values()),
        damaged={name: _damage_of([record]) for name, record in done.items() if record.damage},
        damaged_pixels=damaged_pixels,
        products=products,
        problem=problem,
        square_mm=_square_mm(scene, {name: count for name, count in pixels.items() if name in classes}),
        notes=(
            *scene.notes,
            *_notes_on_end(scene, pixels, done),
            *([altered_note(altered, "run again")] if altered else []),
        ),
        altered=altered,
    )


def _square_mm(scene: ScenePlan, pixels: Mapping[str, int]) -> dict[str, float]:
    """Area in square millimetres by class name; empty where pixels are not measured in micrometres."""
    if scene.grid.unit != "micrometre":
        return {}
    tall, wide = scene.grid.resolution
    return {name: round(count * tall * wide / 1e6, 6) for name, count in pixels.items()}


def _exact_sum(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum by label that does not depend on the tiles: those of a tile are exact, and they are rounded once."""
    labels = {label for record in records for label in record}
    return {label: math.fsum(record.get(label, 0.0) for record in records) for label in labels}


def _notes_on_end(scene: ScenePlan, pixels: Mapping[str, int], done: Mapping[str, TileDone]) -> Iterator[str]:
    """Notes that only the finished mask allows."""
    if pixels.get("nodata") == scene.grid.window.area:
        yield doubt("empty-mask", "every pixel is nodata, so the mask is empty")
    damaged = [record for record in done.values() if record.damage]
    if damaged:
        yield doubt("damaged-pixels", f"{counted(len(damaged), 'tile')} done with damage: {_damage_of(damaged)}")


def _damage_of(records: Sequence[TileDone]) -> str:
    """Damage of tiles, as one line: numbers of windows and pixels, and the first reason."""
    parts = []
    for windows, what in (("damaged", "{:,} px of the mask are 254"), ("coarser", "read from a coarser level")):
        number = len({tuple(window) for record in records for window in getattr(record, windows)})
        if number:
            lost = sum(record.counts.get(str(FAILED), 0) for record in records)
            parts.append(f"{counted(number, 'damaged window')}, {what.format(lost)}")
    return f"{'; '.join(parts)} ({records[0].damage})"


def _sum(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for record in records:
        total.update(record)
    return total


def _by_class(by_label: Mapping[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """Amounts by class name, in class order, from amounts by label as text; 0 for classes that do not occur."""
    if not by_label:
        return {}
    named = {kind.name: by_label.get(str(label), 0) for label, kind in enumerate(spec.classes)}
    for label, name in ((FAILED, "failed"), (NODATA, "nodata")):
        if by_label.get(str(label)):
            named[name] = by_label[str(label)]
    return named
