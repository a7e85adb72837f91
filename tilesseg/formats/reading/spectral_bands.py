"""Spectral bands by the names that sensors, catalogues and programs give them: one table of aliases for each sensor.

Common names are those of STAC's extension `eo` (github.com/stac-extensions/eo, "Common Band Names"), with `nir2` for
the second near infrared of WorldView. A number means nothing without its sensor: `B4` is the red of Sentinel-2 and of
Landsat 8, and the near infrared of Landsat 5. Sources of the tables:

* Sentinel-2 MSI: SentiWiki, "S2 Mission", spectral bands; words such as "Red Edge 4" as Earth Engine's catalogue
  (COPERNICUS/S2_SR_HARMONIZED) has them.
* Landsat 8–9 OLI and TIRS, Landsat 4–7 TM and ETM+: USGS, "What are the band designations for the Landsat
  satellites?"; `SR_B2`, `ST_B10`: Collection 2 Level 2 (LSDS-1618, LSDS-1619), and Earth Engine's LC08/C02/T1_L2.
* HLS: User Guide v2.0, table of bands: S30 keeps the numbers of MSI, L30 those of OLI.
* MODIS: MOD09 User's Guide, `sur_refl_b01` … `sur_refl_b07`. ASTER: `B3N` of the L1T User Handbook.
* PlanetScope: docs.planet.com, PSScene, bands of the assets (`green_i`, `coastal_blue`). WorldView: technical note
  "Radiometric Use of WorldView-3 Imagery" (`BAND_C` … `BAND_N2`, NIR1 and NIR2; its SWIR1 is no swir16).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor whose bands are numbered."""

    name: str
    numbers: Mapping[str, str]
    """Common name by the sensor's own name of the band, as `B4` or `B8A`."""
    files: str
    """Pattern of the beginning of a file's name."""
    sign: str | None = None
    """Number without which other numbers are not taken for this sensor's."""


MSI = Sensor(
    "Sentinel-2",
    {
        "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "rededge071", "B6": "rededge075",
        "B7": "rededge078", "B8": "nir", "B8A": "nir08", "B9": "nir09", "B10": "cirrus", "B11": "swir16",
        "B12": "swir22",
    },
    r"S2[A-D]?_|S2[A-D]_MSI|T\d{2}[A-Z]{3}_\d{8}T\d{6}|HLS[._]S30|SENTINEL[-_ ]?2|COPERNICUS_S2",
)  # fmt: skip
"""Sentinel-2: S2A_…, T32TQM_20190101T101411_B02, HLS.S30.…."""
OLI = Sensor(
    "Landsat 8–9",
    {
        "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir16", "B7": "swir22",
        "B8": "pan", "B9": "cirrus", "B10": "lwir11", "B11": "lwir12",
    },
    r"L[CO]0?[89](?:_|\d{9})|HLS[._]L30|LANDSAT[-_ ]?0?[89]|LANDSAT_L[CO]0[89]",
)  # fmt: skip
"""Landsat 8 and 9: LC08_L2SP_…, LC80030172015001LGN00, HLS.L30.…."""
TM = Sensor(
    "Landsat 4–7",
    {
        "B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B6": "lwir", "B7": "swir22",
        "B8": "pan",
    },
    r"L[ET]0?[457](?:_|\d{9})|LANDSAT[-_ ]?0?[457]|LANDSAT_L[ET]0[457]",
)  # fmt: skip
"""Landsat 4 to 7: LT05_…, LE70030172015001."""
_MODIS = Sensor(
    "MODIS",
    {"R1": "red", "R2": "nir", "R3": "blue", "R4": "green", "R5": "swir12", "R6": "swir16", "R7": "swir22"},
    r"M[OYC]D09",
)
"""MODIS by its own prefix `sur_refl_b`, which is read as `R`: plain numbers are never MODIS's."""
_ASTER = Sensor("ASTER", {"B1": "green", "B2": "red", "B3N": "nir", "B4": "swir16"}, r"AST_", "B3N")

SENSORS = (MSI, OLI, TM, _MODIS, _ASTER)

_ALIASES = {
    "coastal": "coastal coastalaerosol coastalblue ultrablue deepblue aerosol aerosols",
    "blue": "blue visibleblue",
    "green05": "green05 greeni green1",
    "green": "green greenii visiblegreen",
    "yellow": "yellow",
    "red": "red visiblered",
    "rededge": "rededge vegetationrededge",
    "rededge071": "rededge071 rededge1 vegetationrededge1 re1 vre1",
    "rededge075": "rededge075 rededge2 vegetationrededge2 re2 vre2",
    "rededge078": "rededge078 rededge3 vegetationrededge3 re3 vre3",
    "nir": "nir nir1 nearinfrared nearinfrared1 nearir infrared ir nirbroad broadnir nirwide",
    "nir08": "nir08 nirnarrow narrownir nnir rededge4 vegetationrededge4 vre4 re4",
    "nir2": "nir2 nearinfrared2",
    "nir09": "nir09 watervapour watervapor",
    "cirrus": "cirrus swircirrus",
    "swir16": "swir16 swir1 shortwaveinfrared1 shortwaveinfrared16 shortwaveir1",
    "swir22": "swir22 swir2 shortwaveinfrared2 shortwaveinfrared22 shortwaveir2",
    "pan": "pan panchromatic",
    "lwir": "lwir thermal thermalinfrared tir",
    "lwir11": "lwir11 tir1 tirs1 thermal1 thermalinfrared1",
    "lwir12": "lwir12 tir2 tirs2 thermal2 thermalinfrared2",
}
"""Words for each common name, without signs and capitals."""
_WORDS = {word: common for common, words in _ALIASES.items() for word in words.split()}
_LETTERS = {
    "r": "red", "g": "green", "b": "blue", "n": "nir", "y": "yellow", "c": "coastal", "re": "rededge", "n1": "nir",
    "n2": "nir2", "p": "pan",
}  # fmt: skip
"""Letters of WorldView's `BAND_R`, of NAIP and of Planet's mosaics; they count only beside red and green ones."""
_NUMBERED_SWIR = re.compile(r"swir[1-8]|shortwaveinfrared[1-8]")

_PREFIX = re.compile(
    r"^(?:(?:sr|toa|boa|st|nbart|nbar|surface reflectance|reflectance|band|bands)[ _.-]+|(?=sur_refl_b))", re.IGNORECASE
)
_SUFFIX = re.compile(r"[ _.-]+(?:\d{2}m|sr|toa|boa|band|reflectance)$", re.IGNORECASE)
_PIECES = re.compile(r"\s+[-–—]\s+|[,;:()\[\]/|]")
_NUMBER = re.compile(r"^(?:b|band|srb|)[ _-]?0*(\d{1,2})(a|n)?$", re.IGNORECASE)
_MODIS_NUMBER = re.compile(r"^sur_refl_b0?(\d)$", re.IGNORECASE)
_WAVELENGTH = re.compile(
    r"^(?:central )?(?:wavelength)?[ =]*[\d.]*(?:\s*(?:-|–|to)\s*[\d.]+)?\s*(?:nm|um|µm|μm|nanometers?|micrometers?)?$",
    re.IGNORECASE,
)  # of a part of a name, as in `B4, central wavelength 665 nm`


@dataclass(frozen=True, slots=True)
class Reading:
    """Common names of bands, as one sensor numbers its bands."""

    names: tuple[str | None, ...]
    """Common name of each band, or None where its name is none that is known."""
    sensor: str | None = None
    """Sensor whose numbers the names are; None where there are no numbers, or where they mean nothing."""


def find_sensor(path: str) -> Sensor | None:
    """The sensor that a file's name, or its folder's, begins with; None where both begin with none that is known."""
    parts = [part for part in re.split(r"[/\\]", path) if part][-2:]
    return next(
        (one for part in parts[::-1] for one in SENSORS if re.match(one.files, part, re.IGNORECASE)),
        None,
    )


def read_names(names: Sequence[str | None], sensor: Sensor | None = None) -> list[Reading]:
    """All that the names of an image's bands, or of a model's, may mean: a reading for each sensor that has them all.

    Numbers that only count (B1, B2, B3 in this order) mean nothing unless the sensor is known.

    Args:
        names: names of the bands, in their order.
        sensor: the sensor, where it is known.
    """
    words = _words(names)
    numbers = [None if word or name is None else band_number(name) for name, word in zip(names, words, strict=True)]
    own = {number for number in numbers if number}
    if not own or (sensor is None and _count(numbers)):
        return [Reading(tuple(words))]
    known = [one for one in ([sensor] if sensor else SENSORS) if own <= set(one.numbers) and one.sign in (None, *own)]
    readings = [
        Reading(
            tuple(word or one.numbers.get(number or "") for word, number in zip(words, numbers, strict=True)), one.name
        )
        for one in known
    ]
    return readings or [Reading(tuple(words))]


def counts_bands(names: Sequence[str | None]) -> bool:
    """Whether names do no more than count, as B1, B2, B3, or channel 0, channel 1: they tell no band from another."""
    matches = [re.fullmatch(r"(?:b|band|c|ch|channel|layer|input|x)?[ _:.-]*(\d+)", name or "", re.I) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return len(numbers) == len(names) and numbers in ([*range(len(names))], [*range(1, len(names) + 1)])


def _count(numbers: Sequence[str | None]) -> bool:
    return all(number == f"B{place}" for place, number in enumerate(numbers, start=1) if number)


def band_number(name: str) -> str | None:
    """A sensor's own name of a band in one spelling, as `B4` for `B04`, `SR_B4` or `Band 4`; None of any other name."""
    for piece in _parts(name):
        text = _SUFFIX.sub("", _PREFIX.sub("", piece))
        if match := _MODIS_NUMBER.match(text):
            return f"R{match[1]}"
        if match := _NUMBER.match(text):
            # a number alone is a place, but for `Band 4`, whose word went with the prefix
            return f"B{match[1]}{(match[2] or '').upper()}" if not piece.isdecimal() else None
    return None


def _words(names: Sequence[str | None]) -> list[str | None]:
    """Common name of each band by the words of its name."""
    pieces = [[_key(part) for part in _parts(name)] if name else [] for name in names]
    keys = {key for parts in pieces for key in parts}
    letters = _LETTERS if {"r", "g"} <= keys else {}
    table = {**_WORDS, **letters}
    if any(_NUMBERED_SWIR.fullmatch(key) and key[-1] in "345678" for key in keys):
        # WorldView-3's eight, or those of a catalogue that counts them otherwise (Digital Earth Australia)
        table = {word: common for word, common in table.items() if not _NUMBERED_SWIR.fullmatch(word)}
    result = []
    for name, parts in zip(names, pieces, strict=True):
        found = {table[key] for key in parts if key in table}
        strange = [
            part
            for part, key in zip(_parts(name or ""), parts, strict=True)
            if key not in table and band_number(part) is None
        ]
        result.append(found.pop() if len(found) == 1 and not strange else None)
    return result


def _parts(name: str) -> list[str]:
    """Parts of a name between its signs, without wavelengths: `B4` and `Red` of `B4 - Red (665 nm)`."""
    parts = [part.strip() for part in _PIECES.split(name)]
    return [part for part in parts if part and not (len(parts) > 1 and _WAVELENGTH.match(part))]


def _key(part: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _SUFFIX.sub("", _PREFIX.sub("", part)).lower())
