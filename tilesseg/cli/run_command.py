"""`tilesseg run`: execution of a job file on this machine or on its cluster."""

from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import FailOn, JobFile, RetryDamaged, progress
from tilesseg.cli.report_command import reported
from tilesseg.doubts import check_codes


def run(
    job: JobFile,
    only: Annotated[
        list[str] | None, typer.Option(help="Do this scene, or those like 'slide-1*'; may be given again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Do so many scenes at most.")] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Compute the I-th of N parts of the tiles; other processes compute the rest."),
    ] = None,
    fail_on: FailOn = None,
    retry_damaged: RetryDamaged = False,
    shard: Annotated[str | None, typer.Option(hidden=True, help="Former name of --part.")] = None,
) -> int:
    """Execute a job, or go on where it stopped."""
    from tilesseg.cluster.forkserver import warm_up
    from tilesseg.planning.job import read_job
    from tilesseg.run.job_array_share import parse_share

    part = part or shard
    check_codes(fail_on or ())
    share, request = parse_share(part) if part else None, read_job(job)
    warm_up(request.cluster)  # it imports at the same time as the next lines
    from tilesseg.cli.status_text import summary
    from tilesseg.run.run_job import run_job

    with reported(Path(request.output.dir), shared=share is not None), progress() as listener:
        report = run_job(
            request, listeners=[listener], only=only or (), limit=limit, share=share, retry_damaged=retry_damaged
        )
    print(summary(report))
    return report.exit_code_on(fail_on or ())
