"""What a worker does: open what the plan names once per process, segment one tile, answer a failure as a value."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilesseg import __version__
from tilesseg.errors import ModelError, TilessegError
from tilesseg.events import TileDone, TileFailed
from tilesseg.models import find_bundle, load_model
from tilesseg.plan import PLAN_FILE, Plan, parse_plan
from tilesseg.segment import segment_tile
from tilesseg.store import RunDirectory, Store

if TYPE_CHECKING:
    from tilesseg.formats import Source
    from tilesseg.models import Model

TRANSIENT = (ConnectionError, TimeoutError, InterruptedError)
TRANSIENT_WORDS = ("curl error", "http error code: 5", "timed out", "connection reset", "temporarily unavailable")
ATTEMPTS, BACK_OFF = 3, 1.0

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
        """Segment one tile. Whatever goes wrong costs this tile alone: it is put back to 254 and listed."""
        scene, name = item
        opened = open_run(self.run, self.token)
        tile = opened.plan.by_name[scene].tiling.named(name)
        try:
            return _with_retries(opened, scene, name)
        except Exception as error:  # noqa: BLE001 -- one bad tile costs one tile; the reason is in its record
            store = opened.store(scene)
            store.clear(tile.core)
            return store.mark_failed(TileFailed(scene, name, tile.core.area, _reason(error), socket.gethostname()))

    def lost(self, item: Item, reason: str) -> TileFailed:
        """The record of a tile whose worker process died."""
        scene, name = item
        opened = open_run(self.run, self.token)
        tile, store = opened.plan.by_name[scene].tiling.named(name), opened.store(scene)
        store.clear(tile.core)
        return store.mark_failed(TileFailed(scene, name, tile.core.area, reason))


@dataclass(frozen=True)
class Opened:
    """A run as a worker process holds it."""

    run: RunDirectory
    plan: Plan

    @cached_property
    def model(self) -> Model:
        """The network, loaded once per process and checked against the plan.

        Raises:
            ModelError: it is not the one that the plan was made with.
        """
        bundle = find_bundle(self.plan.model)
        if bundle.sha256 != self.plan.model_sha256:
            raise ModelError(
                f"model {self.plan.model} has sha256 {bundle.sha256[:12]}… here and {self.plan.model_sha256[:12]}… in the plan; "
                "give every worker the same bundle"
            )
        return load_model(bundle, device=self.plan.device, threads=self.plan.engine_threads)

    def store(self, scene: str) -> Store:
        return self.run.scene(scene)

    @lru_cache(maxsize=4)  # noqa: B019 -- lives as long as the process serves this run
    def source(self, scene: str) -> Source:
        return self.plan.by_name[scene].open()

    def __hash__(self) -> int:
        return id(self)


@lru_cache(maxsize=1)
def open_run(run: str, token: str) -> Opened:
    """The run directory, opened once per process and carrying-out."""
    directory = RunDirectory(Path(run))
    return Opened(directory, parse_plan(directory.read_json(PLAN_FILE), where=directory.path))


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
        opened = open_run(work.run, work.token)
        scene = opened.plan.scenes[0]
        opened.source(scene.name)
        seconds = _predict_once(opened)
        RunDirectory.create(opened.run.path)
    except TilessegError as error:
        return Proof(__version__, 0.0, 0.0, str(error))
    import resource

    return Proof(__version__, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


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


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, TilessegError) else f"{type(error).__name__}: {text}"
