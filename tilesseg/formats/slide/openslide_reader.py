"""Slides through OpenSlide: its facts and its pixels, in any scanner's format that OpenSlide knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.damage import whole_blocks
from tilesseg.formats.reading.band_planes import Planes
from tilesseg.formats.reading.image import Shape
from tilesseg.formats.reading.pixel_size import coarser_levels
from tilesseg.formats.reading.stated_size import FoundSize, StatedSize, find_size, number_above_0, sides_of
from tilesseg.formats.slide.dicom_series import is_dicom, series_files
from tilesseg.formats.slide.source import LevelReader, SlideFacts, SlideLevel, where
from tilesseg.formats.source import unreadable
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    import openslide


SQUARE = 512
"""Side in pixels of the square that is read at once from a level whose pixels are interpolated."""
_ROWS = 512
_DAMAGED = 64
"""Side in pixels of the squares that are damaged or not; a divisor of the sides of usual tiles."""


class OpenSlideReader:
    """Reads regions; each process opens the slide anew, for all its threads. See `LevelReader`.

    A pixel of a level with a whole-number downsample that lies on the level's own pixels is the file's. OpenSlide
    interpolates others, depending on the corner of the region: there only whole squares of a fixed raster are read, so
    that a pixel is the same in every window.
    """

    def __init__(self, facts: SlideFacts, numbers: tuple[int, ...], steps: tuple[float, ...]) -> None:
        self._facts = facts
        self.numbers = numbers
        """Number of each level in OpenSlide."""
        self.steps = steps
        """Downsample of each level in OpenSlide, which computes positions with it."""
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
        if self._exact(level):  # the same pixels in any parts: rows, to save memory
            # whole squares, whose damage does not depend on the window: the slide's own tiles may lie anywhere
            whole = whole_blocks(window, self.damage_block(level), self._facts.levels[level].shape)
            for y in range(whole.y - whole.y % _ROWS, whole.y_stop, _ROWS):
                yield Window(y, whole.x, _ROWS, whole.width).intersect(whole)
            return
        for y in range(window.y - window.y % SQUARE, window.y_stop, SQUARE):
            for x in range(window.x - window.x % SQUARE, window.x_stop, SQUARE):
                yield Window(y, x, SQUARE, SQUARE)

    def damage_block(self, level: int) -> Shape:
        """See `LevelReader.damage_block`."""
        return (_DAMAGED, _DAMAGED) if self._exact(level) else (SQUARE, SQUARE)

    def _exact(self, level: int) -> bool:
        step = self.steps[level]
        corner = self._facts.corner
        return step.is_integer() and all(place % step == 0 for place in corner)

    def _region(self, level: int, piece: Window) -> NDArray[np.uint8]:
        """RGBA `(y, x, 4)`, not premultiplied."""
        try:
            return self._read_region(self._opened(), level, piece)
        except Exception:  # a handle is useless after one error, which may be another thread's
            return self._read_anew(level, piece)

    def _read_anew(self, level: int, piece: Window) -> NDArray[np.uint8]:
        from openslide import OpenSlide

        with self._lock:
            self._slide = None  # closed with the last reference of a thread that reads through it
        try:
            slide = OpenSlide(self._facts.path)
            pixels = self._read_region(slide, level, piece)
        except Exception as error:
            raise SourceError(unreadable(where(self._facts.path, level, piece), error)) from error
        with self._lock:
            self._slide = os.getpid(), slide
        return pixels

    def _read_region(self, slide: openslide.OpenSlide, level: int, piece: Window) -> NDArray[np.uint8]:
        own, step = self.steps[level], self._facts.levels[level].downsample
        (top, left), (step_y, step_x) = self._facts.corner, step
        # OpenSlide takes positions in pixels of the finest level and divides them by its own downsample
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
        because = "OpenSlide is not installed"
        raise SourceError(cannot(f"open {path}", because, "pip install 'tilesseg[slides]'")) from error
    try:
        with openslide.OpenSlide(path) as slide:
            facts, numbers = openslide_facts(slide, path)
            return OpenSlideReader(facts, numbers, tuple(float(slide.level_downsamples[k]) for k in numbers))
    except openslide.OpenSlideError as error:
        raise SourceError(cannot(f"open {path} with OpenSlide", error, "give another file")) from error


_FOLDERS = {".mrxs": "folder", ".vms": "siblings", ".vmu": "siblings"}
"""Places of the other files, of formats of many files."""
_TILE = 512  # where OpenSlide has no number


def openslide_facts(slide: openslide.OpenSlide, path: str) -> tuple[SlideFacts, tuple[int, ...]]:
    """Facts of an opened slide, and the number of each of its levels in OpenSlide."""
    properties = slide.properties
    shapes = [(height, width) for width, height in slide.level_dimensions]
    (y, x), size = _bounds(properties, shapes[0])
    steps = coarser_levels(shapes)
    levels = [
        SlideLevel(
            shape=_cropped(size, step, (y, x), shapes[number]),
            storage_block=_storage_block(properties, number),
            downsample=step,
            storage="tiles of {1} × {0}".format(*_storage_block(properties, number)),
        )
        for number, step in steps
    ]
    size_found = openslide_size(properties)
    facts = SlideFacts(
        path=path,
        reader="OpenSlide",
        files=_files(path),
        levels=tuple(levels),
        names=("red", "green", "blue"),
        dtype="uint8",
        masks=(0, 0, 0),
        size=size_found,
        corner=(y, x),
        canvas=None if size == shapes[0] else shapes[0],
        vendor=properties.get("openslide.vendor"),
        objective=number_above_0(properties.get("openslide.objective-power")),
        mask="alpha: what the scanner left out is transparent",
        notes=(*size_found.notes, *_notes((y, x), size, shapes[0])),
    )
    return facts, tuple(number for number, _ in steps)


def _bounds(properties: Mapping[str, str], whole: Shape) -> tuple[tuple[int, int], Shape]:
    """Corner and size of the scanned region; all of the slide where it has none."""
    try:
        y, x, height, width = (int(properties[f"openslide.bounds-{key}"]) for key in ("y", "x", "height", "width"))
    except (KeyError, ValueError):
        return (0, 0), whole
    inside = y >= 0 and x >= 0 and height > 0 and width > 0 and y + height <= whole[0] and x + width <= whole[1]
    return ((y, x), (height, width)) if inside else ((0, 0), whole)


def _cropped(size: Shape, step: tuple[float, float], corner: tuple[int, int], whole: Shape) -> Shape:
    """Shape of a level of the scanned region: OpenSlide's own where the region is all of the slide."""
    if corner == (0, 0) and all(
        round(n / s) == k or -(-n // s) == k for n, s, k in zip(size, step, whole, strict=True)
    ):
        return whole
    height, width = (max(1, int(-(-n // s))) for n, s in zip(size, step, strict=True))
    return height, width


def _storage_block(properties: Mapping[str, str], number: int) -> Shape:
    try:
        height, width = (int(properties[f"openslide.level[{number}].tile-{key}"]) for key in ("height", "width"))
    except (KeyError, ValueError):
        return _TILE, _TILE
    return height, width


def _files(path: str) -> tuple[str, ...]:
    """The file, with the other files of formats of many files."""
    if is_dicom(path):
        return series_files(path)
    file = Path(path)
    others = _FOLDERS.get(file.suffix.lower())
    if others is None:
        return (path,)
    folder = file.with_suffix("") if others == "folder" else file.parent
    others_there = sorted(str(entry) for entry in folder.glob("*") if entry.is_file())
    return tuple(dict.fromkeys([path, *others_there]))


_TAG_UNITS = {"inch": 25400.0, "centimeter": 10000.0}


def openslide_size(properties: Mapping[str, str]) -> FoundSize:
    """Pixel size by OpenSlide's own entries, which it makes of the scanner's, else by the TIFF's resolution."""
    own = sides_of(*(number_above_0(properties.get(f"openslide.mpp-{axis}")) for axis in "yx"))
    vendor = properties.get("openslide.vendor", "the scanner")
    unit = _TAG_UNITS.get(properties.get("tiff.ResolutionUnit", ""))
    pixels = [number_above_0(properties.get(f"tiff.{axis}Resolution")) for axis in "YX"]
    tags = sides_of(*(unit / one if unit and one else None for one in pixels))
    return find_size(
        [
            StatedSize(own, f"OpenSlide's mpp ({vendor})") if own else None,
            StatedSize(tags, "the TIFF's resolution", printed=True) if tags else None,
        ]
    )


def _notes(corner: tuple[int, int], size: Shape, whole: Shape) -> tuple[str, ...]:
    if corner == (0, 0) and size == whole:
        return ()
    return (
        f"the scanned region is read: {size[0]} × {size[1]} pixels from row {corner[0]}, column {corner[1]} of a "
        f"canvas of {whole[0]} × {whole[1]}",
    )
