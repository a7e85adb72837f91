"""What is decoded when one pixel of a raster file is read."""

from __future__ import annotations

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_facts import open_raster
from tilesseg.formats.geotiff.raster_file import RasterFile

_MEMBERS = 16  # of a VRT that are looked at
_SIDECARS = (".vrt", ".ovr", ".msk", ".xml")


def decoded_cell(file: RasterFile) -> tuple[int, int]:
    """Height and width in the file's pixels: a tile, a strip, the whole image; of a VRT the largest of its members'."""
    facts = file.facts
    shape, cell = facts.grid.shape, facts.cell
    if facts.one_strip:
        cell = shape
    elif facts.driver == "GTiff" and facts.compression is None and cell[1] >= shape[1]:
        cell = 1, shape[1]  # where nothing is compressed, any row is found by its place
    cells = [cell, *(_members(file) if facts.driver == "VRT" else [])]
    heights, widths = zip(*cells, strict=True)
    return min(shape[0], max(heights)), min(shape[1], max(widths))


def _members(file: RasterFile) -> list[tuple[int, int]]:
    names = [name for name in file.facts.files if name != file.path and not name.lower().endswith(_SIDECARS)]
    cells = []
    for name in names[:_MEMBERS]:
        try:
            cells.append(decoded_cell(open_raster(name)))
        except SourceError:  # it is missing, or no image: reading will say so
            continue
    return cells
