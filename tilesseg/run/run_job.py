"""Execution of a job: plan, check workers, segment, write products, report.

The run directory is the truth, and to resume is to run again: tiles without a record in `done/` are still to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import Executor, SerialExecutor, ThreadExecutor
from tilesseg.cluster.forkserver import cool_down, warm_up
from tilesseg.cluster.leftovers import free_workers
from tilesseg.cluster.local_workers import refuse_unguarded_script
from tilesseg.cluster.queue.schedulers import LOGS
from tilesseg.cluster.queue.submit import named_cluster
from tilesseg.doubts import code_of
from tilesseg.errors import ClusterLost, JobError
from tilesseg.events import (
    Event,
    Listener,
    Note,
    ProductWritten,
    RegionStaged,
    RunFinished,
    RunStarted,
    SceneFinished,
    SceneRefused,
    TileDone,
    tell,
)
from tilesseg.monitoring.dashboard.publisher import open_publisher
from tilesseg.planning.machine import speed_at
from tilesseg.planning.memory import estimate
from tilesseg.planning.plan import Plan, plan_job
from tilesseg.planning.product_checks import check_submission
from tilesseg.planning.scene_plan import ScenePlan, SceneRun
from tilesseg.planning.stored_plan import open_run_directory, planned_event, scene_names
from tilesseg.process import available_cores
from tilesseg.reporting.results import Report, report_of
from tilesseg.reporting.summary_csv import write_summary
from tilesseg.run.fault_limits import FaultLimits
from tilesseg.run.finish_scene import finish_scene
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.run.prepare_run import Prepared, choose_machine, measure_for, prepare, trial_for
from tilesseg.run.tile_watchdog import explain_death, overdue, remove_empty
from tilesseg.run.work_queue import RemainingTiles, WorkQueue
from tilesseg.run.worker import TileWork
from tilesseg.run.worker_check import Proof, problem_of, prove
from tilesseg.run.worker_state import Assignment, run_key
from tilesseg.store.driver_record import driver_record
from tilesseg.store.locks import alone

if TYPE_CHECKING:
    from tilesseg.planning.job import Job


__all__ = ["Report", "job_status", "plan_job", "run_job"]


def run_job(
    job: Job,
    *,
    executor: Executor | None = None,
    listeners: Sequence[Listener] = (),
    only: Sequence[str] = (),
    limit: int | None = None,
    share: ArrayShare | None = None,
    retry_damaged: bool = False,
) -> Report:
    """Execute a job, or go on with it.

    Every refusal of the job comes before its first tile, every refusal of a scene before that scene's first tile.

    Args:
        job: the job.
        executor: executor of the run; None starts or reaches the workers of `job.cluster`.
        listeners: called with every event, in this thread.
        only: names or patterns of the scenes to do; none means all.
        limit: largest number of scenes to do, the most important first.
        share: tiles to compute; other processes compute the others, in the same directory. None means all.
        retry_damaged: whether tiles that are done with damage are done again.

    Returns:
        Results of the run; `exit_code` sums them up.

    Raises:
        TilessegError: the job cannot work. Nothing but the run directory has been made then.
        ClusterLost: the scheduler or the last worker has gone away, and may not be started again, or went away twice
            before anything was done. What is done is kept.
    """
    begun, begin = time.monotonic(), partial(_execute, job, executor=executor, only=only, limit=limit, share=share)
    while True:
        work = _WorkSeen()
        try:
            return begin(listeners=[*listeners, work], retry_damaged=retry_damaged, begun=begun)
        except ClusterLost as error:
            if executor is not None or not work.any or not cluster.may_restart(job.cluster):
                raise
            tell(listeners, Note(f"{error}: the run goes on by itself with new workers"))
        cluster.wait_for_scheduler(job.cluster)
        retry_damaged = False


class _WorkSeen:
    """Listener that knows whether anything has been done."""

    any = False

    def __call__(self, event: Event) -> None:
        self.any = self.any or isinstance(event, TileDone | RegionStaged | SceneFinished)


def _execute(
    job: Job,
    *,
    executor: Executor | None,
    listeners: Sequence[Listener],
    only: Sequence[str],
    limit: int | None,
    share: ArrayShare | None,
    retry_damaged: bool,
    begun: float,
) -> Report:
    """Execute a job once, as `run_job`."""

    def say(text: str) -> None:
        tell(listeners, Note(text))

    with ExitStack() as stack:
        if executor is None and job.cluster.kind == "local":
            refuse_unguarded_script()
            warm_up(job.cluster)
            stack.callback(cool_down)
        if executor is None and not cluster.is_here(job.cluster):
            executor = stack.enter_context(_elsewhere(job, say))
        machine, measure = choose_machine(job, executor), measure_for(job, executor, say=say)
        try_model = trial_for(job, executor)
        ready = stack.enter_context(
            prepare(
                job,
                machine,
                measure=measure,
                try_model=try_model,
                only=only,
                limit=limit,
                share=share,
                retry_damaged=retry_damaged,
            )
        )
        stack.enter_context(driver_record(ready.run.path, str(share) if share else None))
        if ready.first is None:
            executor = executor or SerialExecutor()  # there is nothing to do, and nobody is started for it
        executor = executor or stack.enter_context(cluster.connect(job.cluster, ready.plan.compute.device))
        return _Run(ready, job, executor, [*listeners], stack, begun, share).carry_out()


def _elsewhere(job: Job, say: Callable[[str], None]) -> AbstractContextManager[Executor]:
    """Workers of a cluster; a job that cannot work requests none."""
    check_submission(job)
    run = Path(job.output.dir).absolute()
    return cluster.connect(named_cluster(job.cluster, run), "cpu", logs=run / LOGS, say=say)


def job_status(directory: Path) -> Report:
    """State of a run, from its directory alone.

    Raises:
        StoreError: this is no run directory.
    """
    run, plan = open_run_directory(directory)
    return report_of(run, plan, names=scene_names(run))


@dataclass
class _Run:
    """One execution of a run, from the workers' preflight to the last product."""

    ready: Prepared
    job: Job
    executor: Executor
    listeners: list[Listener]
    until_the_end: ExitStack
    begun: float
    share: ArrayShare | None = None
    written: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        return self.ready.plan

    def carry_out(self) -> Report:
        first, link = self.ready.first, self._open_page()
        self._announce(link)
        if first is not None:
            work = TileWork(
                Assignment.of(
                    self.ready.run,
                    first=first.name,
                    shared=self.share is not None,
                    generation=self.ready.generation.number,
                    limit=self.job.faults.tile_limit,
                )
            )
            self._take_over(work.work)
            self._prove(work, first)
            self._work(work, first)
        return self._conclude()

    def _take_over(self, work: Assignment) -> None:
        """Take the workers from earlier executions of the run, and have them and this run tell of faults.

        Raises:
            JobError: no worker is left.
        """
        if isinstance(self.executor, ThreadExecutor):
            self.executor.overdue = overdue(work.limit)
        if not isinstance(self.executor, DaskExecutor):
            return
        self.executor.explain = partial(explain_death, self.ready.run.path, work.limit)
        self.executor.say = lambda text: self._tell(Note(text))
        if work.generation > 1:
            free_workers(self.executor, run_key(work.run), work.token)

    def _open_page(self) -> str | None:
        """Show the run in Dask's dashboard; returns the page's address, or None without a dashboard."""
        if not isinstance(self.executor, DaskExecutor):
            return None
        publisher = open_publisher(self.executor.client, run=self.ready.run.path)
        if isinstance(publisher, str):
            self._tell(Note(publisher))
            link: str | None = self.executor.client.dashboard_link
            return link
        self.until_the_end.callback(publisher.close)
        self.listeners.append(publisher)
        if publisher.note:
            self._tell(Note(publisher.note))
        return publisher.link

    def _announce(self, link: str | None) -> None:
        names = tuple(label.name for label in self.plan.spec.classes)
        self._tell(
            RunStarted(
                scenes=len(self.ready.scenes),
                finished=self.ready.finished,
                finished_pixels=self.ready.finished_pixels,
                slots=self.executor.slots,
                dashboard=link,
                job=self.job.name,
                directory=str(self.ready.run.path),
                classes=names,
            )
        )
        threads = f"engine threads: {self.plan.compute.engine_threads}"
        self._tell(Note(f"{self.plan.spec.name} computes on {self.plan.compute.device}, {threads}"))
        self._tell(Note(f"engine {self.plan.engine}"))
        for name, why in self.ready.refused.items():
            self._tell(SceneRefused(name, why))

    def _prove(self, work: TileWork, first: ScenePlan) -> None:
        """Let every worker prove that it can do a tile, and exclude workers that cannot.

        Raises:
            JobError: none can.
        """
        answers = cluster.ask_workers(self.executor, prove, work.work)
        failing = {address: problem for address, answer in answers.items() if (problem := problem_of(answer))}
        if failing and len(failing) == len(answers):
            raise JobError(next(iter(failing.values())))
        if isinstance(self.executor, DaskExecutor):
            for address, problem in failing.items():
                self.executor.leave_out(address, problem)
        if answers:  # else all workers have just left, and those that come prove themselves
            self._check_memory(first, [answer for answer in answers.values() if not problem_of(answer)])

    def _check_memory(self, first: ScenePlan, able: Sequence[Proof]) -> None:
        """Refuse what does not fit into a worker, by what the workers have measured and the first scene takes.

        Raises:
            JobError: with both figures.
        """
        proof, threads = max(able, key=lambda proof: proof.peak_mb), cluster.threads_per_worker(self.job.cluster)
        known = speed_at(first.layout.lattice.patch, self.plan.compute.speeds)
        cost = estimate(
            first,
            self.plan,
            loaded_mb=max(proof.peak_mb, known.memory_mb if known else 0.0),
            seconds_per_batch=proof.seconds_per_batch,
            workers=1,
            threads=threads,
        )
        cluster.check_memory(self.job.cluster, needed_mb=cost.memory_mb, device=self.plan.compute.device)

    def _work(self, work: TileWork, first: ScenePlan) -> None:
        """Do all items, over all scenes; products of a single scene are made by all workers together."""
        here = isinstance(self.executor, DaskExecutor) and not self.ready.to_do and self.share is None
        left = RemainingTiles(self.ready.run, self.share)
        feed = WorkQueue(
            iter(self.ready.to_do),
            left.tiles,
            left.regions,
            left.all_tried,
            lookahead=lambda: 2 * self.executor.slots,
            finish=not here,
        )
        with self._alone(first.name, "plan"):
            begin = planned_event(first, store=self.ready.run.scene(first.name))
        self._tell(begin)
        feed.begin(first.name, copied=begin.regions > 0)
        faults = FaultLimits(self.job.faults.max_failed, self._any_done)
        with closing(self.executor.map(work, feed, lost=work.lost)) as events:  # type: ignore[arg-type,type-var]
            for event in events:
                self._take(event, feed)
                if faults.exceeded(event):
                    self._tell(Note(faults.text))
                    here = False
                    break
        if here:
            self._finish_here(first)

    def _any_done(self) -> bool:
        """Whether any tile of the run is done, by this execution or an earlier one."""
        return any(self.ready.run.scene(scene.name).ledger.any_done() for scene in self.ready.scenes)

    def _take(self, event: Event, feed: WorkQueue) -> None:
        if isinstance(event, SceneFinished):
            for path, seconds in event.products.items():
                self._tell(ProductWritten(event.scene, path, seconds, event.replaced.get(path, "")))
            self._ended(event)
        self._tell(event)
        feed.take(event)

    def _ended(self, event: SceneFinished) -> None:
        """Note the products of a scene at its end, and remove the copy of its image."""
        self.written += event.products
        if event.problem:
            self._tell(Note(f"{event.scene}: {event.problem}"))
        store = self.ready.run.scene(event.scene)
        with self._alone(event.scene, "products"):
            copy = ScenePlan.copy_in(store.folder)
            if copy.folder.exists() and not store.failed():
                copy.remove()

    def _alone(self, *part: str) -> AbstractContextManager[object]:
        return alone(self.ready.run.path, *part, shared=self.share is not None)

    def _finish_here(self, scene: ScenePlan) -> None:
        """Write the products of the only scene with the help of all workers."""
        threads = available_cores()
        ended = finish_scene(
            SceneRun(self.ready.run.scene(scene.name), self.plan, scene),
            self.job.output,
            executor=self.executor,
            threads=threads,
            written=self._tell,
        )
        self._ended(ended)
        self._tell(ended)

    def _conclude(self) -> Report:
        report = report_of(
            self.ready.run,
            self.plan,
            names=[scene.name for scene in self.ready.scenes],
            products=tuple(self.written),
            seconds=round(time.monotonic() - self.begun, 3),
            name=self.job.name,
            share=str(self.share) if self.share else None,
        )
        for scene in report.scenes:
            for note in scene.notes:
                if code_of(note) == "empty-mask":
                    self._tell(Note(f"{scene.scene}: warning: {note}"))
        remove_empty(self.ready.run.path)
        self.ready.run.write_json("summary.json", report.to_json())
        write_summary(self.ready.run, report)
        done, failed = sum(scene.done for scene in report.scenes), sum(len(scene.failed) for scene in report.scenes)
        refused = sum(scene.refused is not None for scene in report.scenes)
        self._tell(RunFinished(done, failed, refused, report.seconds or 0.0))
        return report

    def _tell(self, event: Event) -> None:
        self.ready.run.log(event, time.time())
        tell(self.listeners, event)
