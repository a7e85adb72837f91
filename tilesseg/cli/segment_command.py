"""`tilesseg segment`: one scene without a job file; the formats follow from the names of the files."""

from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from tilesseg.cli.options import (
    Engine,
    FailOn,
    Image,
    Precision,
    RetryDamaged,
    Workers,
    given,
    key_option,
    local_path,
    names,
    or_auto,
    progress,
)
from tilesseg.cli.report_command import reported
from tilesseg.doubts import check_codes
from tilesseg.errors import JobError
from tilesseg.paths import name_of

SUFFIXES = {
    ".ome.tif": "ome-tiff",
    ".ome.tiff": "ome-tiff",
    ".tif": "cog",
    ".tiff": "cog",
    ".ome.zarr": "ome-zarr",
    ".zarr": "ome-zarr",
    ".geojson": "geojson",
    ".gpkg": "gpkg",
    ".fgb": "flatgeobuf",
    ".parquet": "geoparquet",
}
"""Format of a file by the end of its name, the first that fits."""


def segment(
    image: Image,
    model: Annotated[list[str], key_option("Job", "model", more="May be given again.")],
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            parser=local_path,
            help="File to write: .tif (COG), .ome.tif, .zarr (OME-Zarr), .geojson, .gpkg, .fgb or .parquet; may be "
            "given again. A .png goes beside the first. Of several images a folder, or a path with {scene}.",
        ),
    ] = None,
    stack: Annotated[
        bool | None,
        typer.Option(
            "--stack/--each",
            help="Whether several files, or a folder, are one image, or each is an image; default: by their bands.",
        ),
    ] = None,
    beside: Annotated[str | None, key_option("Product", "beside")] = None,
    bands: Annotated[str | None, key_option("Input", "bands", more="As 4,3,2 or red,nir.")] = None,
    scale: Annotated[float | None, key_option("Input", "scale")] = None,
    offset: Annotated[float | None, key_option("Input", "offset")] = None,
    mpp: Annotated[float | None, key_option("Input", "mpp")] = None,
    resolution: Annotated[float | None, key_option("Input", "resolution")] = None,
    level: Annotated[int | None, key_option("Input", "level")] = None,
    series: Annotated[str | None, key_option("Input", "series")] = None,
    t: Annotated[int | None, key_option("Input", "t", "--t")] = None,
    z: Annotated[int | None, key_option("Input", "z", "--z")] = None,
    alpha: Annotated[str, key_option("Input", "alpha")] = "auto",
    missing: Annotated[str, key_option("Input", "missing")] = "auto",
    tissue: Annotated[str, key_option("Input", "tissue")] = "auto",
    outside: Annotated[str, key_option("Input", "outside")] = "nodata",
    at: Annotated[str, key_option("Product", "resolution")] = "model",
    stage: Annotated[str, key_option("Input", "stage")] = "auto",
    check_range: Annotated[bool, key_option("Input", "check_range", "--check-range/--no-check-range")] = True,
    damaged: Annotated[str, key_option("Input", "damaged")] = "mark",
    retry_damaged: RetryDamaged = False,
    patch: Annotated[int | None, key_option("TilingOptions", "patch")] = None,
    overlap: Annotated[int | None, key_option("TilingOptions", "overlap")] = None,
    blend: Annotated[str, key_option("TilingOptions", "blend")] = "auto",
    turns: Annotated[int, key_option("TilingOptions", "turns")] = 1,
    engine: Engine = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=local_path,
            help="File for the scores too: .tif, .ome.tif or .zarr, a band per class.",
        ),
    ] = None,
    score_class: Annotated[
        list[str] | None, typer.Option(help="Class whose scores are written, and no others; may be given again.")
    ] = None,
    overwrite: Annotated[bool, key_option("Output", "overwrite", "--overwrite")] = False,
    fail_on: FailOn = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="FOLDER",
            parser=local_path,
            help="Folder to keep the run in; else the run is removed when complete.",
        ),
    ] = None,
) -> int:
    """Segment one scene without a job file, on this machine."""
    from tilesseg.planning.job import parse_job

    if score_class and scores is None:
        raise JobError(f"--score-class {score_class[0]} has no file to write its scores to; add --scores FILE")
    read = given(bands=names(bands), scale=scale, offset=offset, mpp=mpp, resolution=resolution, level=level, t=t, z=z)
    read |= {"alpha": alpha, "missing": missing, "series": _number(series)}
    groups = _groups(image, model, read, stack)
    out = [_place(path, groups) for path in out or ()]
    products = [_product(path, at=at) for path in out]
    products += [{"format": "ome-zarr", "beside": beside, "resolution": at}] if beside else []
    if not products:
        raise JobError("there is no file to write; add --out mask.tif, or --beside NAME for an OME-Zarr")
    if at != "model" and not any("resolution" in product for product in products):
        raise JobError(f"--at {at} chooses the pixels of a mask, but only polygons are written; leave it out")
    products += [_product(scores, kind="scores-")] if scores else []
    target = out[0] if out else scores or Path(f"{beside}-of-{name_of(image[0])}")
    data = {
        "name": target.stem,
        "scenes": _scenes(groups, target),
        "model": model,
        "engine": engine,
        "precision": precision,
        "input": {
            **read,
            "stage": stage,
            "tissue": tissue,
            "outside": outside,
            "check_range": check_range,
            "damaged": damaged,
        },
        "tiling": {"patch": or_auto(patch), "overlap": or_auto(overlap), "blend": blend, "turns": turns},
        "output": {
            "dir": str(run_dir or _run_folder(target)),
            "products": products,
            "scores": score_class or scores is not None,
            "overwrite": overwrite,
            "preview": bool(out or scores),  # an image has no place for a quick look
        },
        "cluster": {"kind": "local", "workers": or_auto(workers)},
    }
    check_codes(fail_on or ())
    job, keep = parse_job(data, where="arguments"), run_dir is not None
    return _execute(job, keep=keep, fail_on=fail_on or (), retry_damaged=retry_damaged)


def _groups(image: list[str], model: list[str], read: dict[str, Any], stack: bool | None) -> list[tuple[str, ...]]:
    """Paths of each image; how many there are is printed where there are several."""
    if len(image) == 1 and not Path(image[0]).is_dir():
        return [tuple(image)]
    from tilesseg.models.bundle import find_bundle
    from tilesseg.planning.file_groups import How, group_images
    from tilesseg.planning.job import parse_job

    how: How = "auto" if stack is None else "stack" if stack else "each"
    request = {"scenes": image, "model": model, "input": read, "output": {"dir": "."}}
    reading = parse_job(request, where="arguments").input
    wanted = find_bundle(model[0]).spec.bands
    groups = group_images(image, wanted, opening=reading.opening(), bands=reading.bands, how=how)
    if len(groups) > 1:
        print(f"{len(groups)} images, a scene of each; --stack takes all files as one image")
    return groups


def _place(out: Path, groups: list[tuple[str, ...]]) -> Path:
    """Path of a product, with `{scene}` where there are several images, or where a folder is given.

    Raises:
        JobError: several images would be written to one file.
    """
    if "{scene}" in str(out):
        return out
    has_format = out.name.lower().endswith(tuple(SUFFIXES))
    if (out.is_dir() and not out.name.lower().endswith(".zarr")) or (len(groups) > 1 and not out.suffix):
        from tilesseg.formats.detect import format_of

        slide = format_of(groups[0][0]) in ("slide", "ome-tiff", "ome-zarr")
        return out / ("{scene}.ome.tif" if slide else "{scene}.tif")
    if len(groups) > 1 and has_format:
        raise JobError(
            f"cannot write {len(groups)} images to --out {out}: it is one file, and they are {groups[0][0]}, "
            f"{groups[1][0]} …; give a folder or a path with {{scene}}, or --stack where the files are one image"
        )
    return out


def _scenes(groups: list[tuple[str, ...]], target: Path) -> Any:
    """Scenes of the job: a single one is called as its mask is."""
    from tilesseg.formats.geotiff.band_names import without_band

    images: list[Any] = [group[0] if len(group) == 1 else list(group) for group in groups]
    if len(images) == 1 and "{scene}" not in str(target):
        return {"image": images[0], "name": _plain(target)}
    return [
        {"image": image, **({"name": without_band(image[0])} if isinstance(image, list) and len(images) > 1 else {})}
        for image in images
    ]


def _run_folder(target: Path) -> Path:
    """Folder of the run, beside what is written."""
    parts = str(target).partition("{scene}")
    return Path(parts[0] + "x").parent / ".segment.run" if parts[1] else target.with_name(f".{target.name}.run")


def _execute(job: Any, *, keep: bool, fail_on: Collection[str], retry_damaged: bool) -> int:
    import shutil

    from tilesseg.cluster.forkserver import warm_up

    warm_up(job.cluster)  # it imports at the same time as the next lines
    from tilesseg.cli.status_text import summary
    from tilesseg.run.run_job import run_job

    with reported(Path(job.output.dir)) if keep else nullcontext(), progress() as listener:
        report = run_job(job, listeners=[listener], retry_damaged=retry_damaged)
    print(summary(report))
    if not keep and report.exit_code == 0:
        shutil.rmtree(job.output.dir)
    elif report.exit_code:
        damaged = all(scene.state == "damaged" for scene in report.scenes)
        again, what = (" with --retry-damaged", "damaged") if damaged else ("", "failed")
        print(f"the run is kept in {job.output.dir}; run the same command again{again} to repeat its {what} tiles")
    return report.exit_code_on(fail_on)


def _product(path: Path, *, kind: str = "", at: str = "model") -> dict[str, Any]:
    """Product of a job for a file, whose format follows from its name.

    Raises:
        JobError: no format has such a name.
    """
    format_name = next((name for suffix, name in SUFFIXES.items() if path.name.lower().endswith(suffix)), None)
    rasters = ("cog", "ome-tiff", "ome-zarr")
    if format_name is None or (kind and format_name not in rasters):
        content, option = ("scores", "--scores") if kind else ("masks", "--out")
        suffixes = ", ".join(suffix for suffix, name in SUFFIXES.items() if not kind or name in rasters)
        raise JobError(
            f"cannot write {content} to {option} {path}: its suffix is {path.suffix or 'none'}; use one of {suffixes}"
        )
    resolution = {} if kind or at == "model" or format_name not in rasters else {"resolution": at}
    return {"format": f"{kind}{format_name}", "path": str(path), **resolution}


def _plain(path: Path) -> str:
    """Name of a file without the suffix of its format."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)
    return path.name[: len(path.name) - len(suffix)] or path.name


def _number(series: str | None) -> int | str | None:
    return int(series) if series and series.isdecimal() else series
