"""Description of raster files for `tilesseg inspect`, as plain JSON data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilesseg.formats.geotiff.band_stack import RasterLayer
from tilesseg.formats.geotiff.raster_file import RasterFacts


def describe_file(layer: RasterLayer) -> dict[str, Any]:
    """Description of one file of the image: its storage, and the origin of its mask."""
    facts = layer.file.facts
    return {
        "path": layer.file.path,
        "driver": facts.driver,
        "height": facts.grid.height,
        "width": facts.grid.width,
        "storage": _storage(facts),
        "compression": facts.compression,
        "overviews": list(facts.overviews),
        "mask": _mask(facts),
        "nodata": [_plain(value) for value in dict.fromkeys(facts.nodata)],
        "resampled": None if layer.native else {"scale": list(layer.scale), "offset": list(layer.offset)},
    }


def source_notes(layers: Sequence[RasterLayer]) -> tuple[str, ...]:
    """Sentences on unusual facts, each once."""
    return tuple(dict.fromkeys(note for layer in layers for note in (*layer.file.facts.notes, *_reading_notes(layer))))


def _reading_notes(layer: RasterLayer) -> list[str]:
    facts = layer.file.facts
    notes = []
    if facts.alpha:
        notes.append("the alpha band says which pixels are valid; it is not one of the image's bands")
    if facts.mask == "none" and any(np.dtype(dtype).kind == "f" for dtype in facts.dtypes):
        notes.append("floats without a nodata tag: NaN and infinite pixels are treated as nodata")
    if facts.one_strip:
        notes.append("one strip: whatever is read is decoded from the first row on")
    elif _striped(facts):
        notes.append(
            f"stored in strips of full rows, {facts.storage_block[0]} each: a window decodes its rows from end to end"
        )
    if not layer.native:
        y, x = layer.scale
        notes.append(f"resampled on reading: one pixel of the image is {y:g} × {x:g} pixels of the file")
    return notes


def _striped(facts: RasterFacts) -> bool:
    height, width = facts.storage_block
    return width >= facts.grid.width and height < facts.grid.height


def _storage(facts: RasterFacts) -> str:
    height, width = facts.storage_block
    if facts.one_strip:
        return "one strip"
    if _striped(facts):
        return f"strips of full rows, {height} each"
    return f"tiles of {width} × {height}" if width < facts.grid.width else "one piece"


def _mask(facts: RasterFacts) -> str:
    if facts.alpha:
        return "alpha band" if facts.mask == "none" else "alpha band, and mask in the file or beside it"
    return {
        "none": "all pixels valid",
        "nodata": "nodata value",
        "dataset": "mask in the file or beside it",
        "bands": "one mask per band, valid where that of any selected band is",
    }[facts.mask]


def _plain(value: float | None) -> float | str | None:
    """A number as JSON data, which has no NaN and no infinity."""
    return value if value is None or math.isfinite(value) else str(value)
