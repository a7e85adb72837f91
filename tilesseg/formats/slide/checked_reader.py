"""JPEG tiles of the finest level through a decoder that complains, the coarser levels through one that is exact.

Both give the same pixels of the finest level. tifffile's JPEG decoder is more than twice as fast and takes a warning of
libjpeg ("corrupt data") for none: of 200 tiles of a slide with eight bytes changed at random it noticed 7, OpenSlide
146. Of a coarser level whose size is not a whole fraction OpenSlide interpolates the pixels; tifffile gives them as
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilesseg.formats.slide.openslide_reader import OpenSlideReader
from tilesseg.formats.slide.reader import LevelReader, Planes, SlideFacts
from tilesseg.formats.slide.tiff_reader import TiffReader
from tilesseg.window import Window


@dataclass(frozen=True, slots=True)
class CheckedReader:
    """See `LevelReader`."""

    tiff: TiffReader
    strict: OpenSlideReader

    @property
    def facts(self) -> SlideFacts:
        return replace(self.tiff.facts, reader="OpenSlide, coarser levels tifffile")

    def read(self, level: int, window: Window, channels: Sequence[int]) -> Planes:
        """See `LevelReader.read`."""
        reader: LevelReader = self.tiff if level else self.strict
        return reader.read(level, window, channels)


_: type[LevelReader] = CheckedReader


def agree(tiff: SlideFacts, strict: SlideFacts) -> bool:
    """Whether both say the same of the finest level, so that either may read it."""
    same = all(getattr(tiff, key) == getattr(strict, key) for key in ("names", "dtype", "masks", "corner"))
    return same and tiff.levels[0].shape == strict.levels[0].shape
