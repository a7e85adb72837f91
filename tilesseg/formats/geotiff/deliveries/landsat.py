"""Landsat products as they are delivered: a folder with `…_MTL.json` or `…_MTL.txt`, Level 1 or 2.

Numbers become reflectance by the metadata (Landsat 8-9 Data Users Handbook, section 5): `number × mult + add`,
at Level 1 divided by the sine of the sun's elevation at the scene's centre.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.deliveries.delivery_files import SceneFile, SceneFiles, in_order, single
from tilesseg.formats.geotiff.deliveries.product_rules import LANDSAT_SURFACE, Pair, contradiction, same_scaling
from tilesseg.formats.reading.spectral_bands import OLI, TM

_BY_SENSOR = tuple(
    (pattern, {number[1:]: name for number, name in sensor.numbers.items() if not name.startswith("lwir")})
    for pattern, sensor in ((r"^L[CO]0[89]_", OLI), (r"^L[ET]0[457]_", TM))
)
"""Names of the reflective bands by their numbers in the metadata."""
_COLLECTION_2 = re.compile(r"L[COET]0[4-9]_L2S[PR]_\d{6}_\d{8}_\d{8}_02_")
_SURFACE, _TOP = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "LEVEL1_RADIOMETRIC_RESCALING"

Groups = Mapping[str, Mapping[str, str]]


def find_landsat(path: str) -> SceneFiles | None:
    """The reflective bands of a Landsat product, or None where the folder is no such product.

    Raises:
        SourceError: no band, an unknown sensor, or metadata that cannot be read.
    """
    products = sorted(Path(path).glob("*_MTL.json")) or sorted(Path(path).glob("*_MTL.txt"))
    if not products:
        return None
    if len(products) > 1:
        raise SourceError(f"{path}: {len(products)} Landsat products in one folder; give the files of one as a list")
    metadata = products[0]
    groups = _groups(metadata)
    names = _names(metadata)
    contents = groups.get("PRODUCT_CONTENTS", {})
    listed = {band: contents.get(f"FILE_NAME_BAND_{band}") for band in names}
    there = {
        band: metadata.parent / name for band, name in listed.items() if name and (metadata.parent / name).exists()
    }
    if not there:
        because = f"none of the bands that {metadata.name} lists is there"
        raise SourceError(cannot(f"open {path} as a Landsat product", because, "fetch their files"))
    files = [_file(file, band, names[band], groups, metadata) for band, file in there.items()]
    return SceneFiles(str(metadata), in_order(files, [*names.values()]), tuple(_notes(metadata, groups, listed, there)))


def _notes(metadata: Path, groups: Groups, listed: Mapping[str, str | None], there: Mapping[str, Path]) -> list[str]:
    level = (
        "surface reflectance" if _SURFACE in groups else "top-of-atmosphere reflectance, corrected for the sun's height"
    )
    notes = [f"values are {level}, by {metadata.name}; thermal bands and quality files are left out"]
    names = _names(metadata)
    notes += _contradictions(metadata, groups, there)
    missing = [names[band] for band, name in listed.items() if name and band not in there]
    if missing:
        notes.append(f"{metadata.name} also lists {', '.join(missing)}, not in the folder")
    return notes


def _contradictions(metadata: Path, groups: Groups, there: Mapping[str, Path]) -> list[str]:
    """Doubt about factors of a Level 2 product of Collection 2 that are not those of its collection."""
    collection = str(groups.get("PRODUCT_CONTENTS", {}).get("COLLECTION_NUMBER", "")).lstrip("0")
    if _SURFACE not in groups or not (collection == "2" or _COLLECTION_2.match(metadata.name)):
        return []
    stated = {_factors(groups[_SURFACE], band) for band in there}
    return [
        contradiction("Landsat Collection 2, Level 2,", f"{metadata.name} states", LANDSAT_SURFACE, pair, pair)
        for pair in sorted(stated)
        if not same_scaling(pair, LANDSAT_SURFACE)
    ]


def _factors(group: Mapping[str, str], band: str) -> Pair:
    """Scale and offset of a band: the metadata's `MULT` and `ADD`."""
    return float(group[f"REFLECTANCE_MULT_BAND_{band}"]), float(group[f"REFLECTANCE_ADD_BAND_{band}"])


def _names(metadata: Path) -> dict[str, str]:
    for pattern, names in _BY_SENSOR:
        if re.match(pattern, metadata.name):
            return names
    raise SourceError(
        f"{metadata}: not Landsat 4 to 9 by its name, which begins with LC08_ or the like; give the files as a list"
    )


def _file(path: Path, band: str, name: str, groups: Groups, metadata: Path) -> SceneFile:
    surface = _SURFACE in groups
    factors = groups.get(_SURFACE if surface else _TOP, {})
    try:
        scale, offset = _factors(factors, band)
        sun = 1.0 if surface else math.sin(math.radians(float(groups["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
    except (KeyError, ValueError) as error:
        because = f"{error} is missing"
        raise SourceError(
            cannot(f"compute reflectance of band {band} by {metadata}", because, "give the files as a list")
        ) from error
    if sun <= 0:
        raise SourceError(
            f"{metadata}: the sun is below the horizon, so that there is no reflectance; give the files as a list"
        )
    return single(str(path), name, scale=scale / sun, offset=offset / sun, nodata=_nodata(groups, band))


def _nodata(groups: Groups, band: str) -> float | None:
    """Nodata value: 0 where the metadata have numbers from 1 on."""
    least = [
        group[key]
        for group in groups.values()
        for key in (f"QUANTIZE_CAL_MIN_BAND_{band}", f"QUANTIZE_CAL_MINIMUM_BAND_{band}")
        if key in group
    ]
    return 0.0 if least and all(float(number) == 1 for number in least) else None


def _groups(metadata: Path) -> Groups:
    """Groups of the metadata by name."""
    try:
        text = metadata.read_text(encoding="utf-8")
        if metadata.suffix == ".json":
            whole: dict[str, Any] = json.loads(text)["LANDSAT_METADATA_FILE"]
            return {name: dict(group) for name, group in whole.items() if isinstance(group, dict)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        because = f"{type(error).__name__} {error}"
        raise SourceError(cannot(f"read {metadata}", because, "fetch it again, or give the files as a list")) from error
    return _parsed(text)


def _parsed(text: str) -> dict[str, dict[str, str]]:
    """`KEY = value` lines by the innermost `GROUP` they stand in."""
    groups: dict[str, dict[str, str]] = {}
    inside: list[str] = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            inside.append(value)
        elif key == "END_GROUP":
            del inside[-1:]
        elif value and inside:
            groups.setdefault(inside[-1], {})[key] = value.strip('"')
    return groups
