"""Slides and microscope images with a pyramid: by tifffile where it gives the same pixels, else by OpenSlide.

tifffile reads SVS, QPTIFF, OME-TIFF, ImageJ's TIFF and tiled pyramids, several times as fast as OpenSlide, and all
channels of them. OpenSlide reads the other formats of scanners.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.image import Image
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.slide.dicom_series import is_dicom, slides_in, slides_of
from tilesseg.formats.slide.openslide_reader import open_openslide
from tilesseg.formats.slide.source import LevelReader, slide_reader
from tilesseg.formats.slide.tiff_open import read_by_tifffile
from tilesseg.formats.slide.tiff_reader import open_tiff_slide

_LISTED = 8
"""Number of slides that a refusal names."""


def open_slide(paths: Sequence[str], opening: Opening) -> Image:
    """Open a slide; see `formats.open_source`.

    Raises:
        SourceError: missing, unreadable, or OpenSlide is needed and not installed.
    """
    path = _slide_file(paths)
    opening.refuse(path, "missing", why="only a Zarr leaves out chunks")
    if read_by_tifffile(path):
        return _source(open_tiff_slide(path, opening), opening)
    opening.refuse(path, "series", "t", "z", why="OpenSlide reads one image of a slide")
    if opening.alpha == "band":
        opening.refuse(path, "alpha", why="alpha of OpenSlide is where nothing was scanned")
    return _source(open_openslide(path), opening)


def open_ome_tiff(paths: Sequence[str], opening: Opening) -> Image:
    """Open an OME-TIFF, one file or a set with a companion file; see `formats.open_source`.

    Raises:
        SourceError: missing or unreadable, or t, z or the series is missing or has to be chosen.
    """
    path = _one(paths)
    opening.refuse(path, "missing", why="only a Zarr leaves out chunks")
    return _source(open_tiff_slide(path, opening), opening)


def _slide_file(paths: Sequence[str]) -> str:
    """The file by which a slide is opened: of a folder or several files in DICOM, a file of its only slide.

    Raises:
        SourceError: there are several slides, or files that make none.
    """
    folder = len(paths) == 1 and os.path.isdir(paths[0])
    if not folder and (len(paths) == 1 or not all(map(is_dicom, paths))):
        return _one(paths)
    slides = slides_in(paths[0]) if folder else slides_of(paths)
    if len(slides) != 1:
        listed = ", ".join(os.path.basename(slide.image) for slide in slides[:_LISTED])
        because = f"{len(slides)} slides are in it ({listed})"
        raise SourceError(cannot(f"open {paths[0]} as a slide", because, "name a file of one, or all as scenes"))
    return slides[0].image


def _one(paths: Sequence[str]) -> str:
    if len(paths) != 1:
        raise SourceError(f"{paths[0]}: {len(paths)} files, and a slide is one; name the first or its companion")
    if not os.path.exists(paths[0]):
        raise SourceError(cannot(f"open {paths[0]}", "no such file", "correct the path"))
    return paths[0]


def _source(reader: LevelReader, opening: Opening) -> Image:
    facts, level = reader.facts, opening.level or 0
    opening.check_numbers(facts.path)
    if not 0 <= level < len(facts.levels):
        raise SourceError(
            f"{facts.path}: level {level} is requested, and its levels are 0 to {len(facts.levels) - 1}; choose one of "
            "them"
        )
    scale = 1.0 if opening.scale is None else opening.scale, 0.0 if opening.offset is None else opening.offset
    return Image.of(slide_reader(reader, level, scale))
