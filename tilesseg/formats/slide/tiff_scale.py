"""How large the pixels of a TIFF are, from whatever its maker wrote."""

from __future__ import annotations

import tifffile

from tilesseg.formats.slide.ome_xml import MICROMETRES

COARSEST = 10.0
"""µm: a resolution tag that says more is a printer's or a screen's (72 dots an inch are 353 µm), no microscope's."""
_TAG_UNITS = {2: 25400.0, 3: 10000.0}  # inch, centimetre

Sides = tuple[float, float]
"""Micrometres `(y, x)`."""


def aperio_scale(description: str) -> tuple[Sides | None, float | None]:
    """Pixel size and objective from Aperio's description."""
    try:
        told = tifffile.tifffile.svs_description_metadata(description)
    except ValueError:
        return None, None
    side, power = _above_0(told.get("MPP")), _above_0(told.get("AppMag"))
    return ((side, side) if side else None), power


def imagej_scale(page: tifffile.TiffPage, unit: object) -> Sides | None:
    """ImageJ writes pixels per unit into the resolution tags, and the unit into its own."""
    length = MICROMETRES.get(str(unit).strip(), 0.0) if unit else 0.0
    sides = _per_pixel(page, length)
    return sides if sides and length else None


def tag_scale(page: tifffile.TiffPage) -> tuple[Sides | None, str | None]:
    """Pixel size from the resolution tags, and a note where they cannot be what a microscope saw."""
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
