"""`tilesseg verify`: every stored byte of a run compared with its records."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilesseg.cli.options import AsJson, RunFolder, progress
from tilesseg.cli.report_command import reported
from tilesseg.monitoring.humanize import counted

if TYPE_CHECKING:
    from tilesseg.run.verify_run import SceneVerification, Verification

SHOWN = 20
"""Largest number of problems of a scene that are printed."""


def verify(
    run: RunFolder,
    repair: Annotated[bool, typer.Option("--repair", help="Do at once what has to be done again.")] = False,
    as_json: AsJson = False,
) -> int:
    """Compare all that a run has stored with its records; what differs is done again by the next run."""
    from tilesseg.run.verify_run import verify_run

    with _bar() as checked:
        result = verify_run(run, told=lambda scene: None if as_json else _print_scene(scene), progress=checked)
    if as_json:
        print(json.dumps(result.to_json(), indent=1))
    else:
        print(_summary(result, run, repair=repair))
    if not repair or not result.problems:
        return result.exit_code
    return _repair(run, quiet=as_json)


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Bar of the tiles that are checked, on a terminal; it goes with the context."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("")
        yield lambda scene, checked, tiles: bar.update(task, description=scene, completed=checked, total=tiles)


def _repair(run: Path, *, quiet: bool) -> int:
    """Execute the job of a run again."""
    from tilesseg.cli.status_text import summary
    from tilesseg.planning.job import read_job
    from tilesseg.run.run_job import run_job

    with reported(run, shared=False), progress() as listener:
        report = run_job(read_job(run / "job.yaml"), listeners=[listener])
    print(summary(report), file=sys.stderr if quiet else sys.stdout)
    return report.exit_code


def _print_scene(scene: SceneVerification) -> None:
    """Print a scene, with its problems."""
    if not scene.tiles:
        print(f"{scene.scene}: not planned yet")
        return
    unchecked = f", {scene.unchecked} without checksums, by an earlier version" if scene.unchecked else ""
    found = f"; {counted(len(scene.problems), 'problem')}" if scene.problems else ""
    print(
        f"{scene.scene}: {scene.verified} of {scene.tiles} tiles are stored as recorded{unchecked}{found}", flush=True
    )
    for problem in scene.problems[:SHOWN]:
        print(f"  {problem}")
    if len(scene.problems) > SHOWN:
        print(f"  … and {len(scene.problems) - SHOWN} more; --json prints all")


def _summary(result: Verification, run: Path, *, repair: bool) -> str:
    if not result.problems:
        return f"{run} is stored as recorded"
    again = sum(len(scene.again) for scene in result.scenes)
    how = "now" if repair else f"by: tilesseg run {run / 'job.yaml'} (or verify --repair)"
    tiles = f"{counted(again, 'tile')} {'is' if again == 1 else 'are'} done again"
    return f"{counted(result.problems, 'problem')}; {tiles} {how}"
