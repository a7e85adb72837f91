"""A mask as a Cloud-Optimised GeoTIFF, and its QGIS style beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tilesseg.formats import FAILED_CLASS, Mask
from tilesseg.formats.at_image import at_image
from tilesseg.formats.cog_file import NAMESPACE, Layer, provenance_tags, write_layers
from tilesseg.formats.qml import qgis_style
from tilesseg.labels import FAILED, NODATA
from tilesseg.pyramid import HALVES


def write_cog(
    mask: Mask,
    path: Path,
    *,
    overviews: Literal["mode", "nearest"] = "mode",
    resolution: Literal["model", "image"] = "model",
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as a COG with nodata 255, a colour table and our own pyramid, and `<stem>.qml` beside it.

    The mask of a slide has its resolution in pixels per centimetre and no transform: a GIS would take that for a place
    on Earth. Memory and disk as `cog_file.write_layers` says.

    Args:
        mask: what to write; read once. Stored levels are copied where `overviews` is mode.
        path: the target; its folder must exist.
        overviews: how a level follows from the one below, see `pyramid`.
        resolution: pixels of the mask, or of the image: then the nearest ones of the mask.
        threads: that read, and of GDAL, for compressing.

    Returns:
        The COG, its style, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: it cannot be written, or what was written has holes; nothing is left behind.
    """
    mask = at_image(mask) if resolution == "image" else mask
    stored = mask.levels if overviews == "mode" else ()
    layer = Layer("mask", mask.read, HALVES[overviews], {"ColorInterp": "Palette"}, _colours(mask), stored)
    style = {path.with_suffix(".qml"): qgis_style(mask.classes)}
    return write_layers(path, mask.grid, [layer], tags=_tags(mask), beside=style, threads=threads)


def _tags(mask: Mask) -> dict[str, str]:
    """Class names, the meaning of 254 and 255, and where the mask comes from."""
    tags = provenance_tags(mask.provenance)
    for label, (name, _) in enumerate(mask.classes):
        tags[f"{NAMESPACE}CLASS_{label}"] = name
    tags[f"{NAMESPACE}CLASS_{FAILED}"] = FAILED_CLASS.name
    tags[f"{NAMESPACE}CLASS_{NODATA}"] = "nodata"
    return tags


def _colours(mask: Mask) -> list[tuple[int, int, int, int]]:
    table = [(0, 0, 0, 255)] * 256
    for label, (_, rgb) in [*enumerate(mask.classes), (FAILED, FAILED_CLASS)]:
        table[label] = (*rgb, 255)
    table[NODATA] = (0, 0, 0, 0)
    return table
