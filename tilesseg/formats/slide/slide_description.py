"""What a slide is, as plain JSON data for whoever inspects it."""

from __future__ import annotations

from typing import Any

from tilesseg.formats.reading.georeference import describe_grid
from tilesseg.formats.reading.validity import Scaling
from tilesseg.formats.slide.slide_reader import SlideFacts, level_grid


def describe_slide(facts: SlideFacts, level: int, *, scale: Scaling) -> dict[str, Any]:
    """One level of a slide, with what is known of the whole."""
    band = {"dtype": facts.dtype, "scale": scale[0], "offset": scale[1], "file": facts.path}
    return {
        **describe_grid(level_grid(facts, level)),
        "mpp": facts.mpp and {"y": facts.mpp[0], "x": facts.mpp[1]},
        "objective": facts.objective,
        "vendor": facts.vendor,
        "level": level,
        "levels": [_describe_level(facts, number) for number in range(len(facts.levels))],
        "series": list(facts.series),
        "bands": [{"name": name, **band} for name in facts.names],
        "files": [_describe_file(facts)],
        "notes": _notes(facts, level),
    }


def _describe_level(facts: SlideFacts, number: int) -> dict[str, Any]:
    level, (y, x) = facts.levels[number], facts.levels[number].downsample
    return {"height": level.shape[0], "width": level.shape[1], "downsample": y if y == x else [y, x]}


def _describe_file(facts: SlideFacts) -> dict[str, Any]:
    finest = facts.levels[0]
    return {
        "path": facts.path,
        "driver": facts.reader,
        "height": finest.shape[0],
        "width": finest.shape[1],
        "storage": finest.storage,
        "compression": facts.compression,
        "overviews": [level.downsample[0] for level in facts.levels[1:]],
        "mask": facts.mask,
        "nodata": [None],
        "resampled": None,
    }


def _notes(facts: SlideFacts, level: int) -> list[str]:
    notes = list(facts.notes)
    if level:
        notes.append(f"level {level} is read, {facts.levels[level].downsample[1]:g} times as coarse as the finest")
    return notes
