"""A slide as an image: its facts, and one level of its pyramid with the coarser levels below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tilesseg.formats.reading.band_planes import ImageBand, Planes
from tilesseg.formats.reading.image import ImageFacts, Reader, Shape
from tilesseg.formats.reading.pixel_size import MICROMETRE
from tilesseg.formats.reading.stated_size import FoundSize
from tilesseg.formats.reading.validity import UNSCALED, Scaling
from tilesseg.formats.source import AlphaBand
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One level of the pyramid."""

    shape: Shape
    """Shape of the part that is read: the scanned region alone."""
    storage_block: Shape
    """Block that is decoded for a single pixel: a tile, a strip, a row."""
    downsample: tuple[float, float]
    """Side of a pixel in pixels of the finest level, `(y, x)`."""
    storage: str
    """Storage in words, for the description."""


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """Facts of an open slide."""

    path: str
    reader: str
    """The library that reads it."""
    files: tuple[str, ...]
    """Every file that the pixels come from."""
    levels: tuple[SlideLevel, ...]
    """Finest first."""
    names: tuple[str | None, ...]
    """Names of the bands."""
    dtype: str
    masks: tuple[int, ...]
    """Number of the mask of each band."""
    alpha: tuple[int, ...] = field(default=(), kw_only=True)
    """Numbers of the samples that are the mask, from 0, among all samples of the channels."""
    size: FoundSize
    """Micrometres per pixel of the finest level, where the file has a size, and its origin."""
    corner: tuple[int, int] = (0, 0)
    """Top-left corner `(y, x)` of the part that is read, in pixels of the finest level on the slide's canvas."""
    canvas: tuple[int, int] | None = None
    """Shape of that canvas, where a part of it is read."""
    vendor: str | None = None
    compression: str | None = None
    objective: float | None = None
    """Power of the microscope's objective."""
    series: tuple[str, ...] = ()
    """Names of the images of the file, where it has several."""
    mask: str = "all pixels valid"
    """Origin of validity in words, for the description."""
    notes: tuple[str, ...] = ()


class LevelReader(Protocol):
    """Reads pixels. Picklable, opened anew in each process; safe to use from several threads at once."""

    @property
    def facts(self) -> SlideFacts: ...

    def read(self, level: int, window: Window, channels: Sequence[int]) -> Planes:
        """Read a window that lies in the level.

        Raises:
            SourceError: the pixels cannot be read; names file and window.
        """

    def damage_block(self, level: int) -> Shape:
        """See `Reader.damage_block`."""


def where(path: str, level: int, window: Window) -> str:
    """The beginning of each refusal to read."""
    rows, columns = f"rows {window.y}–{window.y_stop - 1}", f"columns {window.x}–{window.x_stop - 1}"
    return f"{path}: cannot read {rows}, {columns} of level {level}"


@dataclass(frozen=True, slots=True)
class SlideReader(Reader):
    """Reads one level of a slide; see `reading.image.Reader`.

    A pixel is nodata where the scanner left it out: where it is transparent, or where the file lacks its tile.
    """

    pyramid: LevelReader
    level: int

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        return self.pyramid.read(self.level, window, bands)

    def storage_block(self, bands: Sequence[int]) -> Shape:
        return self.pyramid.facts.levels[self.level].storage_block

    def damage_block(self, bands: Sequence[int]) -> Shape:
        """See `Reader.damage_block`."""
        return self.pyramid.damage_block(self.level)

    def describe_files(self) -> list[dict[str, Any]]:
        facts = self.pyramid.facts
        finest = facts.levels[0]
        return [
            {
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
        ]


def slide_reader(pyramid: LevelReader, level: int = 0, scaling: Scaling = UNSCALED) -> SlideReader:
    """Reader of a level of a slide, and of the levels below it.

    Args:
        pyramid: the opened slide.
        level: number of the level, 0 being the finest.
        scaling: scale and offset of all bands, as the user gave them.
    """
    coarser: tuple[Reader, ...] = ()
    for number in range(len(pyramid.facts.levels) - 1, level, -1):
        coarser = (SlideReader(_image_facts(pyramid.facts, number, scaling), pyramid, number), *coarser)
    return SlideReader(_image_facts(pyramid.facts, level, scaling), pyramid, level, levels=coarser)


def _image_facts(facts: SlideFacts, level: int, scaling: Scaling) -> ImageFacts:
    bands = [
        ImageBand(name, facts.dtype, facts.path, *scaling, index=index, mask=mask)
        for index, (name, mask) in enumerate(zip(facts.names, facts.masks, strict=True))
    ]
    properties = {
        "mpp": facts.size.mpp and {"y": facts.size.mpp[0], "x": facts.size.mpp[1]},
        **facts.size.properties,
        "objective": facts.objective,
        "vendor": facts.vendor,
        "level": level,
        "levels": [_describe_level(facts, number) for number in range(len(facts.levels))],
        "series": list(facts.series),
    }
    coarser = f"level {level} is read, {facts.levels[level].downsample[1]:g} times as coarse as the finest"
    return ImageFacts(
        facts.path,
        level_grid(facts, level),
        tuple(bands),
        facts.files,
        native=level_grid(facts, 0),
        canvas=facts.canvas,
        notes=(*facts.notes, *([coarser] if level else [])),
        properties=properties,
        alpha=tuple(AlphaBand(number + 1, None) for number in facts.alpha),
    )


def _describe_level(facts: SlideFacts, number: int) -> dict[str, Any]:
    level, (y, x) = facts.levels[number], facts.levels[number].downsample
    return {"height": level.shape[0], "width": level.shape[1], "downsample": y if y == x else [y, x]}


def level_grid(facts: SlideFacts, level: int) -> Grid:
    """The grid of a level: micrometres on the slide's canvas, or pixels of its finest level where they are unknown."""
    side_y, side_x = facts.size.mpp or (1.0, 1.0)
    (step_y, step_x), (y, x) = facts.levels[level].downsample, facts.corner
    transform = (side_x * step_x, 0.0, side_x * x, 0.0, side_y * step_y, side_y * y)
    if facts.size.mpp is None:
        return Grid(*facts.levels[level].shape, transform=transform)
    return Grid(*facts.levels[level].shape, transform=transform, unit="micrometre", metres_per_unit=MICROMETRE)
