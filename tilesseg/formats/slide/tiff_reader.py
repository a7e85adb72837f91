"""Pixels of a slide from a TIFF: SVS, QPTIFF, OME-TIFF, ImageJ's, and any tiled pyramid."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.reading.image import Planes
from tilesseg.formats.slide.slide_reader import LevelReader, SlideFacts, where
from tilesseg.formats.slide.tiff_level import ByteFiles, TiffLevel, read_level
from tilesseg.formats.slide.tiff_open import one_line, open_tiff
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class TiffChoice:
    """What of a TIFF is read."""

    path: str
    series: int
    levels: tuple[int, ...]
    """Numbers of the levels in the series, finest first."""
    planes: tuple[int, ...]
    """Numbers of the pages in the series, one for each channel."""


class TiffReader:
    """Reads tiles through tifffile; each process finds them anew, once. See `LevelReader`."""

    def __init__(self, choice: TiffChoice, facts: SlideFacts) -> None:
        self.choice = choice
        self._facts = facts
        self._files = ByteFiles()
        self._lock = threading.Lock()
        self._levels: tuple[int, list[TiffLevel]] = (0, [])

    def __reduce__(self) -> tuple[type[TiffReader], tuple[TiffChoice, SlideFacts]]:
        return TiffReader, (self.choice, self._facts)

    @property
    def facts(self) -> SlideFacts:
        return self._facts

    def read(self, level: int, window: Window, channels: Sequence[int]) -> Planes:
        """See `LevelReader.read`."""
        with one_line(where(self._facts.path, level, window)):
            found = self._open()[level]
            values = np.empty((len(channels), *window.shape), found.dtype)
            valid = []
            for number in sorted({self._facts.masks[channel] for channel in channels}):
                mine = [k for k, channel in enumerate(channels) if self._facts.masks[channel] == number]
                samples = [channels[k] - self._facts.masks.index(number) for k in mine]
                # consecutive channels are a view; others are read beside and copied
                view = mine == list(range(mine[0], mine[0] + len(mine)))
                out = values[mine[0] : mine[-1] + 1] if view else np.empty((len(mine), *window.shape), found.dtype)
                valid.append(found.read(found.planes[number], window, samples, out, self._files))
                if not view:
                    values[mine] = out
        return Planes(values, valid)

    def _open(self) -> list[TiffLevel]:
        with self._lock:
            if self._levels[0] != os.getpid():
                self._levels = os.getpid(), read_levels(self.choice)
            return self._levels[1]


_: type[LevelReader] = TiffReader


def read_levels(choice: TiffChoice) -> list[TiffLevel]:
    """Where the pixels of the chosen levels lie.

    Raises:
        SourceError: the file is not what it was when it was opened first.
        Exception: whatever a damaged file provokes.
    """
    with open_tiff(choice.path) as file:
        if choice.series >= len(file.series):
            raise SourceError(f"{choice.path}: it has {len(file.series)} images now, number {choice.series} was read")
        levels = file.series[choice.series].levels
        return [read_level(levels[number], choice.planes) for number in choice.levels]
