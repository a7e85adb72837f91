"""Metadata of a TIFF: bands and pixel size by OME-XML, Aperio, ImageJ, QPTIFF and resolution tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tifffile

from tilesseg.formats.ome_tiff.ome_xml_reader import MICROMETRES, OmeImage, ome_images
from tilesseg.formats.slide.tiff_pages import TiffPages

RGB = ("red", "green", "blue")
_SHORT = {"r": "red", "g": "green", "b": "blue", "red": "red", "green": "green", "blue": "blue"}


@dataclass(frozen=True, slots=True)
class TiffMetadata:
    """Metadata that the maker of a file wrote."""

    vendor: str
    mpp: Sides | None = None
    objective: float | None = None
    channels: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()


def tiff_metadata(file: tifffile.TiffFile, number: int, pages: TiffPages) -> TiffMetadata:
    """Metadata of one of the images of a file."""
    series = file.series[number]
    page = series.keyframe
    if series.kind == "svs":
        mpp, power = aperio_scale(page.description)
        return TiffMetadata("aperio", mpp, power)
    if series.kind == "ome":
        image = _ome_image(file, number)
        return TiffMetadata("ome", image.mpp, image.objective, image.channels) if image else TiffMetadata("ome")
    if series.kind == "imagej":
        metadata = file.imagej_metadata or {}
        return TiffMetadata("imagej", imagej_scale(page, metadata.get("unit")), channels=_labels(metadata, pages))
    mpp, note = tag_scale(page)
    notes = (note,) if note else ()
    if series.kind == "qpi":
        return TiffMetadata("qptiff", mpp, _qpi_number(page, "Objective"), _qpi_names(series, pages), notes)
    return TiffMetadata(series.kind or "tiff", mpp, notes=notes)


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
    if samples == 3 and int(page.photometric) in (2, 6):
        return [band if count == 1 else f"{name or k}.{band}" for k, name in enumerate(named) for band in RGB]
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


COARSEST = 10.0
"""Largest pixel in µm of a resolution tag; a larger one is a printer's or a screen's (72 dots an inch are 353 µm)."""
_TAG_UNITS = {2: 25400.0, 3: 10000.0}  # inch, centimetre

Sides = tuple[float, float]
"""Sides of a pixel in micrometres, `(y, x)`."""


def aperio_scale(description: str) -> tuple[Sides | None, float | None]:
    """Pixel size and objective from Aperio's description."""
    try:
        entries = tifffile.tifffile.svs_description_metadata(description)
    except ValueError:
        return None, None
    side, power = _above_0(entries.get("MPP")), _above_0(entries.get("AppMag"))
    return ((side, side) if side else None), power


def imagej_scale(page: tifffile.TiffPage, unit: object) -> Sides | None:
    """ImageJ writes pixels per unit into the resolution tags, and the unit into its own."""
    length = MICROMETRES.get(str(unit).strip(), 0.0) if unit else 0.0
    sides = _per_pixel(page, length)
    return sides if sides and length else None


def tag_scale(page: tifffile.TiffPage) -> tuple[Sides | None, str | None]:
    """Pixel size from the resolution tags, and a note where it is too large for a microscope."""
    unit = int(page.resolutionunit or 1)
    sides = _per_pixel(page, _TAG_UNITS.get(unit, 0.0))
    if sides is None:
        return None, None
    if max(sides) > COARSEST:
        return None, f"its resolution tags say {sides[1]:.4g} µm a pixel, which is no microscope's, and are not taken"
    return sides, None


def _per_pixel(page: tifffile.TiffPage, length: float) -> Sides | None:
    sides = []
    for code in (283, 282):
        tag = page.tags.get(code)
        pixels = tag.value if tag is not None else None
        if not isinstance(pixels, tuple) or len(pixels) != 2 or not pixels[0] or not pixels[1]:
            return None
        sides.append(length * pixels[1] / pixels[0])
    return (sides[0], sides[1]) if min(sides) > 0 else None


def _above_0(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None
