"""`tilesseg stage`: copy of an image in Zarr, for images that are slow to read by window."""

from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import Image, Workers, local_path, names, or_auto, progress


def stage(
    image: Image,
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", parser=local_path, help="The copy to make, a .zarr that does not exist yet."),
    ],
    bands: Annotated[str | None, typer.Option(help="Bands to copy, by number or name: 4,3,2; else all.")] = None,
    workers: Workers = None,
) -> int:
    """Copy an image that is slow to read by window to Zarr. Cut off, the same command goes on."""
    from tilesseg.planning.cluster_options import Cluster
    from tilesseg.run.copy_to_zarr import stage_image

    cluster = Cluster(workers=or_auto(workers))
    with progress() as listener:
        staged = stage_image(image, out, bands=names(bands), workers=cluster, listeners=[listener])
    for region, reason in staged.failed.items():
        print(f"{region} failed: {reason}")
    print(staged.text)
    return staged.exit_code
