"""What a worker does: open what the plan names once per process, segment one tile, answer a failure as a value."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from tilesseg import __version__
from tilesseg.blend import quantise
from tilesseg.errors import ModelError, StoreError, TilessegError
from tilesseg.events import RegionFailed, RegionStaged, TileDone, TileFailed
from tilesseg.models import find_bundle, load_model
from tilesseg.plan import PLAN_FILE, Plan, parse_plan
from tilesseg.segment import peak_mb, segment_tile, skip_tile
from tilesseg.stage import stage_region
from tilesseg.store import RunDirectory, Store

if TYPE_CHECKING:
    from tilesseg.formats import Source
    from tilesseg.models import Model

TRANSIENT = (ConnectionError, TimeoutError, InterruptedError)
TRANSIENT_WORDS = ("curl error", "http error code: 5", "timed out", "connection reset", "temporarily unavailable")
ATTEMPTS, BACK_OFF = 3, 1.0

T = TypeVar("T")
Answer = TileDone | TileFailed | RegionStaged | RegionFailed
SOURCES_KEPT = 4

Item = tuple[str, str]
"""Names of a scene and of one of its tiles: all that goes out to a worker."""


class StageItem(NamedTuple):
    """A region of a scene's image that is to be copied."""

    scene: str
    region: str


@dataclass(frozen=True, slots=True)
class TileWork:
    """The function that executors map over tiles; it travels as a path and a token."""

    run: str
    """The run directory."""
    token: str
    """Names this carrying-out of the plan: a process that served an earlier one opens everything anew."""

    @classmethod
    def of(cls, run: RunDirectory) -> TileWork:
        return cls(os.path.abspath(run.path), uuid.uuid4().hex)

    def __call__(self, item: Item | StageItem) -> Answer:
        """Do one item. What goes wrong costs this item alone, unless the run directory cannot be written."""
        try:
            opened = open_run(self)
            return _stage(opened, item) if isinstance(item, StageItem) else _segment(opened, *item)
        except Exception as error:
            # ^ of any kind: one bad tile costs one tile, and the reason is in its record
            return self._failed(item, reason_of(error), worker=socket.gethostname())

    def lost(self, item: Item | StageItem, reason: str) -> Answer:
        """The record of an item whose worker process died."""
        return self._failed(item, reason)

    def _failed(self, item: Item | StageItem, reason: str, *, worker: str = "") -> Answer:
        """Put a tile back to 254 and list it; or list the region.

        Raises:
            StoreError: not even that can be written.
        """
        opened, (scene, name) = open_run(self), item
        try:
            if isinstance(item, StageItem):
                return _list_region(opened, item, reason, worker)
            core, store = opened.plan.by_name[scene].tiling.named(name).core, opened.store(scene)
            store.clear(core)
            return store.mark_failed(TileFailed(scene, name, core.area, reason, worker))
        except OSError as error:
            raise StoreError(
                f"{self.run} cannot be written ({error.strerror}), after {name} failed ({reason}); "
                "what is done is kept: make room and run again"
            ) from error


class Opened:
    """A run as a worker process holds it: plan, model and the latest sources, each opened once for all threads."""

    def __init__(self, directory: RunDirectory) -> None:
        self.run = directory
        self.plan = parse_plan(directory.read_json(PLAN_FILE), where=directory.path)
        self._lock = Lock()
        self._model: Model | None = None
        self._sources: dict[tuple[str, bool], Source] = {}

    @property
    def model(self) -> Model:
        """The network, checked against the plan.

        Raises:
            ModelError: it is not the one that the plan was made with, or cannot be loaded.
        """
        with self._lock:
            if self._model is None:
                self._model = _load(self.plan)
            return self._model

    def source(self, scene: str, *, copied: bool = True) -> Source:
        """The image of a scene; the least recently opened one of more than a few is let go.

        Args:
            scene: its name.
            copied: the copy in the run directory, where there is one; else the image itself.
        """
        with self._lock:
            key, plan = (scene, copied), self.plan.by_name[scene]
            if key not in self._sources:
                while len(self._sources) >= SOURCES_KEPT:
                    self._sources.pop(next(iter(self._sources)))
                self._sources[key] = plan.open_for_tiles(self.store(scene).folder) if copied else plan.open()
            return self._sources[key]

    def store(self, scene: str) -> Store:
        return self.run.scene(scene)


def _load(plan: Plan) -> Model:
    bundle = find_bundle(plan.model)
    if bundle.sha256 != plan.model_sha256:
        raise ModelError(
            f"model {plan.model} has sha256 {bundle.sha256[:12]}… here and {plan.model_sha256[:12]}… in the plan; "
            "give every worker the same bundle"
        )
    return load_model(bundle, device=plan.device, threads=plan.engine_threads)


_OPENING = Lock()
_opened: tuple[TileWork, Opened] | None = None


def open_run(work: TileWork) -> Opened:
    """The run directory, opened once per process and carrying-out; an earlier one is let go."""
    global _opened
    with _OPENING:
        if _opened is None or _opened[0] != work:
            _opened = work, Opened(RunDirectory(Path(work.run)))
        return _opened[1]


@dataclass(frozen=True, slots=True)
class Proof:
    """What a worker answers before its first tile."""

    version: str
    seconds_per_batch: float
    peak_mb: float
    problem: str | None = None


def prove(work: TileWork) -> Proof:
    """Show that this process can read the first scene, load the model, predict, and write in the run directory."""
    try:
        opened = open_run(work)
        scene = opened.plan.scenes[0]
        opened.source(scene.name, copied=False)
        seconds = _predict_once(opened)
        RunDirectory.create(opened.run.path)
    except Exception as error:
        # ^ whatever it is, this worker cannot work, and the others may
        return Proof(__version__, 0.0, 0.0, reason_of(error))
    return Proof(__version__, seconds, peak_mb())


def _predict_once(opened: Opened) -> float:
    """Seconds that a second batch takes; the first one warms up, and shows whether its scores could be stored."""
    layout, spec = opened.plan.scenes[0].layout, opened.plan.spec
    shape = (layout.batch, len(spec.bands), layout.lattice.patch, layout.lattice.patch)
    scores = opened.model.predict(np.random.default_rng(0).standard_normal(shape, np.float32))
    for channel in opened.plan.scores:
        quantise(scores[:, channel])
    batch = np.zeros(shape, np.float32)
    start = time.perf_counter()
    opened.model.predict(batch)
    return time.perf_counter() - start


def _segment(opened: Opened, scene: str, name: str) -> TileDone:
    plan = opened.plan.by_name[scene]
    tile, cells = plan.tiling.named(name), plan.cells
    if cells is not None and not cells.touches(tile.core):
        return skip_tile(tile, cells, grid=plan.grid, store=opened.store(scene), scores=len(opened.plan.scores))
    parts: dict[str, Any] = {
        "source": opened.source(scene),
        "model": opened.model,
        "store": opened.store(scene),
        "recipe": plan.recipe(opened.plan.spec, scores=opened.plan.scores),
    }
    return _retried(lambda: segment_tile(tile, **parts))


def _stage(opened: Opened, item: StageItem) -> RegionStaged:
    plan, source = opened.plan.by_name[item.scene], opened.source(item.scene, copied=False)
    assert plan.stage is not None  # else nobody asks
    region, copy = plan.stage.named(plan.grid.shape, item.region), plan.copy_in(opened.store(item.scene).folder)
    parts: dict[str, Any] = {"source": source, "stage": copy, "layout": plan.stage, "scene": item.scene}
    return _retried(lambda: stage_region(region, **parts))


def _list_region(opened: Opened, item: StageItem, reason: str, worker: str) -> RegionFailed:
    plan = opened.plan.by_name[item.scene]
    assert plan.stage is not None
    pixels = plan.stage.named(plan.grid.shape, item.region).window.area
    record = RegionFailed(item.scene, item.region, pixels, reason, worker)
    plan.copy_in(opened.store(item.scene).folder).ledger.mark_failed(item.region, record)
    return record


def _retried(attempt: Callable[[], T]) -> T:
    """What an attempt gives, made again where a passing trouble stopped it."""
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(BACK_OFF * 2**number)
    return attempt()


def is_transient(error: BaseException | None) -> bool:
    """Whether trying again may help: a dropped connection or a busy server, anywhere in the chain of causes."""
    while error is not None:
        if isinstance(error, TRANSIENT) or any(word in str(error).lower() for word in TRANSIENT_WORDS):
            return True
        error = error.__cause__
    return False


def reason_of(error: Exception) -> str:
    """Why something failed, as one line; the kind of error too where it is no refusal of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, TilessegError) else f"{type(error).__name__}: {text}"
