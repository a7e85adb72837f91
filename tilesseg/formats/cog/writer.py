"""Masks and scores as Cloud-Optimised GeoTIFF; a mask has its QGIS style beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from tilesseg.formats.cog.cog_layers import NAMESPACE, CogLayer, provenance_tags, write_layers
from tilesseg.formats.writer import FAILED_CLASS, Mask, MaskClass, Scores, at_image, xml_text
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

    The mask of a slide has its resolution in pixels per centimetre and no transform: a GIS would read that as a place
    on Earth. For memory and disk see `cog_layers.write_layers`.

    Args:
        mask: the mask, which is read once. Stored levels are copied if `overviews` is mode.
        path: the target; its folder must exist.
        overviews: function that makes a level from the level below, see `raster.pyramid`.
        resolution: whether the product has the pixels of the mask, or those of the image, see `at_image`.
        threads: number of threads that read, and of GDAL's threads that compress.

    Returns:
        The COG, its style, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: a file cannot be written, or the written COG has holes; nothing is left behind.
    """
    mask = at_image(mask) if resolution == "image" else mask
    stored = mask.levels if overviews == "mode" else ()
    layer = CogLayer("mask", mask.read, HALVES[overviews], {"ColorInterp": "Palette"}, _colours(mask), stored)
    style = {path.with_suffix(".qml"): qgis_style(mask.classes, mask.provenance.get("plan_fingerprint", ""))}
    return write_layers(path, mask.grid, [layer], tags=_tags(mask), beside=style, threads=threads)


def _tags(mask: Mask) -> dict[str, str]:
    """Tags of a mask: names of the classes, the meaning of 254 and 255, and the provenance."""
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

    One class is read at a time; for memory and disk see `cog_layers.write_layers`. A level is the mean of the level
    below, without 254 and 255.

    Args:
        scores: the scores, of which each class is read once, in strips of 512 rows.
        path: the target; its folder must exist.
        threads: number of threads that read, and of GDAL's threads that compress.

    Returns:
        The COG, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: a file cannot be written, or the written COG has holes; nothing is left behind.
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


_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def qgis_style(classes: Sequence[MaskClass], fingerprint: str = "") -> str:
    """XML of a paletted QGIS renderer for labels 0 … n − 1 and 254; QGIS leaves out 255 by itself, as nodata.

    Args:
        classes: names and colours of the labels.
        fingerprint: plan of the mask; it stands in a comment, which is gone when somebody saves another style there.
    """
    root = ET.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    provider = ET.SubElement(pipe, "provider")
    nearest = "nearestNeighbour"  # any other resampling invents labels
    ET.SubElement(
        provider, "resampling", enabled="false", zoomedInResamplingMethod=nearest, zoomedOutResamplingMethod=nearest
    )
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    palette = ET.SubElement(renderer, "colorPalette")
    for label, meant in [*enumerate(classes), (FAILED, FAILED_CLASS)]:
        text = xml_text(meant.name)
        ET.SubElement(palette, "paletteEntry", value=str(label), color=meant.colour, alpha="255", label=text)
    ET.SubElement(pipe, "rasterresampler", maxOversampling="2")
    ET.SubElement(root, "blendMode").text = "0"
    ET.indent(root)
    written = f"<!-- {fingerprint} -->\n" if fingerprint else ""
    return _DOCTYPE + written + ET.tostring(root, encoding="unicode") + "\n"
