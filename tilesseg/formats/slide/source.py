"""A slide as an image: one level of its pyramid on its grid, and the coarser ones below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilesseg.formats.reading.image import ImageBand, ImageFacts, Planes, Reader, Shape
from tilesseg.formats.reading.validity import UNSCALED, Scaling
from tilesseg.formats.slide.slide_reader import LevelReader, SlideFacts, level_grid
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class SlideReader(Reader):
    """Reads one level of a slide; see `reading.image.Reader`.

    A pixel is nodata where the scanner left it out: where it is transparent, or its tile is not in the file.
    """

    pyramid: LevelReader
    level: int

    def read(self, window: Window, bands: Sequence[int]) -> Planes:
        """See `Reader.read`."""
        return self.pyramid.read(self.level, window, bands)

    def storage_block(self, bands: Sequence[int]) -> Shape:
        return self.pyramid.facts.levels[self.level].storage_block

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
    """The reader of a level of a slide, and of those below it.

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
        "mpp": facts.mpp and {"y": facts.mpp[0], "x": facts.mpp[1]},
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
        notes=(*facts.notes, *([coarser] if level else [])),
        properties=properties,
    )


def _describe_level(facts: SlideFacts, number: int) -> dict[str, Any]:
    level, (y, x) = facts.levels[number], facts.levels[number].downsample
    return {"height": level.shape[0], "width": level.shape[1], "downsample": y if y == x else [y, x]}
