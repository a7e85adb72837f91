"""The command line. Every command calls one public function; heavy imports wait until a command needs them.

Exit codes: 0 complete · 1 refused, in one line · 2 usage · 3 finished with failed tiles or refused scenes ·
130 interrupted.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tilesseg.cli import queue_commands
from tilesseg.cli.options import Engine, JobFile, Precision, RunFolder, given, names, progress
from tilesseg.cli.plain_text import lines, summary
from tilesseg.cli.report_commands import report, reported, status
from tilesseg.cli.segment import segment
from tilesseg.errors import JobError, TilessegError
from tilesseg.version import __version__

app = typer.Typer(
    help="Segment images too large for memory, tile by tile, and put the mask back where the image was.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130
GARBAGE = 50_000
"""Objects made before Python looks for garbage."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(GARBAGE)  # of a second of importing, Python spends a fifth looking for garbage
    code = run(sys.argv[1:])
    gc.freeze()  # or it looks through everything once more, for a second, before it ends
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; refusals become one line on stderr and code 1."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="tilesseg", standalone_mode=False) or 0
    except TilessegError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise  # a mistake of ours
        error.show()  # type: ignore[attr-defined]
        return int(error.exit_code)
    if code == INTERRUPTED:
        print("interrupted: what is done is kept; run the same command again to go on", file=sys.stderr)
    return int(code)


@app.command(epilog="Example: tilesseg demo --dir demo")
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Folder for scene, run and mask.")] = Path("demo"),
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


@app.command(epilog="Example: tilesseg inspect scene.tif")
def inspect(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")],
    as_json: AsJson = False,
) -> None:
    """Say what an image is and how it will be read."""
    from tilesseg.formats.open import open_source

    facts = open_source(image).describe()
    print(json.dumps(facts, indent=1) if as_json else lines(facts))


app.command(epilog="Example: tilesseg segment scene.tif --model clouds --out mask.tif")(segment)


@app.command(epilog="Example: tilesseg stage scene.jp2 scene.zarr")
def stage(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The copy to make, a .zarr that does not exist yet.")],
    bands: Annotated[str | None, typer.Option(help="Bands to copy, by number or name: 4,3,2; else all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; else by the cores.")] = None,
) -> int:
    """Copy an image that is slow to read by window to Zarr. Cut off, the same command goes on."""
    from tilesseg.planning.cluster_options import Cluster
    from tilesseg.run.copy_to_zarr import stage_image

    with progress() as listener:
        staged = stage_image(
            image, out, bands=names(bands), workers=Cluster(workers=workers or "auto"), listeners=[listener]
        )
    for region, reason in staged.failed.items():
        print(f"{region} failed: {reason}")
    print(staged.text)
    return staged.exit_code


@app.command(epilog="Example: tilesseg plan job.yaml")
def plan(
    job: JobFile,
    limit: Annotated[int, typer.Option(min=1, help="Look at so many scenes at most, the first ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Say what a job will take, and refuse what cannot work. Makes the run directory, with tiles.geojson."""
    from tilesseg.planning.job import read_job
    from tilesseg.run.forecast import forecast

    result = forecast(read_job(job), limit=limit)
    print(json.dumps(result.to_json(), indent=1) if as_json else result.text)


@app.command("run", epilog="Example: tilesseg run job.yaml")
def run_command(
    job: JobFile,
    only: Annotated[
        list[str] | None, typer.Option(help="Do this scene, or those like 'slide-1*'; may be given again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Do so many scenes at most.")] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Compute the I-th of N parts of the tiles; other processes compute the rest."),
    ] = None,
    shard: Annotated[str | None, typer.Option(hidden=True, help="Former name of --part.")] = None,
) -> int:
    """Carry out a job here, or go on where it stopped."""
    from tilesseg.cluster.forkserver import warm_up
    from tilesseg.planning.job import read_job
    from tilesseg.run.job_array_share import parse_share

    part = part or shard
    share, asked = parse_share(part) if part else None, read_job(job)
    warm_up(asked.cluster)  # it imports at the same time as the next line
    from tilesseg.run.run_job import run_job

    with reported(Path(asked.output.dir), shared=share is not None), progress() as listener:
        report = run_job(asked, listeners=[listener], only=only or (), limit=limit, share=share)
    print(summary(report))
    return report.exit_code


app.command(epilog="Example: tilesseg status runs/clouds --watch")(status)
app.command(epilog="Example: tilesseg report runs/clouds --out clouds.html")(report)


app.command(epilog="Example: tilesseg submit job.yaml")(queue_commands.submit)
app.command(epilog="Example: tilesseg logs runs/clouds --follow")(queue_commands.logs)
app.command(epilog="Example: tilesseg cancel runs/clouds")(queue_commands.cancel)


@app.command(epilog="Example: tilesseg export runs/clouds --format cog --out 'masks/{scene}.tif' --overviews nearest")
def export(
    run: RunFolder,
    out: Annotated[str | None, typer.Option(help="Where, {scene} being the scene's name; else in the run.")] = None,
    product_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, cog, ome-tiff or ome-zarr (the mask), geojson, gpkg, flatgeobuf or geoparquet (its polygons), "
            "scores-cog, scores-ome-tiff or scores-ome-zarr (stored scores).",
        ),
    ] = "auto",
    overviews: Annotated[str | None, typer.Option(help="Of four labels the most frequent (mode), or nearest.")] = None,
    at: Annotated[str | None, typer.Option(help="Pixels of the mask: those of the model, or of the image.")] = None,
    ome_version: Annotated[str | None, typer.Option(help="Of OME-Zarr: 0.5 or 0.4.")] = None,
    beside: Annotated[str | None, typer.Option(help="Into the image's own OME-Zarr, as labels of this name.")] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Scores or polygons of this class only; may be given again.")
    ] = None,
    min_area: Annotated[float | None, typer.Option(help="Leave out smaller polygons (µm², m² or pixels).")] = None,
    simplify: Annotated[float | None, typer.Option(help="Move polygons' lines by at most this many pixels.")] = None,
    canvas: Annotated[
        str | None, typer.Option(help="GeoJSON of a slide from its scanned bounds, as QuPath does, or the full canvas.")
    ] = None,
) -> None:
    """Write a further product of every scene of a finished run."""
    from tilesseg.planning.job import parse_product
    from tilesseg.run.export import export_run

    options = given(
        path=out,
        overviews=overviews,
        resolution=at,
        version=ome_version,
        beside=beside,
        classes=classes or None,
        min_area=min_area,
        simplify=simplify,
        canvas=canvas,
    )
    product = parse_product({"format": product_format, **options}, where="arguments")
    with progress() as listener:
        export_run(run, product, listeners=[listener])


@app.command(epilog="Example: tilesseg models")
def models(as_json: AsJson = False) -> None:
    """List the models known by name: in the package, and in the folders on TILESSEG_MODELS."""
    from tilesseg.models.bundle import list_models

    rows = [
        {
            "name": row.name,
            "bands": list(row.spec.bands) if row.spec else [],
            "classes": [one.name for one in row.spec.classes] if row.spec else [],
            "licence": row.spec.licence if row.spec else None,
            "problem": row.problem,
            "folder": str(row.folder),
        }
        for row in list_models()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
    for row in [] if as_json else rows:
        print(f"{row['name']}: {', '.join(row['bands'])} → {', '.join(row['classes'])}; {row['licence']}")  # type: ignore[arg-type]
        if row["problem"]:
            print(f"  not usable: {row['problem']}")


@app.command(epilog="Example: tilesseg schema job > job.schema.json")
def schema(what: Annotated[str, typer.Argument(metavar="job|model", help="Of which file: job or model.")]) -> None:
    """Print the JSON Schema of a job file or of a model.yaml."""
    if what not in ("job", "model"):
        raise JobError(f"there is no schema for {what}; there is one for job and one for model")
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.job import Job

    print(json.dumps((Job if what == "job" else ModelSpec).model_json_schema(), indent=1))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of tilesseg itself."""
    if show:
        print(f"tilesseg {__version__}")
        raise typer.Exit
