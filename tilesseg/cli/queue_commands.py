"""`tilesseg submit`, `logs`, `cancel`: a run in the queue of a cluster."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import JobFile, RunFolder


def submit(
    job: JobFile,
    array: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Share the tiles among N elements of a job array, without a scheduler."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Begin after the end of this job of the queue, successful or not.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script, and submit nothing.")] = False,
) -> None:
    """Hand a job to the queue of the cluster and return; submitted again, it goes on where it stopped."""
    from tilesseg.cluster.queue.submit import submit as submit_job

    done = submit_job(job, array=array, after=after, dry_run=dry_run)
    if dry_run:
        print("\n".join(done.scripts), end="")
        return
    for accepted in done.jobs:
        elements = f", {accepted.array} elements" if accepted.array else ""
        print(f"submitted job {accepted.id}{elements}: {accepted.script}")
    print(f"run directory: {done.run}")
    print(f"watch it: tilesseg status {done.run} --watch; end it: tilesseg cancel {done.run}")


def logs(
    run: RunFolder,
    follow: Annotated[bool, typer.Option("--follow", help="Print new lines too, until Ctrl-C.")] = False,
    worker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print only workers whose file name contains this, as a job id."),
    ] = None,
    tail: Annotated[int, typer.Option(min=0, help="Number of lines from the end of each file; 0: all.")] = 20,
) -> None:
    """Print the logs of the driver and the workers of a run, from its directory alone."""
    from tilesseg.cluster.queue.logs import Follower, find_logs, last_lines

    follower = Follower(run, worker)
    for path in follower.begin() if follow else find_logs(run, worker=worker):
        _print_lines(path, last_lines(path, tail))
    with suppress(KeyboardInterrupt):  # Ctrl-C is the usual end of reading, no failure
        for path, lines in follower.forever() if follow else ():
            _print_lines(path, lines)


def cancel(run: RunFolder) -> None:
    """End the driver and the workers of a run, here or in a queue; finished tiles are kept, and the run can go on."""
    from tilesseg.cluster.queue.cancel import cancel as end

    for line in end(run):
        print(line)
    print(f"what is done is kept in {run}; tilesseg run or submit with its job goes on")


def _print_lines(path: Path, lines: list[str]) -> None:
    print(f"==> {path.name} <==")
    print("\n".join(lines), flush=True)
