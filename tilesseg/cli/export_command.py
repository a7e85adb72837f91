"""`tilesseg export`: further products of a finished run."""

from __future__ import annotations

from typing import Annotated

import typer

from tilesseg.cli.options import RunFolder, given, progress


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
