"""The application `tilesseg`: its commands, their order in the help, exit codes and errors.

Exit codes: 0 complete · 1 refused, in one line · 2 usage · 3 finished with failed or damaged tiles or refused scenes ·
4 the cluster was lost · 130 interrupted. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from tilesseg.cli.demo_command import demo
from tilesseg.cli.evaluate_command import evaluate
from tilesseg.cli.export_command import export
from tilesseg.cli.inspect_command import inspect
from tilesseg.cli.interruption import INTERRUPTED, KEPT
from tilesseg.cli.models_command import models
from tilesseg.cli.plan_command import plan
from tilesseg.cli.queue_commands import cancel, logs, submit
from tilesseg.cli.report_command import report
from tilesseg.cli.run_command import run as run_command
from tilesseg.cli.schema_command import schema
from tilesseg.cli.segment_command import segment
from tilesseg.cli.stage_command import stage
from tilesseg.cli.status_command import status
from tilesseg.cli.train_command import train
from tilesseg.cli.verify_command import verify
from tilesseg.errors import ClusterLost, TilessegError, cannot, joined_lines, remedy_of
from tilesseg.version import __version__

app = typer.Typer(
    help="Segment images too large for memory, tile by tile, and put the mask back where the image was.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EXAMPLES: dict[Callable[..., int | None] | typer.Typer, str] = {
    demo: "demo --dir demo",
    inspect: "inspect scene.tif",
    segment: "segment scene.tif --model clouds --out mask.tif",
    stage: "stage scene.jp2 scene.zarr",
    plan: "plan job.yaml",
    run_command: "run job.yaml",
    status: "status runs/clouds --watch",
    report: "report runs/clouds --out clouds.html",
    submit: "submit job.yaml",
    logs: "logs runs/clouds --follow",
    cancel: "cancel runs/clouds",
    verify: "verify runs/clouds --repair",
    export: "export runs/clouds --format cog --out 'masks/{scene}.tif' --overviews nearest",
    train: "train roofs.yaml --plan",
    evaluate: "evaluate mask.tif truth.tif --values 0=background,255=nucleus",
    models: "models check models/roofs",
    schema: "schema job > job.schema.json",
}
"""Example of each command, in the order of the help."""
for _command, _example in EXAMPLES.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name="models", epilog=f"Example: tilesseg {_example}")
    else:
        app.command(epilog=f"Example: tilesseg {_example}")(_command)

CLUSTER_LOST = 4
"""Exit code of a run whose scheduler or last worker has gone away."""
GARBAGE = 50_000
"""Number of new objects at which Python looks for garbage."""


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(GARBAGE)  # of a second of importing, Python spends a fifth looking for garbage
    code = run(sys.argv[1:])
    gc.freeze()  # or Python looks through all objects once more, for a second, before it ends
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; a refusal becomes one line on stderr and code 1, a lost cluster one line and code 4."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="tilesseg", standalone_mode=False) or 0
    except TilessegError as error:
        print(f"error: {joined_lines(error)}", file=sys.stderr)
        return CLUSTER_LOST if isinstance(error, ClusterLost) else 1
    except OSError as error:
        if not error.errno:
            raise  # of a library
        what = f"use {error.filename}" if error.filename else "go on"
        print(f"error: {cannot(what, error, remedy_of(error, 'look at the path, and try again'))}", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise  # a mistake of ours
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)
    if code == INTERRUPTED:
        print(f"interrupted: {KEPT}", file=sys.stderr)
    return int(code)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of tilesseg itself."""
    if show:
        print(f"tilesseg {__version__}")
        raise typer.Exit
