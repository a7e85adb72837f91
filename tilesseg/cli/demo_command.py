"""`tilesseg demo`: a made-up landscape, segmented and compared with the truth."""

from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import Engine, Precision, local_path, progress
from tilesseg.cli.report_command import reported


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="FOLDER", parser=local_path, help="Folder for scene, run and mask.")
    ] = Path("demo"),
    size: Annotated[int, typer.Option(min=64, help="Side of the scene in pixels.")] = 4096,
    seed: Annotated[int, typer.Option(help="Another number makes another landscape.")] = 1,
    engine: Engine = "auto",
    precision: Precision = "auto",
) -> int:
    """Make a landscape, segment it with the bundled model, and compare the mask with the truth."""
    from tilesseg.cli.demo import run_demo

    with reported(directory / f"run-{size}-{seed}"), progress() as listener:
        result = run_demo(directory, size=size, seed=seed, listener=listener, engine=engine, precision=precision)
    print(result.text)
    return result.report.exit_code
