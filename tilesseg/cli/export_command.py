"""`tilesseg export`: further products of a finished run."""

from typing import Annotated

from tilesseg.cli.options import RunFolder, given, key_option, progress


def export(
    run: RunFolder,
    out: Annotated[str | None, key_option("Product", "path")] = None,
    product_format: Annotated[str, key_option("Product", "format", "--format")] = "auto",
    overviews: Annotated[str | None, key_option("Product", "overviews")] = None,
    at: Annotated[str | None, key_option("Product", "resolution")] = None,
    ome_version: Annotated[str | None, key_option("Product", "version")] = None,
    beside: Annotated[str | None, key_option("Product", "beside")] = None,
    classes: Annotated[
        list[str] | None, key_option("Product", "classes", "--class", more="May be given again.")
    ] = None,
    min_area: Annotated[float | None, key_option("Product", "min_area")] = None,
    simplify: Annotated[float | None, key_option("Product", "simplify")] = None,
    canvas: Annotated[str | None, key_option("Product", "canvas")] = None,
    overwrite: Annotated[bool, key_option("Output", "overwrite", "--overwrite")] = False,
) -> None:
    """Write a further product of every scene of a finished run."""
    from tilesseg.planning.job import parse_product
    from tilesseg.run.write_products import export_run

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
        export_run(run, product, overwrite=overwrite, listeners=[listener])
