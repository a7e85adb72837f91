"""Pixels of a slide through OpenSlide: every scanner's own format that it knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.reading.image import Planes
from tilesseg.formats.slide.openslide_facts import openslide_facts
from tilesseg.formats.slide.slide_reader import LevelReader, SlideFacts, where
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    import openslide


SQUARE = 512
"""Side in pixels of what is read at once of a level whose pixels are not those of the file."""
_ROWS = 512


class OpenSlideReader:
    """Reads regions; each process opens the slide anew, for all its threads. See `LevelReader`.

    A pixel of a level with a whole-number downsample that lies on the level's own pixels is the file's. Others
    OpenSlide interpolates by where a region begins: there only whole squares of a fixed raster are read, so that a
    pixel does not depend on which window asks for it.
    """

    def __init__(self, facts: SlideFacts, numbers: tuple[int, ...], steps: tuple[float, ...]) -> None:
        self._facts = facts
        self.numbers = numbers
        """OpenSlide's number of each level."""
        self.steps = steps
        """OpenSlide's own downsample of each level, which it computes places with."""
        self._lock = threading.Lock()
        self._slide: tuple[int, openslide.OpenSlide] | None = None

    def __reduce__(self) -> tuple[type[OpenSlideReader], tuple[Any, ...]]:
        return OpenSlideReader, (self._facts, self.numbers, self.steps)

    @property
    def facts(self) -> SlideFacts:
        return self._facts

    def read(self, level: int, window: Window, channels: Sequence[int]) -> Planes:
        """See `LevelReader.read`."""
        values = np.empty((len(channels), *window.shape), np.uint8)
        valid = np.empty(window.shape, np.bool_)
        for piece in self._pieces(level, window):
            part = piece.intersect(window)
            pixels = self._region(level, piece)[part.slices(piece)]
            inside = part.slices(window)
            for target, channel in zip(values, channels, strict=True):
                target[inside] = pixels[..., channel]
            valid[inside] = pixels[..., 3] != 0
        if valid.all():
            return Planes(values, [np.broadcast_to(np.True_, window.shape)])
        values[:, ~valid] = 0
        return Planes(values, [valid])

    def _pieces(self, level: int, window: Window) -> Iterator[Window]:
        if self._exact(level):  # the same pixels however it is cut: rows, for the sake of memory
            for y in range(window.y - window.y % _ROWS, window.y_stop, _ROWS):
                yield Window(y, window.x, _ROWS, window.width).intersect(window)
            return
        for y in range(window.y - window.y % SQUARE, window.y_stop, SQUARE):
            for x in range(window.x - window.x % SQUARE, window.x_stop, SQUARE):
                yield Window(y, x, SQUARE, SQUARE)

    def _exact(self, level: int) -> bool:
        step = self.steps[level]
        corner = self._facts.corner
        return step.is_integer() and all(place % step == 0 for place in corner)

    def _region(self, level: int, piece: Window) -> NDArray[np.uint8]:
        """RGBA `(y, x, 4)`, not premultiplied."""
        try:
            return self._read_region(self._opened(), level, piece)
        except Exception:  # one error spoils a handle for good, maybe that of another thread
            return self._read_anew(level, piece)

    def _read_anew(self, level: int, piece: Window) -> NDArray[np.uint8]:
        from openslide import OpenSlide

        with self._lock:
            self._slide = None  # closed when the last thread that reads through it lets it go
        try:
            slide = OpenSlide(self._facts.path)
            pixels = self._read_region(slide, level, piece)
        except Exception as error:
            message = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{where(self._facts.path, level, piece)}: {message}") from error
        with self._lock:
            self._slide = os.getpid(), slide
        return pixels

    def _read_region(self, slide: openslide.OpenSlide, level: int, piece: Window) -> NDArray[np.uint8]:
        own, step = self.steps[level], self._facts.levels[level].downsample
        (top, left), (step_y, step_x) = self._facts.corner, step
        # OpenSlide takes places in pixels of the finest level and divides them by its own downsample
        y, x = round((top / step_y + piece.y) * own), round((left / step_x + piece.x) * own)
        image = slide.read_region((x, y), self.numbers[level], (piece.width, piece.height))
        return np.asarray(image)

    def _opened(self) -> openslide.OpenSlide:
        from openslide import OpenSlide

        with self._lock:
            if self._slide is None or self._slide[0] != os.getpid():
                self._slide = os.getpid(), OpenSlide(self._facts.path)
            return self._slide[1]


_: type[LevelReader] = OpenSlideReader


def open_openslide(path: str) -> OpenSlideReader:
    """Open a slide.

    Raises:
        SourceError: OpenSlide is not installed, or cannot open it.
    """
    try:
        import openslide
    except ImportError as error:
        raise SourceError(f"{path}: OpenSlide reads it, which is not installed; pip install 'tilesseg[slides]'") from (
            error
        )
    try:
        with openslide.OpenSlide(path) as slide:
            facts, numbers = openslide_facts(slide, path)
            return OpenSlideReader(facts, numbers, tuple(float(slide.level_downsamples[k]) for k in numbers))
    except openslide.OpenSlideError as error:
        message = " ".join(str(error).split())
        raise SourceError(f"{path}: OpenSlide cannot open it: {message}") from error
