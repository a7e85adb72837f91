"""The run: a job carried out. Plan, prove, segment, write; then say what happened.

The run directory is the truth, and to resume is to run again: what is left is the tiling without `done/`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tilesseg import __version__, cluster
from tilesseg.copies import batches, let_copy_go, regions_to_copy, scenes_to_copy
from tilesseg.errors import JobError, StoreError
from tilesseg.events import Event, Listener, Note, RunFinished, RunStarted, SceneRefused, TileDone, TileFailed
from tilesseg.executors import DaskExecutor, Executor, ThreadExecutor
from tilesseg.job import Output, Product
from tilesseg.models import available_cores
from tilesseg.plan import PLAN_FILE, Machine, Plan, parse_plan, plan_job
from tilesseg.products import check_products, write_products
from tilesseg.report import Report, report_of
from tilesseg.store import RunDirectory
from tilesseg.worker import Item, Proof, TileWork, prove, reason_of

if TYPE_CHECKING:
    from tilesseg.job import Job

__all__ = ["Report", "export_run", "job_status", "plan_job", "run_job"]


def run_job(job: Job, *, executor: Executor | None = None, listeners: Sequence[Listener] = ()) -> Report:
    """Carry a job out, or go on with it. Every refusal comes before the first tile.

    Args:
        job: what is asked.
        executor: who works; None starts or reaches what `job.cluster` says.
        listeners: called with every event, in this thread.

    Returns:
        What the run came to; `exit_code` sums it up.

    Raises:
        TilessegError: the job cannot work. Nothing but the run directory has been made then.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        if executor is None and job.cluster.kind == "local":
            cluster.refuse_unguarded_script()
        if executor is None and job.cluster.kind == "address":
            executor = stack.enter_context(cluster.connect(job.cluster, "cpu"))
        machine = _machine(job, executor)
        run, plan = prepare(job, machine)
        executor = executor or stack.enter_context(cluster.connect(job.cluster, plan.device))
        return _Run(run, plan, job, executor, listeners, begun).carry_out()


def prepare(job: Job, machine: Machine) -> tuple[RunDirectory, Plan]:
    """Plan the job, or find its plan, and make everything that the tiles are written to.

    Raises:
        TilessegError: the job cannot work, or this directory belongs to another one.
    """
    path = Path(job.output.dir)
    directory = RunDirectory(path)
    plan = plan_job(job, machine, stored=_stored_plan(directory))
    check_products(directory, plan, job.output)
    run = RunDirectory.create(path)
    for scene in plan.scenes:
        layout = scene.layout
        run.scene(scene.name).create(
            shape=scene.grid.shape,
            shard=layout.shard,
            chunk=layout.chunk,
            fingerprint=plan.fingerprint(scene.name),
            scores=plan.score_classes,
        )
    run.write_text("job.yaml", yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    run.write_json(PLAN_FILE, plan.to_json())
    return run, plan


def _stored_plan(directory: RunDirectory) -> Plan | None:
    """The plan to go on with, or None where no tile has been done by one."""
    data = directory.read_json(PLAN_FILE) if directory.path.exists() else None
    if data is None:
        return None
    stored = parse_plan(data, where=directory.path)
    return stored if any(directory.scene(name).done_names() for name in stored.by_name) else None


def job_status(directory: Path) -> Report:
    """How far a run is, from its directory alone.

    Raises:
        StoreError: this is no run directory.
    """
    run, plan = open_run_directory(directory)
    return report_of(run, plan)


def export_run(directory: Path, product: Product, *, listeners: Sequence[Listener] = ()) -> None:
    """Write a further product of every scene of a run.

    Raises:
        StoreError: this is no run directory, or tiles are still missing.
        FormatError: the product cannot be written.
    """
    run, plan = open_run_directory(directory)
    output = Output(dir=str(directory), products=(product,), preview=False)
    check_products(run, plan, output)
    for scene in report_of(run, plan).scenes:
        if scene.missing:
            raise StoreError(
                f"scene {scene.scene} has {scene.missing} of {scene.tiles} tiles still to do; finish it with "
                "tilesseg run"
            )
        if scene.done:
            threads = available_cores()
            for written in write_products(
                run, plan, scene.scene, output, executor=ThreadExecutor(threads), threads=threads
            ):
                _tell(listeners, written)


def open_run_directory(directory: Path) -> tuple[RunDirectory, Plan]:
    """A run that exists.

    Raises:
        StoreError: this is no run directory.
    """
    run = RunDirectory(directory)
    return run, parse_plan(run.read_json(PLAN_FILE), where=directory)


def _machine(job: Job, executor: Executor | None) -> Machine:
    """The machine that will compute, asked on a worker where the workers are elsewhere."""
    if job.cluster.kind == "address" and isinstance(executor, DaskExecutor):
        asked: Machine = executor.client.submit(cluster.describe_machine, job.cluster, pure=False).result()
        return Machine(asked.device, asked.engine_threads, executor.slots)
    machine = cluster.describe_machine(job.cluster)
    return machine if executor is None else Machine(machine.device, machine.engine_threads, executor.slots)


@dataclass
class _Run:
    """One carrying-out, from the first proof to the last product."""

    run: RunDirectory
    plan: Plan
    job: Job
    executor: Executor
    listeners: Sequence[Listener]
    begun: float

    def carry_out(self) -> Report:
        work = TileWork.of(self.run)
        self._prove(work)
        pending = self._pending()
        self._announce(pending)
        written = list(self._work(work, pending))
        report = report_of(
            self.run, self.plan, products=tuple(written), seconds=round(time.monotonic() - self.begun, 3)
        )
        self._conclude(report)
        return report

    def _prove(self, work: TileWork) -> None:
        """Let every worker show that it can do a tile; exclude those that cannot.

        Raises:
            JobError: none can.
        """
        problems = {
            address: problem_of(answer) for address, answer in cluster.ask_workers(self.executor, prove, work).items()
        }
        failing = {address: problem for address, problem in problems.items() if problem}
        if len(failing) == len(problems):
            raise JobError(next(iter(failing.values())))
        for address, problem in failing.items():
            self._tell(Note(f"worker {address} is left out: {problem}"))
        if failing and isinstance(self.executor, DaskExecutor):
            able = tuple(address for address in problems if address not in failing)
            self.executor = DaskExecutor(self.executor.client, workers=able)

    def _pending(self) -> list[Item]:
        stores = {scene.name: self.run.scene(scene.name) for scene in self.plan.scenes}
        done = {name: set(store.done()) for name, store in stores.items()}
        return [
            (scene.name, tile.name)
            for scene in self.plan.scenes
            for tile in scene.tiling
            if tile.name not in done[scene.name]
        ]

    def _announce(self, pending: list[Item]) -> None:
        tilings = {scene.name: scene.tiling for scene in self.plan.scenes}
        pixels = sum(tilings[scene].named(tile).core.area for scene, tile in pending)
        total = sum(map(len, tilings.values()))
        client = getattr(self.executor, "client", None)
        regions = sum(len(regions_to_copy(self.run, scene)) for scene in scenes_to_copy(self.plan, pending))
        self._tell(RunStarted(len(pending), total - len(pending), pixels, client and client.dashboard_link, regions))
        self._tell(
            Note(f"{self.plan.spec.name} computes on {self.plan.device}, engine threads: {self.plan.engine_threads}")
        )
        for name, why in self.plan.refused.items():
            self._tell(SceneRefused(name, why))
        for scene in self.plan.scenes:
            for note in (*scene.notes, scene.stage_note):
                if note:
                    self._tell(Note(f"{scene.name}: {note}"))

    def _work(self, work: TileWork, pending: list[Item]) -> Iterator[str]:
        """Do the tiles; write a scene's products as soon as its last tile is in. Yields their paths."""
        left = Counter(scene for scene, _ in pending)
        for scene in self.plan.scenes:
            if not left[scene.name]:
                yield from self._products(scene.name)
        for batch in batches(self.run, self.plan, pending):
            for event in self.executor.map(work, batch, lost=work.lost):
                self._tell(event)
                if not isinstance(event, TileDone | TileFailed):
                    continue
                left[event.scene] -= 1
                if not left[event.scene]:
                    yield from self._products(event.scene)
                    let_copy_go(self.run, self.plan, event.scene)

    def _products(self, scene: str) -> Iterator[str]:
        if not self.run.scene(scene).done_names():
            self._tell(Note(f"{scene}: no tile could be done, so no product is written"))
            return
        output, threads = self.job.output, available_cores()
        for written in write_products(self.run, self.plan, scene, output, executor=self.executor, threads=threads):
            self._tell(written)
            yield written.path

    def _conclude(self, report: Report) -> None:
        for scene in report.scenes:
            if scene.empty:
                self._tell(Note(f"{scene.scene}: warning: every pixel is nodata, so the mask is empty"))
        failed = sum(len(scene.failed) for scene in report.scenes)
        done = sum(scene.done for scene in report.scenes)
        self.run.write_json("summary.json", report.to_json())
        self._tell(RunFinished(done, failed, len(self.plan.refused), report.seconds or 0.0))

    def _tell(self, event: Event) -> None:
        self.run.log(event, time.time())
        _tell(self.listeners, event)


def problem_of(answer: Proof | Exception) -> str | None:
    """Why a worker cannot be used, or None."""
    if isinstance(answer, Exception):
        return reason_of(answer)
    if answer.version != __version__:
        return f"it has tilesseg {answer.version} and the client has {__version__}; install the same version"
    return answer.problem


def _tell(listeners: Sequence[Listener], event: Event) -> None:
    for listener in listeners:
        listener(event)
