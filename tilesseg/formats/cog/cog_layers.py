"""Layers of bytes as one Cloud-Optimised GeoTIFF, for the writers of masks and of scores.

GDAL's COG driver lays the file out; the levels are ours, because GDAL's own mode counts nodata and is slower. So a
layer is read once, in strips of rows; each pyramid level is written to a temporary TIFF; a VRT joins the levels, with
colours, names and georeferencing; the COG driver copies the VRT. Where the levels are stored already, the driver copies
a VRT of nodata alone, and `cog_tiles` fills in the tiles. All files lie in a hidden folder beside the target until they
are complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray

from tilesseg.formats.cog.cog_tiles import empty_levels, fill
from tilesseg.formats.cog.level_files import CogLevel, bounded_cache, refuse_holes, shapes_of
from tilesseg.formats.writer import MaskLevel, xml_text
from tilesseg.formats.writing.publish import growing, publish, refusing
from tilesseg.formats.writing.tiff_tiles import SIDE, in_order, strips
from tilesseg.formats.writing.written_crs import refuse_other_crs_of
from tilesseg.raster.grid import IDENTITY, Grid, Placement
from tilesseg.raster.labels import NODATA
from tilesseg.raster.pyramid import Halve, cascade
from tilesseg.raster.window import Window

NAMESPACE = "TILESSEG_"
EFFORT = 5
"""Level of DEFLATE: on masks it is twice as fast as 6, the default of zlib, and takes an eighth more room."""


@dataclass(frozen=True, slots=True)
class CogLayer:
    """A band of a COG; 255 is nodata."""

    name: str
    read: Callable[[Window], NDArray[np.uint8]]
    """Values `(y, x)` of a window inside the grid; read in strips of rows, top to bottom."""
    halve: Halve
    """Function that makes a level from the level below."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further elements of the band in the VRT, such as Scale."""
    colours: Sequence[tuple[int, int, int, int]] = ()
    levels: Sequence[MaskLevel] = ()
    """Levels that are stored already; used if a COG of this size has no more levels."""


def write_layers(
    path: Path,
    grid: Grid,
    layers: Sequence[CogLayer],
    *,
    tags: Mapping[str, str],
    beside: Mapping[Path, str] | None = None,
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as a COG with our own pyramid; an existing file is replaced when the new one is complete.

    Memory: 64 MB of GDAL's cache, and a few strips of 512 rows of a layer, or windows of them where its levels are
    stored already. Disk: without stored levels, temporary levels take about as much as the result. DEFLATE, because
    every reader knows it.

    Args:
        path: the target; its folder must exist.
        grid: shape and georeference of the pixels.
        layers: the bands; each is read once.
        tags: metadata of the file.
        beside: texts of further files, by their paths in the same folder.
        threads: number of threads that read, and of GDAL's threads that compress.

    Returns:
        The COG, the files beside it, and GDAL's `.aux.xml` where the CRS does not fit into GeoTIFF keys.

    Raises:
        FormatError: a file cannot be written, or the written COG has holes or another CRS; nothing is left behind.
    """
    texts = beside or {}
    if grid.crs is not None:
        with refusing(path):
            rasterio.CRS.from_wkt(grid.crs)  # a VRT drops what GDAL cannot parse without a word
    with growing(path, *texts) as folder, bounded_cache():
        shapes, ready = shapes_of(grid.shape), _ready(layers, grid)
        if ready:
            with refusing(path):
                levels = [empty_levels(folder, shapes)]
        else:
            stems = [folder / f"layer{number}" for number in range(len(layers))]
            levels = [_stream(*one, shapes, path, threads) for one in zip(layers, stems, strict=True)]
        with refusing(path):
            vrt, result = folder / "levels.vrt", folder / path.name
            vrt.write_text(_vrt(grid, layers, levels, tags), encoding="utf-8")
            _copy(vrt, result, overviews=len(shapes) > 1, threads=threads)
            if ready:
                with ThreadPoolExecutor(threads, "tilesseg") as pool:
                    fill(result, levels[0], ready, pool)
            refuse_holes(result, levels)
            refuse_other_crs_of(result, grid, path)
            for file, text in texts.items():
                (folder / file.name).write_text(text, encoding="utf-8")
            return publish(folder, path, *texts)


def provenance_tags(provenance: Mapping[str, str]) -> dict[str, str]:
    """Provenance of a product as tags of a GeoTIFF."""
    return {NAMESPACE + re.sub(r"\W+", "_", key).upper(): value for key, value in provenance.items()}


def _ready(layers: Sequence[CogLayer], grid: Grid) -> list[MaskLevel]:
    """All levels of the only layer, if they are stored already, else none."""
    count = len(shapes_of(grid.shape))
    if len(layers) > 1 or len(layers[0].levels) < max(1, count - 1):
        return []
    return [MaskLevel(grid.shape, layers[0].read), *layers[0].levels][:count]


def _stream(layer: CogLayer, stem: Path, shapes: Sequence[tuple[int, int]], path: Path, threads: int) -> list[CogLevel]:
    """Read a layer once, top to bottom, and write all its levels to temporary TIFFs."""
    levels = [CogLevel(Path(f"{stem}-level{k}.tif"), shape, threads=threads) for k, shape in enumerate(shapes)]
    with ExitStack() as opened:
        pool = opened.enter_context(ThreadPoolExecutor(threads, "tilesseg"))
        for level in levels:
            with refusing(path):
                level.open()
            opened.callback(level.close)
        rows_read = in_order(pool, layer.read, strips(shapes[0]), ahead=2)
        for k, _, rows in cascade(rows_read, levels=len(levels), halve=layer.halve):
            with refusing(path):
                levels[k].add(rows)
    return levels


def _copy(vrt: Path, result: Path, *, overviews: bool, threads: int) -> None:
    rasterio.shutil.copy(
        vrt, result, driver="COG", COMPRESS="DEFLATE", LEVEL=EFFORT, BLOCKSIZE=SIDE, BIGTIFF="IF_SAFER",
        SPARSE_OK="TRUE", OVERVIEWS="FORCE_USE_EXISTING" if overviews else "NONE", NUM_THREADS=threads,
    )  # fmt: skip


def _vrt(grid: Grid, layers: Sequence[CogLayer], levels: Sequence[Sequence[CogLevel]], tags: Mapping[str, str]) -> str:
    """VRT of all layers: the finest level of each as a band, the other levels as the band's overviews."""
    root = ET.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    _place(root, grid)
    metadata = ET.SubElement(root, "Metadata")
    for key, value in {"AREA_OR_POINT": "Area", **tags, **_slide_tags(grid)}.items():
        ET.SubElement(metadata, "MDI", key=key).text = xml_text(value)
    for number, (layer, own) in enumerate(zip(layers, levels, strict=True), start=1):
        _band(root, number, layer, own)
    return ET.tostring(root, encoding="unicode")


def _place(root: ET.Element, grid: Grid) -> None:
    """Add the georeference of the pixels to a VRT."""
    if grid.crs is not None:
        ET.SubElement(root, "SRS").text = grid.crs
    points = grid.placement is not None and bool(grid.placement.points)
    on_earth = grid.transform != IDENTITY and not _on_a_slide(grid)
    if on_earth and not points:  # a GeoTIFF holds one or the other
        a, b, c, d, e, f = grid.transform
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, map(float, (c, a, b, f, d, e))))
    if grid.placement is not None:
        _carry(root, grid.placement)


def _on_a_slide(grid: Grid) -> bool:
    """Whether the pixels lie on a slide, of known size or not: there a transform would be read as a place on Earth."""
    a, b, _, d, e, _ = grid.transform
    shifted = grid.unit == "pixel" and (a, b, d, e) == (1, 0, 0, 1)
    return grid.crs is None and (grid.unit == "micrometre" or shifted)


def _slide_tags(grid: Grid) -> dict[str, str]:
    """Tags of a slide: its pixel size as TIFF resolution in pixels per centimetre, and position of the first pixel."""
    if not _on_a_slide(grid) or (grid.unit == "pixel" and grid.transform == IDENTITY):
        return {}
    x, y = map(float, (grid.transform[2], grid.transform[5]))
    tags = {f"{NAMESPACE}CORNER": f"{x!r} {y!r} {grid.unit}"}
    if grid.unit == "micrometre":
        for axis, side in zip("YX", grid.resolution, strict=True):
            tags |= {f"TIFFTAG_{axis}RESOLUTION": repr(1e4 / side), f"{NAMESPACE}MPP_{axis}": repr(side)}
        tags["TIFFTAG_RESOLUTIONUNIT"] = "3"  # centimetre
    return tags


def _carry(root: ET.Element, placement: Placement) -> None:
    """Add the ground control points and RPCs of the image to a VRT."""
    if placement.points:
        listed = ET.SubElement(root, "GCPList", Projection=placement.crs or "")
        for number, point in enumerate(placement.points, start=1):
            x, y, z = point.world
            numbers = {"Pixel": point.x, "Line": point.y, "X": x, "Y": y, "Z": z}
            attributes = {key: repr(float(value)) for key, value in numbers.items()}
            ET.SubElement(listed, "GCP", {"Id": xml_text(point.name) or str(number), **attributes})
    if placement.rpcs:
        domain = ET.SubElement(root, "Metadata", domain="RPC")
        for key, value in placement.rpcs.items():
            ET.SubElement(domain, "MDI", key=key).text = xml_text(value)


def _band(root: ET.Element, number: int, layer: CogLayer, levels: Sequence[CogLevel]) -> None:
    shape = {"blockXSize": str(SIDE), "blockYSize": str(SIDE)}
    band = ET.SubElement(root, "VRTRasterBand", {"dataType": "Byte", "band": str(number), **shape})
    for tag, text in {"Description": layer.name, "NoDataValue": str(NODATA), **layer.facts}.items():
        ET.SubElement(band, tag).text = xml_text(text)
    if layer.colours:
        colours = ET.SubElement(band, "ColorTable")
        for c1, c2, c3, c4 in layer.colours:
            ET.SubElement(colours, "Entry", c1=str(c1), c2=str(c2), c3=str(c3), c4=str(c4))
    for place, level in zip(["SimpleSource"] + ["Overview"] * len(levels), levels, strict=False):
        source = ET.SubElement(band, place)
        ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = level.path.name
        ET.SubElement(source, "SourceBand").text = "1"
