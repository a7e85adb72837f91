"""What a worker does: open what the plan names once per process, segment one tile, answer a failure as a value."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tilesseg import __version__
from tilesseg.errors import ModelError, StoreError, TilessegError
from tilesseg.events import TileDone, TileFailed
from tilesseg.models import find_bundle, load_model
from tilesseg.plan import PLAN_FILE, Plan, parse_plan
from tilesseg.segment import peak_mb, segment_tile
from tilesseg.store import RunDirectory, Store

if TYPE_CHECKING:
    from tilesseg.formats import Source
    from tilesseg.models import Model

TRANSIENT = (ConnectionError, TimeoutError, InterruptedError)
TRANSIENT_WORDS = ("curl error", "http error code: 5", "timed out", "connection reset", "temporarily unavailable")
ATTEMPTS, BACK_OFF = 3, 1.0
SOURCES_KEPT = 4

Item = tuple[str, str]
"""Names of a scene and of one of its tiles: all that goes out to a worker."""


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

    def __call__(self, item: Item) -> TileDone | TileFailed:
        """Segment one tile. What goes wrong costs this tile alone, unless the run directory cannot be written."""
        scene, name = item
        try:
            return _with_retries(open_run(self), scene, name)
        except Exception as error:
            # ^ of any kind: one bad tile costs one tile, and the reason is in its record
            return self._failed(item, reason_of(error), worker=socket.gethostname())

    def lost(self, item: Item, reason: str) -> TileFailed:
        """The record of a tile whose worker process died."""
        return self._failed(item, reason)

    def _failed(self, item: Item, reason: str, *, worker: str = "") -> TileFailed:
        """Put a tile back to 254 and list it.

        Raises:
            StoreError: not even that can be written.
        """
        scene, name = item
        opened = open_run(self)
        core, store = opened.plan.by_name[scene].tiling.named(name).core, opened.store(scene)
        try:
            store.clear(core)
            return store.mark_failed(TileFailed(scene, name, core.area, reason, worker))
        except OSError as error:
            raise StoreError(
                f"{self.run} cannot be written ({error.strerror}), after tile {name} failed ({reason}); "
                "what is done is kept: make room and run again"
            ) from error


class Opened:
    """A run as a worker process holds it: plan, model and the latest sources, each opened once for all threads."""

    def __init__(self, directory: RunDirectory) -> None:
        self.run = directory
        self.plan = parse_plan(directory.read_json(PLAN_FILE), where=directory.path)
        self._lock = Lock()
        self._model: Model | None = None
        self._sources: dict[str, Source] = {}

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

    def source(self, scene: str) -> Source:
        """The image of a scene; the least recently opened one of more than a few is let go."""
        with self._lock:
            if scene not in self._sources:
                while len(self._sources) >= SOURCES_KEPT:
                    self._sources.pop(next(iter(self._sources)))
                self._sources[scene] = self.plan.by_name[scene].open()
            return self._sources[scene]

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
        opened.source(scene.name)
        seconds = _predict_once(opened)
        RunDirectory.create(opened.run.path)
    except Exception as error:
        # ^ whatever it is, this worker cannot work, and the others may
        return Proof(__version__, 0.0, 0.0, reason_of(error))
    return Proof(__version__, seconds, peak_mb())


def _predict_once(opened: Opened) -> float:
    """Seconds that a second batch takes; the first one warms up."""
    layout, spec = opened.plan.scenes[0].layout, opened.plan.spec
    batch = np.zeros((layout.batch, len(spec.bands), layout.lattice.patch, layout.lattice.patch), np.float32)
    opened.model.predict(batch)
    start = time.perf_counter()
    opened.model.predict(batch)
    return time.perf_counter() - start


def _with_retries(opened: Opened, scene: str, name: str) -> TileDone:
    plan = opened.plan.by_name[scene]
    parts: dict[str, Any] = {
        "source": opened.source(scene),
        "model": opened.model,
        "store": opened.store(scene),
        "recipe": plan.recipe(opened.plan.spec),
    }
    for attempt in range(1, ATTEMPTS):
        try:
            return segment_tile(plan.tiling.named(name), **parts)
        except Exception as error:
            if not is_transient(error):
                raise
            time.sleep(BACK_OFF * 2**attempt)
    return segment_tile(plan.tiling.named(name), **parts)


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
