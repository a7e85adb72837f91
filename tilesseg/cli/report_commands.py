"""`tilesseg status` and `tilesseg report`: what a run came to, from its directory alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilesseg.cli.options import RunFolder
from tilesseg.errors import JobError, StoreError

if TYPE_CHECKING:
    from tilesseg.reporting.status import Status, Watch


REDRAW = 2.0
"""Seconds between two looks of `--watch` on a terminal."""
REPEAT = 10.0
"""The same elsewhere."""


def status(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until nobody works on the run.")] = False,
) -> None:
    """Say how far a run is, how fast and until when, from its directory alone."""
    if not watch:
        return _print(_eye(run).look(), as_json=as_json)
    with suppress(KeyboardInterrupt):  # who has seen enough has done nothing wrong
        _wait_for_plan(run)
        if sys.stdout.isatty() and not as_json:
            _watch_on_terminal(_eye(run))
        else:
            _watch_in_lines(_eye(run), as_json=as_json)


def report(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="The file to write; else report.html in the run.")] = None,
) -> None:
    """Write report.html of a run, also of one that is not finished: one file to send to a colleague."""
    from tilesseg.planning.stored_plan import open_run_directory
    from tilesseg.reporting.html.report_page import write_report

    directory, plan = open_run_directory(run)
    print(write_report(directory, plan, out))


@contextmanager
def reported(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Write report.html when a run ends, also one that is stopped; not of a refused one, nor before its last part.

    Args:
        run: the run directory.
        shared: whether other processes work on the run.
    """
    before = _told(run)
    try:
        yield
    finally:
        try:
            if _told(run) > before and not (shared and _left(run)):
                report(run)
        except Exception as error:
            # ^ of any kind: a report is not worth a run, and what the run itself says is not hidden
            print(f"no report is written: {type(error).__name__}: {error}", file=sys.stderr)


def _told(run: Path) -> int:
    """How much is told of a run so far: of one that is refused nothing is added."""
    events = run / "events.jsonl"
    return events.stat().st_size if events.exists() else 0


def _left(run: Path) -> bool:
    from tilesseg.run.run_job import job_status

    return any(scene.state in ("waiting", "unfinished") for scene in job_status(run).scenes)


def _eye(run: Path) -> Watch:
    from tilesseg.cluster.queue.submitted_jobs import submitted_jobs
    from tilesseg.planning.plan import PLAN_FILE
    from tilesseg.planning.stored_plan import open_run_directory, scene_names
    from tilesseg.reporting.status import Watch

    if not (run / PLAN_FILE).exists() and (jobs := submitted_jobs(run)):
        raise StoreError(f"{run} has not begun: job {jobs[-1].id} was submitted for it; add --watch to wait for it")
    directory, plan = open_run_directory(run)
    return Watch(directory, plan, scene_names(directory))


def _wait_for_plan(run: Path) -> None:
    """Wait for a run that is in a queue and has never begun."""
    from tilesseg.planning.plan import PLAN_FILE

    while not (run / PLAN_FILE).exists() and (job := _in_queue(run)):
        print(f"job {job} waits in the queue", file=sys.stderr, flush=True)
        time.sleep(REPEAT)


def _in_queue(run: Path) -> str | None:
    """A job of the run that waits or runs, where its queue can be asked."""
    from tilesseg.cluster.queue.schedulers import queue_of
    from tilesseg.cluster.queue.submitted_jobs import submitted_jobs, waiting_jobs

    jobs = submitted_jobs(run)
    try:
        waiting = waiting_jobs(run, queue_of(jobs[-1].queue), jobs[-1].queue) if jobs else []
    except JobError:
        return None
    return waiting[-1] if waiting else None


def _print(found: Status, *, as_json: bool = False) -> None:
    from tilesseg.cli.status_table import drawn, status_text

    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    elif sys.stdout.isatty() and len(found.report.scenes) > 1:
        from rich import print as draw

        draw(drawn(found))
    else:
        print(status_text(found))


def _watch_on_terminal(eye: Watch) -> None:
    from rich.live import Live

    from tilesseg.cli.status_table import drawn

    found = eye.look()
    with Live(drawn(found), auto_refresh=False, vertical_overflow="crop") as live:
        while found.progress.running or _in_queue(eye.run.path):
            time.sleep(REDRAW)
            found = eye.look()
            live.update(drawn(found), refresh=True)


def _watch_in_lines(eye: Watch, *, as_json: bool) -> None:
    """A line for each look, and all of it at the end; JSON: an object a line."""
    from tilesseg.cli.status_table import job_lines

    found = eye.look()
    while found.progress.running or _in_queue(eye.run.path):
        told = json.dumps(found.to_json()) if as_json else "; ".join(job_lines(found.progress))
        print(told, flush=True)
        time.sleep(REPEAT)
        found = eye.look()
    if as_json:
        print(json.dumps(found.to_json()), flush=True)
    else:
        _print(found)
