"""Slides through tifffile: facts and pixels of SVS, QPTIFF, OME-TIFF, ImageJ's TIFF, and any tiled pyramid."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.band_planes import Planes
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.pixel_size import coarser_levels
from tilesseg.formats.reading.validity import DTYPES, AlphaUse
from tilesseg.formats.slide.source import LevelReader, SlideFacts, SlideLevel, where
from tilesseg.formats.slide.tiff_choice import TiffImage, choose_image, image_names
from tilesseg.formats.slide.tiff_level import ByteFiles, TiffLevel, read_level
from tilesseg.formats.slide.tiff_metadata import TiffMetadata, band_names, tiff_metadata
from tilesseg.formats.slide.tiff_open import companion_of, missing_files, one_line, open_tiff
from tilesseg.formats.slide.tiff_pages import choose_pages, refuse_missing
from tilesseg.raster.window import Window


@dataclass(frozen=True, slots=True)
class TiffChoice:
    """The part of a TIFF that is read."""

    path: str
    series: int
    levels: tuple[int, ...]
    """Numbers of the levels in the series, finest first."""
    planes: tuple[int, ...]
    """Numbers of the pages in the series, one for each channel."""
    alpha: AlphaUse | None = None
    """Use of a sample that is tagged alpha."""


class TiffReader:
    """Reads tiles through tifffile; each process locates them once. See `LevelReader`."""

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
            stored = self._open()[level]
            values = np.empty((len(channels), *window.shape), stored.dtype)
            valid = []
            for number in sorted({self._facts.masks[channel] for channel in channels}):
                mine = [k for k, channel in enumerate(channels) if self._facts.masks[channel] == number]
                samples = [self._sample(channels[k], stored) for k in mine]
                # consecutive channels are a view; others are read into an array of their own and copied
                view = mine == list(range(mine[0], mine[0] + len(mine)))
                out = values[mine[0] : mine[-1] + 1] if view else np.empty((len(mine), *window.shape), stored.dtype)
                mask = stored.read(stored.planes[number], window, samples, out, self._files)
                alpha = stored.mask(number, window, self._files)
                valid.append(mask if alpha is None else mask & alpha)
                if not view:
                    values[mine] = out
        return Planes(values, valid)

    def damage_block(self, level: int) -> tuple[int, int]:
        """See `LevelReader.damage_block`."""
        return self._facts.levels[level].storage_block

    def _sample(self, channel: int, level: TiffLevel) -> int:
        """Number of a band in its plane, where alpha is counted too."""
        number = channel - self._facts.masks.index(self._facts.masks[channel])
        return number + (level.apart == 1 and level.alpha is not None and number >= level.alpha)

    def _open(self) -> list[TiffLevel]:
        with self._lock:
            if self._levels[0] != os.getpid():
                self._levels = os.getpid(), read_levels(self.choice)
            return self._levels[1]


_: type[LevelReader] = TiffReader


def read_levels(choice: TiffChoice) -> list[TiffLevel]:
    """Planes of the chosen levels, with the places of their tiles.

    Raises:
        SourceError: the file has changed since it was opened first.
        Exception: any error of tifffile on a damaged file.
    """
    with open_tiff(choice.path) as file:
        if choice.series >= len(file.series):
            because = f"it has {len(file.series)} images now, and number {choice.series} was read before"
            raise SourceError(cannot(f"read {choice.path}", because, "restore the file"))
        levels = file.series[choice.series].levels
        return [read_level(levels[number], choice.planes, choice.alpha) for number in choice.levels]


def open_tiff_slide(path: str, opening: Opening) -> TiffReader:
    """Open a TIFF by tifffile.

    Raises:
        SourceError: unreadable, or without the requested part.
    """
    with one_line(f"{path}: cannot be opened"), open_tiff(path) as file:
        if not file.series:
            raise SourceError(cannot(f"open {path}", "it has no image", "give another file"))
        image, notes = choose_image(file.series, opening, path)
        return _reader(file, image, notes, opening, path)


def _reader(
    file: tifffile.TiffFile, image: TiffImage, notes: tuple[str, ...], opening: Opening, path: str
) -> TiffReader:
    number, series = image.series, file.series[image.series]
    _refuse_type(series, path)
    refuse_missing(series, opening, path)
    pages = choose_pages(series, opening, path, image.page)
    _refuse_missing_files(file, series, pages.numbers, path)
    levels = _levels(series, pages.numbers, opening.alpha)
    first, metadata = levels[0].tiff, tiff_metadata(file, number, pages)
    every = first.apart * first.samples
    samples = every - (first.alpha is not None)
    names = band_names(series.keyframe, metadata.channels, count=len(pages.numbers), samples=samples)
    kept = [sample for sample in range(every) if sample != first.alpha]
    facts = SlideFacts(
        path=path,
        reader="tifffile",
        files=_files(file, path, first),
        levels=tuple(
            SlideLevel(one.tiff.shape, _storage_block(one.tiff), one.step, _storage(one.tiff)) for one in levels
        ),
        names=tuple(names),
        dtype=str(np.dtype(series.dtype).newbyteorder("=")),
        masks=tuple(
            page * first.apart + (sample if first.apart > 1 else 0)
            for page in range(len(pages.numbers))
            for sample in kept
        ),
        alpha=() if first.alpha is None else tuple(page * every + first.alpha for page in range(len(pages.numbers))),
        size=metadata.size,
        vendor=metadata.vendor,
        compression=tifffile.COMPRESSION(series.keyframe.compression).name.lower(),
        objective=metadata.objective,
        series=image_names(file.series),
        mask=_mask(first),
        notes=(*notes, *metadata.size.notes, *_notes(first, series, metadata)),
    )
    choice = TiffChoice(path, number, tuple(level.number for level in levels), pages.numbers, opening.alpha)
    return TiffReader(choice, facts)


class _StoredLevel(NamedTuple):
    """A level that is read."""

    number: int
    """Its number in the series."""
    step: tuple[float, float]
    tiff: TiffLevel


def _levels(series: tifffile.TiffPageSeries, planes: Sequence[int], alpha: AlphaUse | None) -> list[_StoredLevel]:
    """The series itself, and its levels that are coarser pictures of it and stored in the same planes."""
    alike = [
        (number, one)
        for number, one in enumerate(series.levels)
        if number == 0 or (one.dtype == series.dtype and len(one) == len(series))
    ]
    shapes = [(int(one.keyframe.imagelength), int(one.keyframe.imagewidth)) for _, one in alike]
    levels = [
        _StoredLevel(alike[k][0], step, read_level(alike[k][1], planes, alpha)) for k, step in coarser_levels(shapes)
    ]
    first = levels[0].tiff
    stored = first.samples, first.alpha, len(first.planes)
    return [one for one in levels if (one.tiff.samples, one.tiff.alpha, len(one.tiff.planes)) == stored]


def _refuse_type(series: tifffile.TiffPageSeries, path: str) -> None:
    dtype = np.dtype(series.dtype).newbyteorder("=")
    if str(dtype) not in DTYPES:
        raise SourceError(f"{path}: values of type {dtype}, not one of {', '.join(DTYPES)}; convert it first")


def _refuse_missing_files(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, numbers: Sequence[int], path: str
) -> None:
    """Refuse an image with a missing file: tifffile would give zeros for it."""
    if len(series) == 1 or all(series[number] is not None for number in numbers):
        return
    missing = missing_files(path, file.ome_metadata)
    if missing:
        because = f"{missing[0]} of its set is missing, which holds requested planes"
        raise SourceError(cannot(f"read {path}", because, "put the files of the set together"))


def _storage_block(level: TiffLevel) -> tuple[int, int]:
    raw = level.planes[0].rows_at is not None
    height, width = (1, level.shape[1]) if raw else level.tile
    return min(height, level.shape[0]), min(width, level.shape[1])


def _storage(level: TiffLevel) -> str:
    if level.planes[0].rows_at is not None:
        return "uncompressed rows"
    height, width = level.tile
    return f"strips of full rows, {height} each" if width == level.shape[1] else f"tiles of {width} × {height}"


def _mask(level: TiffLevel) -> str:
    if level.alpha is not None:
        return "alpha"
    stored = all(one.rows_at is not None or bool((one.counts * one.offsets).all()) for one in level.planes)
    return "all pixels valid" if stored else "tiles that are in the file"


def _files(file: tifffile.TiffFile, path: str, level: TiffLevel) -> tuple[str, ...]:
    paths = [path, companion_of(path) or path, str(file.filehandle.path), *(plane.path for plane in level.planes)]
    return tuple(dict.fromkeys(str(Path(name)) for name in paths))


def _notes(level: TiffLevel, series: tifffile.TiffPageSeries, metadata: TiffMetadata) -> list[str]:
    notes = []
    if level.alpha is not None:
        notes.append("alpha says which pixels are valid; it is not one of the image's bands")
    if level.planes[0].rows_at is None and not series.keyframe.is_tiled:
        notes.append(f"stored in strips of full rows, {level.tile[0]} each: a window decodes its rows from end to end")
    if int(series.keyframe.photometric) == 3 and metadata.vendor != "imagej":
        notes.append("its values are numbers of colours in a table")
    return notes
