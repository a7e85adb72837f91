"""`tilesseg report`: report.html of a run, which other commands write at the end of a run too."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import RunFolder, local_path
from tilesseg.errors import JobError, StoreError, cannot, reason_of


def report(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=local_path, help="The file to write; else report.html in the run."),
    ] = None,
) -> None:
    """Write report.html of a run, also of an unfinished one: a single file to send to a colleague."""
    from tilesseg.planning.stored_plan import open_run_directory
    from tilesseg.reporting.html.report_page import write_report

    if out is not None and out.exists() and not _is_report(out):
        cause = "a file that is no report of tilesseg lies there"
        raise JobError(cannot(f"write {out}", cause, "choose another path"))
    directory, plan = open_run_directory(run)
    print(write_report(directory, plan, out))


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"tilesseg report</title>" in file.read(1 << 16)


@contextmanager
def reported(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Write report.html at the end of the context, also of a run that was stopped.

    A run that was refused, or has lost its directory, has no report; of the processes that share a run the last one
    writes it.

    Args:
        run: the run directory.
        shared: whether other processes work on the run.
    """
    before: float = _size_of_events(run)
    try:
        yield
    except StoreError:
        before = math.inf  # a run directory that takes no files takes no report
        raise
    finally:
        try:
            if _size_of_events(run) > before and not (shared and _is_unfinished(run)):
                report(run)
        except Exception as error:
            # ^ of any kind: a failed report must neither end a run nor hide the run's own error
            print(f"cannot write the report: {reason_of(error)}; try tilesseg report {run}", file=sys.stderr)


def _size_of_events(run: Path) -> int:
    """Bytes of the run's events so far; a run that is refused adds none."""
    events = run / "events.jsonl"
    return events.stat().st_size if events.exists() else 0


def _is_unfinished(run: Path) -> bool:
    from tilesseg.run.run_job import job_status

    return any(scene.state in ("waiting", "unfinished") for scene in job_status(run).scenes)
