"""Metadata of a TIFF: bands and pixel size by OME-XML, Aperio, ImageJ, QPTIFF and resolution tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tifffile

from tilesseg.formats.ome_tiff.ome_xml import OmeImage, ome_images
from tilesseg.formats.reading.stated_size import (
    FoundSize,
    Sides,
    StatedSize,
    find_size,
    micrometres,
    number_above_0,
)
from tilesseg.formats.slide.tiff_pages import TiffPages

RGB = ("red", "green", "blue")
_SHORT = {"r": "red", "g": "green", "b": "blue", "red": "red", "green": "green", "blue": "blue"}


@dataclass(frozen=True, slots=True)
class TiffMetadata:
    """Metadata that the maker of a file wrote."""

    vendor: str
    size: FoundSize
    objective: float | None = None
    channels: tuple[str | None, ...] = ()


def tiff_metadata(file: tifffile.TiffFile, number: int, pages: TiffPages) -> TiffMetadata:
    """Metadata of one of the images of a file."""
    series = file.series[number]
    page = series.keyframe
    tags = tag_scale(page)
    if series.kind == "svs":
        size, power = aperio_scale(page.description)
        return TiffMetadata("aperio", find_size([size, tags]), power)
    if series.kind == "ome":
        image = _ome_image(file, number)
        if image is None:
            return TiffMetadata("ome", find_size([tags]))
        size = StatedSize(image.mpp, "OME's PhysicalSize") if image.mpp else None
        return TiffMetadata("ome", find_size([size, tags]), image.objective, image.channels)
    if series.kind == "imagej":
        metadata = file.imagej_metadata or {}
        found = find_size([imagej_scale(page, metadata), tags])
        return TiffMetadata("imagej", found, channels=_labels(metadata, pages))
    if series.kind == "qpi":
        return TiffMetadata("qptiff", find_size([tags]), _qpi_number(page, "Objective"), _qpi_names(series, pages))
    return TiffMetadata(series.kind or "tiff", find_size([tags]))


def band_names(
    page: tifffile.TiffPage, channels: Sequence[str | None], *, count: int, samples: int
) -> list[str | None]:
    """Names of the bands: of every channel its samples, without alpha.

    Args:
        page: first page of the image.
        channels: names of its channels, as far as they are known.
        count: number of channels.
        samples: number of samples of a channel, alpha not counted.
    """
    named: list[str | None] = [name or None for name in channels] if len(channels) == count else [None] * count
    if samples >= 3 and int(page.photometric) in (2, 6):
        colours: tuple[str | None, ...] = (*RGB, *[None] * (samples - 3))
        if count == 1:
            return list(colours)
        return [band and f"{name or k}.{band}" for k, name in enumerate(named) for band in colours]
    if samples > 1:
        return [None] * (count * samples)
    short = [_SHORT.get(name.lower()) if name else None for name in named]
    if tuple(short) == RGB:
        return short
    twice = {name for name in named if named.count(name) > 1}
    return [None if name in twice else name for name in named]


def _ome_image(file: tifffile.TiffFile, number: int) -> OmeImage | None:
    """OME's metadata of an image; tifffile leaves out images without pixels."""
    series, images = file.series[number], ome_images(file.ome_metadata)
    if len(images) == len(file.series):
        return images[number]
    shape = int(series.keyframe.imagelength), int(series.keyframe.imagewidth)
    return next((image for image in images if (image.name, image.shape) == (series.name, shape)), None)


def _labels(metadata: dict[str, Any], pages: TiffPages) -> tuple[str | None, ...]:
    """ImageJ's labels of slices, where there is one for each channel."""
    labels = metadata.get("Labels")
    return (
        tuple(str(label) for label in labels) if isinstance(labels, list) and len(labels) == len(pages.numbers) else ()
    )


def _qpi_names(series: tifffile.TiffPageSeries, pages: TiffPages) -> tuple[str | None, ...]:
    names = [re.search(r"<Name>([^<]+)</Name>", _description(series.pages[number])) for number in pages.numbers]
    return tuple(name and name[1].strip() for name in names)


def _qpi_number(page: Any, key: str) -> float | None:
    number = re.search(rf"<{key}>(\d+(?:\.\d+)?)x?</{key}>", _description(page))
    return float(number[1]) if number else None


def _description(page: Any) -> str:
    return str(getattr(page, "description", ""))


_TAG_UNITS = {2: 25400.0, 3: 10000.0}  # inch, centimetre


def aperio_scale(description: str) -> tuple[StatedSize | None, float | None]:
    """Pixel size and objective from Aperio's description; some computers write its numbers with a decimal comma."""
    try:
        entries = tifffile.tifffile.svs_description_metadata(description)
    except ValueError:
        return None, None
    side = number_above_0(entries.get("MPP"))
    return StatedSize((side, side), "MPP of Aperio") if side else None, number_above_0(entries.get("AppMag"))


def imagej_scale(page: tifffile.TiffPage, metadata: Mapping[str, Any]) -> StatedSize | None:
    """ImageJ writes pixels per unit into the resolution tags, and the units of x and y into its own description."""
    unit = metadata.get("unit")
    x, y = micrometres(unit), micrometres(metadata.get("yunit", unit))
    sides = _per_pixel(page, y or 0.0, x or 0.0)
    return StatedSize(sides, "ImageJ's unit", printed="in" in str(unit).lower()) if sides else None


def tag_scale(page: tifffile.TiffPage) -> StatedSize | None:
    """Pixel size by the resolution tags."""
    length = _TAG_UNITS.get(int(page.resolutionunit or 1), 0.0)
    sides = _per_pixel(page, length, length)
    return StatedSize(sides, "the TIFF's resolution", printed=True) if sides else None


def _per_pixel(page: tifffile.TiffPage, y: float, x: float) -> Sides | None:
    """Sides by the tags, which count pixels along `y` and `x` micrometres."""
    sides = []
    for code, length in ((283, y), (282, x)):
        tag = page.tags.get(code)
        pixels = tag.value if tag is not None else None
        if not isinstance(pixels, tuple) or len(pixels) != 2 or not pixels[0] or not pixels[1]:
            return None
        sides.append(length * pixels[1] / pixels[0])
    return (sides[0], sides[1]) if min(sides) > 0 else None
