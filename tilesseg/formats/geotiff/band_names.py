"""Names of bands: from a band's description, its colour, or the name of its file. Plain text, no files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tilesseg.formats.reading.spectral_bands import find_sensor, read_names

PALETTE = "palette"
"""Name of the band of a palette image, whose values are indices."""

_COLOURS = {"red", "green", "blue", "nir", "pan", "coastal", "rededge", "swir", "mwir", "lwir", "tir"}

_STATED = {"blue", "green", "red", "nir", "swir16", "swir22"}
"""Common names that a band gets by its file's name; all others keep the sensor's own name."""
_BAND_TOKEN = re.compile(r"^B\d{1,2}A?$", re.IGNORECASE)
_COUNTED = re.compile(r"^(?:band|layer)[ _]?(\d{1,2}a|\d*)$", re.IGNORECASE)


def band_names(descriptions: Sequence[str | None], colours: Sequence[str]) -> tuple[str | None, ...]:
    """Names of the bands of a file: of each its description, else its colour, else None.

    Descriptions such as `Band 2` name nothing where they are the places of their bands in the file; where any is not,
    as for bands 2, 3, 4 and 8 of a sensor, they are the sensor's numbers, and names.
    """
    texts = [(text or "").strip() for text in descriptions]
    numbers = [match[1].lower() if (match := _COUNTED.match(text)) else None for text in texts]
    counted = all(number in (None, "", str(place)) for place, number in enumerate(numbers, start=1))
    return tuple(
        text if text and not (number == "" or (counted and number)) else _colour(colour)
        for text, number, colour in zip(texts, numbers, colours, strict=True)
    )


def _colour(colour: str) -> str | None:
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


def own_part(path: str, paths: Sequence[str]) -> str:
    """Part of a file's name that it shares with no other, to tell bands of one name apart."""
    stems = [Path(one).stem for one in paths]
    if stems.count(Path(path).stem) > 1:
        return path
    parts = [re.split(r"[_\-. ]+", stem) for stem in stems]
    head, tail = _shared(parts), _shared([part[::-1] for part in parts])
    part = parts[[*paths].index(path)]
    return "_".join(part[head : len(part) - tail]) or Path(path).stem


def without_band(path: str) -> str:
    """Name of a file without what it says of its band, so that the bands of one image have one name."""
    words = re.split(r"([_\-. ]+)", Path(path).stem)
    kept = [
        word
        for word in words
        if not (_BAND_TOKEN.match(word) or re.fullmatch(r"\d{2}m|sr", word, re.I) or read_names([word])[0].names[0])
    ]
    return re.sub(r"[_\-. ]+$|(?<=[_\-. ])[_\-. ]+", "", "".join(kept))


def _common_name(stem: str, token: str | None) -> str | None:
    sensor = find_sensor(stem)
    common = sensor.numbers.get(re.sub(r"^B0", "B", token)) if sensor and token else None
    return common if common in _STATED else None


def _shared(parts: list[list[str]]) -> int:
    """Number of leading words that all have in common, such that each keeps at least one word."""
    count = 0
    limit = min(len(part) for part in parts) - 1
    while count < limit and len({part[count] for part in parts}) == 1:
        count += 1
    return count
