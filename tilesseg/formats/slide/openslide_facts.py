"""What OpenSlide knows of a slide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tilesseg.formats.reading.image import Shape
from tilesseg.formats.reading.pixel_size import coarser_levels
from tilesseg.formats.slide.slide_reader import SlideFacts, SlideLevel

if TYPE_CHECKING:
    import openslide


_FOLDERS = {".mrxs": "folder", ".dcm": "siblings", ".vms": "siblings", ".vmu": "siblings"}
"""Formats of many files: where the others lie."""
_TILE = 512  # where OpenSlide does not tell


def openslide_facts(slide: openslide.OpenSlide, path: str) -> tuple[SlideFacts, tuple[int, ...]]:
    """What is known of an opened slide, and OpenSlide's number of each of its levels."""
    told = slide.properties
    shapes = [(height, width) for width, height in slide.level_dimensions]
    (y, x), size = _bounds(told, shapes[0])
    steps = coarser_levels(shapes)
    levels = [
        SlideLevel(
            shape=_cropped(size, step, (y, x), shapes[number]),
            storage_block=_storage_block(told, number),
            downsample=step,
            storage="tiles of {1} × {0}".format(*_storage_block(told, number)),
        )
        for number, step in steps
    ]
    facts = SlideFacts(
        path=path,
        reader="OpenSlide",
        files=_files(path),
        levels=tuple(levels),
        names=("red", "green", "blue"),
        dtype="uint8",
        masks=(0, 0, 0),
        mpp=_pair(told, "openslide.mpp-y", "openslide.mpp-x"),
        corner=(y, x),
        vendor=told.get("openslide.vendor"),
        objective=_above_0(told.get("openslide.objective-power")),
        mask="alpha: what the scanner left out is transparent",
        notes=_notes((y, x), size, shapes[0]),
    )
    return facts, tuple(number for number, _ in steps)


def _bounds(told: Mapping[str, str], whole: Shape) -> tuple[tuple[int, int], Shape]:
    """Corner and size of the scanned region; all of the slide where it is not told."""
    try:
        y, x, height, width = (int(told[f"openslide.bounds-{key}"]) for key in ("y", "x", "height", "width"))
    except (KeyError, ValueError):
        return (0, 0), whole
    inside = y >= 0 and x >= 0 and height > 0 and width > 0 and y + height <= whole[0] and x + width <= whole[1]
    return ((y, x), (height, width)) if inside else ((0, 0), whole)


def _cropped(size: Shape, step: tuple[float, float], corner: tuple[int, int], whole: Shape) -> Shape:
    """Shape of a level of the scanned region: as OpenSlide gives it where that is all of the slide."""
    if corner == (0, 0) and all(
        round(n / s) == k or -(-n // s) == k for n, s, k in zip(size, step, whole, strict=True)
    ):
        return whole
    height, width = (max(1, int(-(-n // s))) for n, s in zip(size, step, strict=True))
    return height, width


def _storage_block(told: Mapping[str, str], number: int) -> Shape:
    try:
        height, width = (int(told[f"openslide.level[{number}].tile-{key}"]) for key in ("height", "width"))
    except (KeyError, ValueError):
        return _TILE, _TILE
    return height, width


def _files(path: str) -> tuple[str, ...]:
    """The file, and what belongs to it in formats of many files."""
    file = Path(path)
    others = _FOLDERS.get(file.suffix.lower())
    if others is None:
        return (path,)
    folder = file.with_suffix("") if others == "folder" else file.parent
    alike = "*" if others == "folder" or file.suffix.lower() != ".dcm" else f"*{file.suffix}"
    found = sorted(str(one) for one in folder.glob(alike) if one.is_file())
    return tuple(dict.fromkeys([path, *found]))


def _pair(told: Mapping[str, str], *keys: str) -> tuple[float, float] | None:
    first, second = (_above_0(told.get(key)) for key in keys)
    return (first, second) if first and second else None


def _above_0(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _notes(corner: tuple[int, int], size: Shape, whole: Shape) -> tuple[str, ...]:
    if corner == (0, 0) and size == whole:
        return ()
    return (
        f"the scanned region is read: {size[0]} × {size[1]} pixels from row {corner[0]}, column {corner[1]} of a "
        f"canvas of {whole[0]} × {whole[1]}",
    )
