"""Names of bands: from a band's description, its colour, or the name of its file. Plain text, no files."""

from __future__ import annotations

import re
from collections.abc import Sequence

PALETTE = "palette"
"""Name of the band of a palette image, whose values are indices."""

_COLOURS = {"red", "green", "blue", "nir", "pan", "coastal", "rededge", "swir", "mwir", "lwir", "tir"}

_OLI = {"B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir16", "B7": "swir22"}
_TM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B7": "swir22"}
_MSI = {"B2": "blue", "B3": "green", "B4": "red", "B8": "nir", "B11": "swir16", "B12": "swir22"}
_BY_SENSOR = (
    (r"^L[CO]0?[89](_|\d{9})", _OLI),  # Landsat 8 and 9: LC08_L2SP_…, LC80030172015001LGN00
    (r"^L[ET]0?[457](_|\d{9})", _TM),  # Landsat 4 to 7: LT05_…, LE70030172015001
    (r"^(S2[A-D]?_|T\d{2}[A-Z]{3}_\d{8}T\d{6})", _MSI),  # S2A_…, or a band of a product: T32TQM_20190101T101411_B02
)

_BAND_TOKEN = re.compile(r"^B\d{1,2}A?$", re.IGNORECASE)
_NO_NAME = re.compile(r"^((band|layer)[ _]?\d*)?$", re.IGNORECASE)


def band_name(description: str | None, colour: str) -> str | None:
    """Name of a band in its file: its description, else its colour, else None."""
    text = (description or "").strip()
    if not _NO_NAME.match(text):
        return text
    return colour if colour in _COLOURS or colour == PALETTE else None


def file_names(stems: Sequence[str]) -> tuple[str | None, ...]:
    """A name for each single-band file: the part of its name that the others do not share, or the band's common name.

    A file alone has a name only where its sensor is known: `LC08_…_B4` is `red`.
    """
    parts = [re.split(r"[_\-. ]+", stem) for stem in stems]
    head, tail = _shared(parts), _shared([part[::-1] for part in parts])
    names = []
    for stem, part in zip(stems, parts, strict=True):
        rest = part[head : len(part) - tail] if len(parts) > 1 else part
        token = next((word.upper() for word in rest if _BAND_TOKEN.match(word)), None)
        common = _common_name(stem, token)
        names.append(common or ((token or "_".join(rest) or None) if len(parts) > 1 else None))
    return tuple(names)


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Sort key in which B2 comes before B10."""
    pieces = re.findall(r"(\d+)|(\D+)", text.lower())
    return tuple((int(digits), "") if digits else (-1, word) for digits, word in pieces)


def _common_name(stem: str, token: str | None) -> str | None:
    if token is None:
        return None
    for pattern, names in _BY_SENSOR:
        if re.match(pattern, stem, re.IGNORECASE):
            return names.get(re.sub(r"^B0", "B", token))
    return None


def _shared(parts: list[list[str]]) -> int:
    """Number of leading words that all have in common, such that each keeps at least one word."""
    count = 0
    limit = min(len(part) for part in parts) - 1
    while count < limit and len({part[count] for part in parts}) == 1:
        count += 1
    return count
