"""`tilesseg status`: state of a run, from its directory alone."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilesseg.cli.options import AsJson, RunFolder
from tilesseg.errors import JobError, StoreError

if TYPE_CHECKING:
    from tilesseg.reporting.status import Status, Watch


REDRAW = 2.0
"""Seconds between two updates of `--watch` on a terminal."""
REPEAT = 10.0
"""Seconds between two updates of `--watch` where stdout is no terminal."""


def status(
    run: RunFolder,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print again until nobody works on the run.")] = False,
) -> None:
    """Print how far a run is, how fast and until when, from its directory alone."""
    if not watch:
        return _print(_watch_of(run).look(), as_json=as_json)
    with suppress(KeyboardInterrupt):  # Ctrl-C is the usual end of watching, no failure
        _wait_for_plan(run)
        if sys.stdout.isatty() and not as_json:
            _watch_on_terminal(_watch_of(run))
        else:
            _watch_in_lines(_watch_of(run), as_json=as_json)


def _watch_of(run: Path) -> Watch:
    from tilesseg.cluster.queue.schedulers import submitted_jobs
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

    while not (run / PLAN_FILE).exists() and (job := _job_in_queue(run)):
        print(f"job {job} waits in the queue", file=sys.stderr, flush=True)
        time.sleep(REPEAT)


def _job_in_queue(run: Path) -> str | None:
    """Id of a job of the run that waits or runs; None without such a job, or where the queue's commands are missing."""
    from tilesseg.cluster.queue.schedulers import queue_of, submitted_jobs, waiting_jobs

    jobs = submitted_jobs(run)
    try:
        waiting = waiting_jobs(run, queue_of(jobs[-1].queue), jobs[-1].queue) if jobs else []
    except JobError:
        return None
    return waiting[-1] if waiting else None


def _print(status: Status, *, as_json: bool = False) -> None:
    from tilesseg.cli.status_text import drawn, status_text

    if as_json:
        print(json.dumps(status.to_json(), indent=1))
    elif sys.stdout.isatty() and len(status.report.scenes) > 1:
        from rich import print as draw

        draw(drawn(status))
    else:
        print(status_text(status))


def _watch_on_terminal(watch: Watch) -> None:
    from rich.live import Live

    from tilesseg.cli.status_text import drawn

    status = watch.look()
    with Live(drawn(status), auto_refresh=False, vertical_overflow="crop") as live:
        while status.progress.running or _job_in_queue(watch.run.path):
            time.sleep(REDRAW)
            status = watch.look()
            live.update(drawn(status), refresh=True)


def _watch_in_lines(watch: Watch, *, as_json: bool) -> None:
    """Print a line for each update and the whole status at the end; with JSON, an object a line."""
    from tilesseg.cli.status_text import job_lines

    status = watch.look()
    while status.progress.running or _job_in_queue(watch.run.path):
        line = json.dumps(status.to_json()) if as_json else "; ".join(job_lines(status.progress))
        print(line, flush=True)
        time.sleep(REPEAT)
        status = watch.look()
    if as_json:
        print(json.dumps(status.to_json()), flush=True)
    else:
        _print(status)
