"""Work of a worker: an item at a time; a failure is a result."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from typing import NoReturn

from tilesseg.atomic_write import fenced
from tilesseg.cluster.executors import ThreadExecutor, UnfitWorker, worker_address
from tilesseg.errors import DeviceLost, NetworkFailed, RunDirectoryLost, Superseded, reason_of
from tilesseg.events import RegionFailed, RegionStaged, SceneFinished, ScenePlanned, SceneRefused, TileDone, TileFailed
from tilesseg.inference.segment_tile import segment_tile, skip_tile
from tilesseg.inference.worker_phases import working
from tilesseg.planning.stored_plan import refuse_scene, try_scene
from tilesseg.process import available_cores, this_process
from tilesseg.retry import retried
from tilesseg.run.finish_scene import finish_scene, still_finished, without_products
from tilesseg.run.tile_watchdog import watch
from tilesseg.run.work_queue import FinishItem, Item, PlanItem, StageItem, TileItem
from tilesseg.run.worker_check import refuse_if_unfit
from tilesseg.run.worker_state import Assignment, Opened, open_run
from tilesseg.store.run_directory import RunDirectory
from tilesseg.store.staged_copy import copy_region

Answer = TileDone | TileFailed | RegionStaged | RegionFailed | ScenePlanned | SceneRefused | SceneFinished


@dataclass(frozen=True, slots=True)
class TileWork:
    """Function that executors map over items; it is pickled as a few names."""

    work: Assignment

    def key(self, item: Item) -> tuple[str, ...]:
        """Name of an item's task, as the dashboard shows it."""
        match item:
            case TileItem():
                return (f"segment-{self.work.token}", item.scene, item.tile)
            case StageItem():
                return (f"copy-{self.work.token}", item.scene, item.region)
            case PlanItem():
                return (f"plan-{self.work.token}", item.scene.name)
            case FinishItem():
                return (f"products-{self.work.token}", item.scene)

    def __call__(self, item: Item) -> Answer:
        """Do an item. A failure costs this item alone, unless the run directory cannot be written.

        A worker process of a cluster whose device is lost ends: its nanny starts another process, which does the item.

        Raises:
            UnfitWorker: this process joined late and cannot work at all, or has lost the run directory.
            RunDirectoryLost: the run directory is lost.
            DeviceLost: this process computes alone, and cannot any more.
            Superseded: a later execution of the run has taken over.
        """
        self.work.check()  # a task that a later execution has overtaken computes nothing
        refuse_if_unfit(self.work)
        with fenced(self.work.check):
            return self._done_or_failed(item)

    def _done_or_failed(self, item: Item) -> Answer:
        try:
            return self._do(open_run(self.work), item)
        except DeviceLost as error:
            if worker_address():
                _end_process(item, error)
            raise
        except Superseded:
            raise  # nobody waits for the answer
        except BaseException as error:
            # ^ of any kind, SystemExit too: one bad tile costs one tile, and the reason is in its record
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # it is the user's
            self._refuse_if_lost(error, item)
            by_network = isinstance(error, NetworkFailed)
            return self._failed(item, reason_of(error), worker=this_process(), by_network=by_network)

    def _do(self, opened: Opened, item: Item) -> Answer:
        match item:
            case TileItem():
                with working(item.scene, item.tile):
                    watch(self.work)
                    return _segment(opened, item.scene, item.tile)
            case StageItem():
                return _stage(opened, item)
            case PlanItem():
                with opened.alone(item.scene.name, "plan"):
                    answer = try_scene(item.scene, run=opened.run, plan=opened.plan, job=opened.job)
                opened.forget(item.scene.name)
                return answer
            case FinishItem():
                return _finish(opened, item.scene)

    def _refuse_if_lost(self, error: BaseException, item: Item) -> None:
        """Tell a loss of the run directory from a failure of the item; it may be lost to this worker's machine alone.

        Raises:
            UnfitWorker: the run directory is lost to this worker.
            RunDirectoryLost: it is lost, and this process computes alone.
        """
        try:
            wrote = isinstance(item, TileItem | StageItem)
            RunDirectory(Path(self.work.run)).refuse_if_lost(error, wrote=wrote)
        except RunDirectoryLost as lost:
            worker = worker_address()
            if worker is None:
                raise
            raise UnfitWorker(str(lost), worker) from None

    def lost(self, item: Item, reason: str) -> Answer:
        """Record of an item whose worker process died."""
        return self._failed(item, reason)

    def _failed(self, item: Item, reason: str, *, worker: str = "", by_network: bool = False) -> Answer:
        """Record a failure: list a tile or a region, or refuse a scene. A tile that is done stays done.

        Raises:
            UnfitWorker: the record cannot be written either, by this worker.
            RunDirectoryLost: the record cannot be written, and this process computes alone.
        """
        opened = open_run(self.work)
        try:
            match item:
                case PlanItem():
                    return refuse_scene(item.scene.name, reason, run=opened.run)
                case FinishItem():
                    return without_products(opened.scene_run(item.scene), opened.job.output, problem=reason)
                case StageItem():
                    return _list_region(opened, item, reason, worker)
                case TileItem():
                    core, store = opened.scene(item.scene).tiling.named(item.tile).core, opened.store(item.scene)
                    done = store.done_record(item.tile)
                    failed = TileFailed(item.scene, item.tile, core.area, reason, worker, network=by_network)
                    return done or store.mark_failed(failed)
        except OSError as error:
            self._refuse_if_lost(error, item)
            raise


def _end_process(item: Item, error: DeviceLost) -> NoReturn:
    """End the process at once: an orderly exit would wait for threads that wait for the device."""
    logging.getLogger(__name__).critical("%s: %s; this worker process ends", item[-1], error)
    os._exit(1)


def _finish(opened: Opened, scene: str) -> SceneFinished:
    """Write a scene's products, unless another process that shares the run has."""
    threads = opened.plan.compute.engine_threads if worker_address() else available_cores()
    scene_run, output = opened.scene_run(scene), opened.job.output
    with opened.alone(scene, "products"):
        before = still_finished(scene_run, output) if opened.shared else None
        if before:
            return before
        executor = ThreadExecutor(threads)
        return finish_scene(scene_run, output, executor=executor, threads=threads)


def _segment(opened: Opened, scene: str, name: str) -> TileDone:
    plan = opened.scene(scene)
    tile, cells = plan.tiling.named(name), plan.cells
    if cells is not None and not cells.touches(tile.core):
        return skip_tile(tile, cells, grid=plan.grid, store=opened.store(scene), scores=len(opened.plan.scores))
    work = opened.work(scene)
    return retried(lambda attempt: segment_tile(tile, work, attempt=attempt))


def _stage(opened: Opened, item: StageItem) -> RegionStaged:
    """Copy a region, unless another process has: the shares of a job array need the same copy."""
    plan, source = opened.scene(item.scene), opened.source(item.scene, copied=False)
    layout = plan.stage
    assert layout is not None  # else there are no such items
    region, copy = layout.named(plan.grid.shape, item.region), plan.copy_in(opened.store(item.scene).folder)

    def copied(attempt: int) -> RegionStaged:
        return copy_region(region, source=source, copy=copy, layout=layout, scene=item.scene)

    with opened.alone(item.scene, item.region):
        done = copy.ledger.record(item.region)
        return RegionStaged(**done) if done else retried(copied)


def _list_region(opened: Opened, item: StageItem, reason: str, worker: str) -> RegionFailed:
    plan = opened.scene(item.scene)
    assert plan.stage is not None
    pixels = plan.stage.named(plan.grid.shape, item.region).window.area
    record = RegionFailed(item.scene, item.region, pixels, reason, worker)
    plan.copy_in(opened.store(item.scene).folder).ledger.mark_failed(item.region, record)
    return record
