"""State of a run in a worker process, opened once for all its threads and all items of an execution."""

from __future__ import annotations

import os
import uuid
import zlib
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from tilesseg.errors import StoreError
from tilesseg.inference.segment_tile import SceneWork
from tilesseg.inference.worker_phases import announce
from tilesseg.models.network import Call
from tilesseg.planning.fault_options import NO_LIMIT, TileLimit
from tilesseg.planning.job import read_job
from tilesseg.planning.plan import PLAN_FILE, load_planned, parse_plan
from tilesseg.planning.recipe import call_of
from tilesseg.planning.scene_plan import SceneRun
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.process import keep_freed_memory
from tilesseg.store.generations import Generation
from tilesseg.store.locks import alone
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.scene_store import Store
from tilesseg.version import __version__

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.models.averaging import Computing
    from tilesseg.models.network import Network
    from tilesseg.planning.job import Job
    from tilesseg.planning.scene_plan import ScenePlan


SOURCES_KEPT, PLANS_KEPT, NETWORKS_KEPT = 4, 64, 4

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Run that a process works on: all that is sent to a worker beside its items."""

    run: str
    """Path of the run directory."""
    token: str
    """Name of this execution: a process that served an earlier execution opens everything anew."""
    first: str
    """Name of a planned scene, with which a worker proves that it can work."""
    shared: bool = False
    """Whether other processes work on the run without a scheduler between them."""
    generation: int = 0
    """Number of this execution, while which is current its attempts may write; 0: they always may."""
    limit: TileLimit = NO_LIMIT
    """Time within which a tile has to make its next step."""
    version: str = __version__

    @classmethod
    def of(
        cls,
        run: RunDirectory,
        *,
        first: str,
        shared: bool = False,
        generation: int = 0,
        limit: TileLimit = NO_LIMIT,
    ) -> Assignment:
        """Assignment of an execution; its token begins with a name of the run, the same for all its executions."""
        path = os.path.abspath(run.path)
        return cls(path, f"{run_key(path)}-{uuid.uuid4().hex[:6]}", first, shared, generation, limit)

    def check(self) -> None:
        """Let this execution write as long as it is current; raises as `Generation.check`."""
        if self.generation:
            Generation(Path(self.run), self.generation).check()


def run_key(path: str) -> str:
    """Name of a run in the names of its tasks, from the absolute path of its directory."""
    return f"{zlib.crc32(path.encode()):08x}"


class Opened:
    """Run of a worker process: plan, model and the latest sources, each opened once for all threads."""

    def __init__(self, work: Assignment) -> None:
        self.run = RunDirectory(Path(work.run), generation=work.generation)
        self.plan = parse_plan(self.run.read_json(PLAN_FILE), where=self.run.path)
        self.shared = work.shared
        self.proven = False
        self._lock, self._compiling = Lock(), Lock()
        self._model: Computing | None = None
        self._job: Job | None = None
        self._scenes: OrderedDict[str, ScenePlan] = OrderedDict()
        self._sources: OrderedDict[tuple[str, bool], Source] = OrderedDict()
        self._networks: OrderedDict[Call, Network] = OrderedDict()

    @property
    def model(self) -> Computing:
        """The network, or the mean of several, checked against the plan.

        Raises:
            ModelError: the file is not the one that the plan was made with, or cannot be loaded.
        """
        with self._lock:
            if self._model is None:
                self._model = load_planned(self.plan)
            return self._model

    @property
    def job(self) -> Job:
        """The job, for scenes that are still to be planned."""
        with self._lock:
            if self._job is None:
                self._job = read_job(self.run.path / "job.yaml")
            return self._job

    def scene(self, name: str) -> ScenePlan:
        """The plan of a scene, one of the latest few.

        Raises:
            StoreError: the plan is gone.
        """
        with self._lock:
            if name not in self._scenes:
                planned = stored_scene_plan(self.store(name))
                if planned is None:
                    raise StoreError(f"{self.store(name).folder} has lost its {PLAN_FILE}; run again")
                _keep(self._scenes, name, planned, PLANS_KEPT)
            return self._scenes[name]

    def forget(self, name: str) -> None:
        """Drop the plan of a scene that has been planned anew."""
        with self._lock:
            self._scenes.pop(name, None)

    def source(self, scene: str, *, copied: bool = True) -> Source:
        """The image of a scene; only the latest few stay open.

        Args:
            scene: name of the scene.
            copied: whether to open the copy in the run directory, where there is a copy; else the image itself.
        """
        plan, key = self.scene(scene), (scene, copied)
        with self._lock:
            if key not in self._sources:
                source = plan.open_for_tiles(self.store(scene).folder) if copied else plan.open()
                _keep(self._sources, key, source, SOURCES_KEPT)
            return self._sources[key]

    def network(self, call: Call) -> Network:
        """The network with this pre- and post-processing, one of the latest few: similar scenes share it.

        Raises:
            ModelError: it cannot be loaded, or does not run as it is planned.
        """
        model = self.model
        with self._compiling:  # a lock of its own: it may take seconds, and other threads read and write meanwhile
            network = self._networks.pop(call, None) or model.network(call)
            _keep(self._networks, call, network, NETWORKS_KEPT)
            return network

    def call(self, scene: str, source: Source) -> Call:
        """Pre- and post-processing of a scene's network; `source` is the image or its copy."""
        planned = self.scene(scene)
        recipe = planned.recipe(self.plan)
        return call_of(planned.layout.lattice, recipe, dtype=source.dtype, spec=self.plan.spec)

    def scene_run(self, scene: str) -> SceneRun:
        """A scene's plan and the place of its files."""
        return SceneRun(self.store(scene), self.plan, self.scene(scene))

    def work(self, scene: str) -> SceneWork:
        """Everything that the tiles of a scene share."""
        spec, source = self.plan.spec, self.source(scene)
        recipe = self.scene(scene).recipe(self.plan)
        network = self.network(self.call(scene, source))
        return SceneWork(source, network, spec, self.store(scene), recipe, self.plan.compute.parallel_batches)

    def store(self, scene: str) -> Store:
        return self.run.scene(scene)

    def alone(self, *part: str) -> AbstractContextManager[object]:
        """Hold a part of a run that several processes without a scheduler share; others wait."""
        return alone(self.run.path, *part, shared=self.shared)


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)


_OPENING = Lock()
_opened: tuple[Assignment, Opened] | None = None


def open_run(work: Assignment) -> Opened:
    """The run, opened once per process and execution; an earlier execution is dropped."""
    global _opened
    with _OPENING:
        if _opened is None or _opened[0] != work:
            keep_freed_memory()
            _opened = work, Opened(work)
            announce()
        return _opened[1]


def is_proven(work: Assignment) -> bool:
    """Whether this process has proved that it can work on the run."""
    return _opened is not None and _opened[0] == work and _opened[1].proven
