"""Kind of a TIFF, by its first pages: which of our formats reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tifffile

from tilesseg.formats.reading.pixel_size import downsample
from tilesseg.formats.slide.tiff_open import following, known_compressions

_LEAST = 4 / 3
"""Least factor between a level and the next coarser one."""
_MOST_SAMPLES = 10_000
"""Number of samples from which on a header is damaged: GDAL's reader says so."""


def tiff_kind(path: str) -> str:
    """`ome-tiff`, `slide` or `geotiff`; a file that tifffile cannot open is left to GDAL, whose message says why."""
    try:
        with tifffile.TiffFile(path) as file:
            return _kind(file)
    except Exception:  # tifffile raises errors of all kinds on a damaged file
        return "geotiff"


def _kind(file: tifffile.TiffFile) -> str:
    first, others = file.pages.first, list(following(file))
    if first.is_geotiff or first.samplesperpixel > _MOST_SAMPLES or any(page.is_geotiff for page in others):
        return "geotiff"
    if file.is_ome:
        return "ome-tiff"
    # GDAL sees the first channel or plane of these alone
    if file.is_imagej or file.is_lsm or file.is_stk or file.is_fluoview or file.is_micromanager:
        return "slide"
    if file.is_svs or file.is_ndpi or file.is_scn or file.is_philips or file.is_bif or file.is_qpi:
        return "slide"
    if _is_gdals(file, others) or not known_compressions(file):
        return "geotiff"
    return "slide" if _is_pyramid(first, others) or _has_more_images(first, others) else "geotiff"


def _is_pyramid(first: tifffile.TiffPage, others: Sequence[Any]) -> bool:
    """Whether the first image is tiled and one of the next pages is a coarser level of it.

    The series of tifffile are more exact, but tifffile reads every page for them, and a file may have thousands.
    """
    return bool(first.is_tiled and (first.subifds or any(page.is_tiled and _coarser(page, first) for page in others)))


def _has_more_images(first: tifffile.TiffPage, others: Sequence[Any]) -> bool:
    """Whether the file has an image that is no reduced picture of the first one: a slide, a plane, a time point."""
    if any(not (page.is_mask or (page.is_reduced and _coarser(page, first))) for page in others):
        return True
    if others or not first.is_shaped:
        return False
    shape = tifffile.tifffile.shaped_description_metadata(first.description)["shape"]
    return bool(math.prod(shape) > math.prod(first.shape))  # a stack that is stored as one page


def _coarser(page: Any, first: tifffile.TiffPage) -> bool:
    """Whether a page is a smaller picture of the same samples; a picture of one row has one row at every level."""
    step = downsample((first.imagelength, first.imagewidth), (page.imagelength, page.imagewidth))
    return step is not None and max(step) > _LEAST and bool(page.samplesperpixel == first.samplesperpixel)


def _is_gdals(file: tifffile.TiffFile, others: Sequence[Any]) -> bool:
    """Whether GDAL wrote the file: it has GDAL's metadata, nodata, a mask, or the layout of a COG."""
    if any(code in file.pages.first.tags for code in (42112, 42113)) or any(page.is_mask for page in others):
        return True
    file.filehandle.seek(16 if file.is_bigtiff else 8)
    return bytes(file.filehandle.read(24)) == b"GDAL_STRUCTURAL_METADATA"
