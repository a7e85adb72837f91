"""A mask as a Cloud-Optimised GeoTIFF, and its QGIS style beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from tilesseg.formats.cog.cog_layers import NAMESPACE, CogLayer, provenance_tags, write_layers
from tilesseg.formats.cog.qgis_style import qgis_style
from tilesseg.formats.writer import FAILED_CLASS, Mask, Scores
from tilesseg.formats.writing.mask_on_image_grid import at_image
from tilesseg.raster.labels import FAILED, NODATA, SCORE_STEPS
from tilesseg.raster.pyramid import HALVES, halve_mean


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
    layer = CogLayer("mask", mask.read, HALVES[overviews], {"ColorInterp": "Palette"}, _colours(mask), stored)
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


def write_scores(scores: Scores, path: Path, *, threads: int = 1) -> tuple[Path, ...]:
    """Write `path` as a COG of bytes with nodata 255, each band with its class's name, scale 1/250 and offset 0.

    Memory and disk as `cog_file.write_layers` says: one class at a time. A level is the mean of the level below,
    without 254 and 255.

    Args:
        scores: what to write; each class is read once, in bands of 512 rows.
        path: the target; its folder must exist.
        threads: of GDAL, for compressing.

    Returns:
        The COG, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: it cannot be written, or what was written has holes; nothing is left behind.
    """
    facts = {"ColorInterp": "Gray", "Offset": "0", "Scale": repr(1 / SCORE_STEPS)}
    layers = [
        CogLayer(name, partial(scores.read, number), halve_mean, facts) for number, name in enumerate(scores.classes)
    ]
    tags = provenance_tags(scores.provenance) | {
        f"{NAMESPACE}SCORE_{FAILED}": FAILED_CLASS.name,
        f"{NAMESPACE}SCORE_{NODATA}": "nodata",
    }
    return write_layers(path, scores.grid, layers, tags=tags, threads=threads)
