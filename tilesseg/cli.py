"""The command line. Every command calls one public function; heavy imports wait until a command needs them.

Exit codes: 0 complete · 1 refused, in one line · 2 usage · 3 finished with failed tiles or refused scenes ·
130 interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tilesseg import __version__
from tilesseg.errors import JobError, TilessegError
from tilesseg.plain_text import lines, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    help="Segment images too large for memory, tile by tile, and put the mask back where the image was.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="A job file (YAML); see tilesseg schema job.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


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
) -> int:
    """Make a landscape, segment it with the bundled model, and compare the mask with the truth."""
    from tilesseg.demo import run_demo

    with _progress() as listener:
        result = run_demo(directory, size=size, seed=seed, listener=listener)
    print(result.text)
    return result.report.exit_code


@app.command(epilog="Example: tilesseg inspect scene.tif")
def inspect(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")],
    as_json: AsJson = False,
) -> None:
    """Say what an image is and how it will be read."""
    from tilesseg.formats import open_source

    facts = open_source(image).describe()
    print(json.dumps(facts, indent=1) if as_json else lines(facts))


@app.command(epilog="Example: tilesseg segment scene.tif --model clouds --out mask.tif")
def segment(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")],
    model: Annotated[
        str, typer.Option(help="A bundle folder, a weights file, an https URL, or a name: tilesseg models.")
    ],
    out: Annotated[Path, typer.Option(help="The mask to write, a .tif (COG); .qml and .png go beside it.")],
    bands: Annotated[str | None, typer.Option(help="Bands for the model, by number or name: 4,3,2 or red,nir.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the values by this; else by the file's tag.")] = None,
    offset: Annotated[float | None, typer.Option(help="Add this after the scale; else the file's tag.")] = None,
    stage: Annotated[str, typer.Option(help="Copy the image to Zarr first: auto, always or never.")] = "auto",
    patch: Annotated[int | None, typer.Option(help="Side, in pixels, of the squares that the network sees.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that neighbouring patches share; not with crop.")] = None,
    blend: Annotated[str, typer.Option(help="How patches become one: auto, crop, gaussian, linear or hann.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Worker processes; else one per GPU, or by the cores.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Also write the scores, a .tif with a band per class.")] = None,
    score_class: Annotated[
        list[str] | None, typer.Option(help="Write the scores of this class only; may be given again.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run", help="Folder to keep the run in; else it is removed.")
    ] = None,
) -> int:
    """Segment one scene without a job file, on this machine."""
    import shutil

    from tilesseg.job import parse_job
    from tilesseg.run import run_job

    if out.suffix.lower() not in (".tif", ".tiff"):
        raise JobError(f"--out {out} has the suffix {out.suffix or 'none'}, and masks are written as .tif (COG)")
    if score_class and scores is None:
        raise JobError(f"--score-class {score_class[0]} says which scores to write, and no file is given; add --scores")
    folder = run_dir or out.with_name(f".{out.name}.run")
    products = [{"format": "cog", "path": str(out)}]
    if scores is not None:
        products.append({"format": "scores-cog", "path": str(scores)})
    data = {
        "name": out.stem,
        "scenes": _one_scene(image, out),
        "model": model,
        "input": {"bands": _names(bands), "scale": scale, "offset": offset, "stage": stage},
        "tiling": {"patch": _or_auto(patch), "overlap": _or_auto(overlap), "blend": blend},
        "output": {"dir": str(folder), "products": products, "scores": score_class or scores is not None},
        "cluster": {"kind": "local", "workers": _or_auto(workers)},
    }
    job = parse_job(data, where="arguments")
    with _progress() as listener:
        report = run_job(job, listeners=[listener])
    print(summary(report))
    if run_dir is None and report.exit_code == 0:
        shutil.rmtree(folder)
    elif report.exit_code:
        print(f"the run is kept in {folder}; the same command tries its failed tiles again")
    return report.exit_code


@app.command(epilog="Example: tilesseg stage scene.jp2 scene.zarr")
def stage(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="A file, a folder of bands, or several files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The copy to make, a .zarr that does not exist yet.")],
    bands: Annotated[str | None, typer.Option(help="Bands to copy, by number or name: 4,3,2; else all.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; else by the cores.")] = None,
) -> int:
    """Copy an image that is slow to read by window to Zarr. Cut off, the same command goes on."""
    from tilesseg.job import Cluster
    from tilesseg.staging import stage_image

    with _progress() as listener:
        staged = stage_image(
            image, out, bands=_names(bands), workers=Cluster(workers=workers or "auto"), listeners=[listener]
        )
    for region, reason in staged.failed.items():
        print(f"{region} failed: {reason}")
    print(staged.text)
    return staged.exit_code


@app.command(epilog="Example: tilesseg plan job.yaml")
def plan(job: JobFile, as_json: AsJson = False) -> None:
    """Say what a job will take, and refuse what cannot work. Makes the run directory, with tiles.geojson."""
    from tilesseg.forecast import forecast
    from tilesseg.job import read_job

    result = forecast(read_job(job))
    print(json.dumps(result.to_json(), indent=1) if as_json else result.text)


@app.command("run", epilog="Example: tilesseg run job.yaml")
def run_command(job: JobFile) -> int:
    """Carry out a job here, or go on where it stopped."""
    from tilesseg.job import read_job
    from tilesseg.run import run_job

    with _progress() as listener:
        report = run_job(read_job(job), listeners=[listener])
    print(summary(report))
    return report.exit_code


@app.command(epilog="Example: tilesseg status runs/clouds")
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Say how far a run is, from its directory alone."""
    from tilesseg.run import job_status

    report = job_status(run)
    print(json.dumps(report.to_json(), indent=1) if as_json else summary(report))


@app.command(epilog="Example: tilesseg export runs/clouds --format cog --out 'masks/{scene}.tif' --overviews nearest")
def export(
    run: RunFolder,
    out: Annotated[str | None, typer.Option(help="Where, {scene} being the scene's name; else in the run.")] = None,
    product_format: Annotated[
        str, typer.Option("--format", help="cog (the mask), or scores-cog (stored scores).")
    ] = "cog",
    overviews: Annotated[str, typer.Option(help="Of four labels the most frequent (mode), or nearest.")] = "mode",
    score_class: Annotated[
        list[str] | None, typer.Option(help="Write the scores of this class only; may be given again.")
    ] = None,
) -> None:
    """Write a further product of every scene of a finished run."""
    from tilesseg.job import parse_product
    from tilesseg.run import export_run

    data = {"format": product_format, "path": out, "overviews": overviews, "classes": score_class or None}
    product = parse_product(data, where="arguments")
    with _progress() as listener:
        export_run(run, product, listeners=[listener])


@app.command(epilog="Example: tilesseg models")
def models(as_json: AsJson = False) -> None:
    """List the models known by name: in the package, and in the folders on TILESSEG_MODELS."""
    from tilesseg.models import list_models

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
    from tilesseg.job import Job
    from tilesseg.models.spec import ModelSpec

    print(json.dumps((Job if what == "job" else ModelSpec).model_json_schema(), indent=1))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Options of tilesseg itself."""
    if show:
        print(f"tilesseg {__version__}")
        raise typer.Exit


def _one_scene(image: list[str], out: Path) -> dict[str, Any]:
    return {"image": image[0] if len(image) == 1 else image, "name": out.stem}


def _names(text: str | None) -> list[str] | None:
    """`4,3,2` or `red,nir` as a list."""
    return [name.strip() for name in text.split(",")] if text else None


def _or_auto(value: int | None) -> int | str:
    return "auto" if value is None else value


@contextmanager
def _progress() -> Iterator[Any]:
    from tilesseg.progress import progress_for

    listener = progress_for(sys.stderr)
    try:
        yield listener
    finally:
        close = getattr(listener, "close", None)
        if close:
            close()
