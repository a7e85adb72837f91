"""`tilesseg submit`, `logs`, `cancel`: a run in the queue of a cluster, seen from its directory."""

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
        str | None, typer.Option(metavar="ID", help="Begin when this job of the queue has ended, however it ended.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script, and submit nothing.")] = False,
) -> None:
    """Hand a job to the queue of the cluster and return; submitted again, it goes on where it stopped."""
    from tilesseg.cluster.queue.submit import submit as hand_in

    done = hand_in(job, array=array, after=after, dry_run=dry_run)
    if dry_run:
        print("\n".join(done.scripts), end="")
        return
    for one in done.jobs:
        elements = f", {one.array} elements" if one.array else ""
        print(f"submitted job {one.id}{elements}: {one.script}")
    print(f"run directory: {done.run}")
    print(f"watch it: tilesseg status {done.run} --watch; end it: tilesseg cancel {done.run}")


def logs(
    run: RunFolder,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is written, until Ctrl-C.")] = False,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only workers whose file has this in its name, as a job's id.")
    ] = None,
    tail: Annotated[int, typer.Option(min=0, help="Lines from the end of each file; 0: all.")] = 20,
) -> None:
    """Print what the driver and the workers of a run have printed, from its directory alone."""
    from tilesseg.cluster.queue.logs import Follower, find_logs, last_lines

    follower = Follower(run, worker)
    found = follower.begin() if follow else find_logs(run, worker=worker)
    for path in found:
        _print_lines(path, last_lines(path, tail))
    with suppress(KeyboardInterrupt):  # who has read enough has done nothing wrong
        for path, lines in follower.forever() if follow else ():
            _print_lines(path, lines)


def cancel(run: RunFolder) -> None:
    """End the driver and the workers of a run, here or in a queue; what is done is kept, and it can go on."""
    from tilesseg.cluster.queue.cancel import cancel as end

    for line in end(run):
        print(line)
    print(f"what is done is kept in {run}; tilesseg run or submit with its job goes on")


def _print_lines(path: Path, lines: list[str]) -> None:
    print(f"==> {path.name} <==")
    print("\n".join(lines), flush=True)
