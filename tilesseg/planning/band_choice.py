"""Choice of the bands of an image for the channels of a model: as selected, by name, and without names in order.

Names count: the image's and the model's are compared as they are, then by the tables of aliases in
`formats.reading.spectral_bands`. Names that are there and match nothing refuse the scene: an order is never made up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.formats.reading.spectral_bands import Reading, band_number, counts_bands, find_sensor, read_names

if TYPE_CHECKING:
    from tilesseg.formats.source import Source

Names = Sequence[str | None]

_SHOWN = 24  # names in a message
_TWINS = {"nir": "nir08", "nir08": "nir"}
"""Near infrareds that stand for one another where an image has one alone: Landsat's is `nir08` in STAC."""
_ANY = {"gray", "grey", "grayscale", "greyscale", "intensity", "image", "value", "raw"}
"""Names of a model's only channel that fit any band."""


@dataclass(frozen=True, slots=True)
class _Match:
    """Bands for all channels of a model, found by name."""

    bands: tuple[int, ...]
    sensors: tuple[str, ...] = ()
    """Sensors for whose numbers the image's names are taken, where they could be another's."""


def choose_bands(
    source: Source, wanted: Sequence[str], selected: Sequence[str | int] | None, *, image: str
) -> tuple[tuple[int, ...], list[str]]:
    """Bands of the source for the model's channels, and notes about them.

    Args:
        source: the opened image.
        wanted: names of the model's channels.
        selected: numbers from 1, or names, that the job selects; None looks for the model's names.
        image: path of the image, for messages; it may name the sensor.

    Raises:
        SourceError: too few bands, names that match nothing or several bands, or surplus bands without names.
    """
    names = source.bands
    if selected is not None:
        if len(selected) != len(wanted):
            raise SourceError(
                f"{len(selected)} bands are selected, the model takes {_list(wanted)}; select as many with --bands, "
                "or input.bands"
            )
        return tuple(_index(band, source, image=image) for band in selected), []
    if names == ("palette",) and len(wanted) > 1:
        raise SourceError(
            f"{image} is a palette image, 1 band of indices into a colour table, and the model takes {_list(wanted)}; "
            "make bands of its colours first: gdal_translate -expand rgb"
        )
    if len(names) < len(wanted):
        raise SourceError(
            f"{image} has {_counted(names)} and the model takes {_list(wanted)}; "
            "add the missing bands, or take another model"
        )
    matches = match_names(names, wanted, image)
    if len(matches) == 1:
        return matches[0].bands, _notes(matches[0], names, wanted)
    if matches:
        _refuse_ambiguous(matches, names, wanted, image)
    return _in_order(names, wanted, image)


def match_names(names: Names, wanted: Sequence[str], image: str) -> list[_Match]:
    """Every way in which the names of an image's bands give all channels of a model; names alike are the only way.

    Args:
        names: names of the image's bands.
        wanted: names of the model's channels.
        image: path of the image, which may name the sensor.
    """
    lowered = [name and name.lower() for name in names]
    if all(lowered.count(name.lower()) == 1 for name in wanted):
        return [_Match(tuple(lowered.index(name.lower()) for name in wanted))]
    sensor = find_sensor(image)
    theirs, ours = read_names(names, sensor), read_names(wanted)
    found: dict[tuple[int, ...], set[str | None]] = {}
    for image_reading in theirs:
        for model_reading in ours:
            bands = [
                _find(channel, names, wanted, image_reading, model_reading, twins=True)
                for channel in range(len(wanted))
            ]
            whole = tuple(band for band in bands if band is not None)
            if len(set(whole)) == len(wanted):
                found.setdefault(whole, set()).add(image_reading.sensor)
    certain = sensor is not None or len(theirs) == 1 or [*map(len, found.values())] == [len(theirs)]
    return [_Match(bands, () if certain else _sensors(theirs, labels)) for bands, labels in found.items()]


def _sensors(readings: Sequence[Reading], labels: set[str | None]) -> tuple[str, ...]:
    return tuple(one.sensor for one in readings if one.sensor is not None and one.sensor in labels)


def _find(
    channel: int, names: Names, wanted: Sequence[str], theirs: Reading, ours: Reading, *, twins: bool
) -> int | None:
    """The only band of an image for a channel: by the same name, by the same number, or by the same common name."""
    common, name = ours.names[channel], wanted[channel]
    alike = [
        i
        for i, other in enumerate(names)
        if other is not None
        and _same(other, name)
        and (theirs.names[i] is None or common is None or theirs.names[i] == common)
    ]
    if len(alike) != 1 and common is not None:
        alike = [i for i, other in enumerate(theirs.names) if other == common]
        if not alike and twins and _TWINS.get(common) not in (None, *ours.names):
            alike = [i for i, other in enumerate(theirs.names) if other == _TWINS[common]]
    return alike[0] if len(alike) == 1 else None


def _same(one: str, two: str) -> bool:
    number = band_number(one)
    return one.lower() == two.lower() or (number is not None and number == band_number(two))


def _notes(match: _Match, names: Names, wanted: Sequence[str]) -> list[str]:
    """Doubt about a sensor that is inferred from the names alone."""
    if not match.sensors:
        return []
    taken = ", ".join(str(names[band]) for band in match.bands)
    text = (
        f"bands {taken} are taken for the model's {', '.join(wanted)} by the numbers of {' and '.join(match.sensors)}: "
        f"no other known sensor with such names has all {len(wanted)}, and the file's name has no sensor"
    )
    return [doubt("bands-by-sensor", text)]


def _in_order(names: Names, wanted: Sequence[str], image: str) -> tuple[tuple[int, ...], list[str]]:
    """Bands for channels that have no band by name: the bands without a name, in the file's order."""
    if len(names) == len(wanted) == 1:
        return (0,), _single(names[0], wanted[0], image)
    silent = counts_bands(names) and not all(re.fullmatch(r"b0*\d+", name or "", re.IGNORECASE) for name in names)
    given: Names = (None,) * len(names) if silent or counts_bands(wanted) else names
    found = _partly(given, wanted, image)
    unnamed = [i for i, name in enumerate(given) if name is None]
    if len(names) != len(wanted) or len(unnamed) + len(found) != len(wanted):
        _refuse(names, wanted, image, missing=[name for name in wanted if name not in found])
    order = iter(unnamed)
    bands = tuple(found[name] if name in found else next(order) for name in wanted)
    rest = [name for name in wanted if name not in found]
    text = (
        f"{len(rest)} of {len(wanted)} bands are taken in the file's order ({_shown(names)}) for the model's "
        f"{', '.join(rest)}: no name says which is which"
    )
    return bands, [doubt("bands-by-order", text)]


def _partly(names: Names, wanted: Sequence[str], image: str) -> dict[str, int]:
    """Bands for those channels that have one by name, in the only reading of the names."""
    theirs, ours = read_names(names, find_sensor(image)), read_names(wanted)
    if len(theirs) != 1 or len(ours) != 1:
        return {}
    found = {
        name: _find(channel, names, wanted, theirs[0], ours[0], twins=False) for channel, name in enumerate(wanted)
    }
    return {name: band for name, band in found.items() if band is not None}


def _single(name: str | None, wanted: str, image: str) -> list[str]:
    """Notes on the only band for the only channel; there is no order to be wrong.

    Raises:
        SourceError: both names are known, and no reading of them is the same band.
    """
    theirs = {reading.names[0] for reading in read_names([name], find_sensor(image))}
    ours = {reading.names[0] for reading in read_names([wanted])}
    if None not in theirs | ours and not theirs & ours:
        _refuse([name], [wanted], image, missing=[wanted])
    known = name is None or name == "palette" or wanted.lower() in _ANY or counts_bands([name])
    if known or counts_bands([wanted]) or theirs & ours - {None}:
        return []
    return [doubt("bands-by-order", f"the only band, {name}, is taken for the model's only channel, {wanted}")]


def _refuse_ambiguous(matches: Sequence[_Match], names: Names, wanted: Sequence[str], image: str) -> NoReturn:
    ways = " or ".join(
        f"{', '.join(str(names[band]) for band in match.bands)} ({' and '.join(match.sensors)})"
        for match in matches
        if match.sensors
    )
    raise SourceError(
        f"{image} has {_counted(names)}, and the model's {', '.join(wanted)} may be "
        f"{ways or 'several'}; say which with --bands, or input.bands"
    )


def _refuse(names: Names, wanted: Sequence[str], image: str, *, missing: Sequence[str]) -> NoReturn:
    """Refuse names that do not say which bands the model's are; the remedy makes up no order."""
    named = [name for name in names if name is not None]
    if not named or counts_bands(wanted):
        why = f"no name says which of them are the model's, and the model takes {_list(wanted)}"
    elif any(sum(name.endswith(f".{one}") for name in named) > 1 for one in missing):
        raise SourceError(
            f"{image} has several files with the same bands ({_shown(names)}), and the model takes {_list(wanted)}; "
            "give the files of one image only, or say which bands they are with --bands, or input.bands"
        )
    elif counts_bands(names):
        why = f"names that only count, and the model takes {_list(wanted)}"
    else:
        why = f"of which no single one is {', '.join(missing)}, and the model takes {_list(wanted)}"
    raise SourceError(
        f"{image} has {_counted(names)}, {why}; say which they are with --bands, or input.bands: "
        f"{len(wanted)} of the names or numbers, in the model's order"
    )


def _index(band: str | int, source: Source, *, image: str) -> int:
    """Index of a band that the job selects."""
    names = source.bands
    if isinstance(band, str) and not band.isdecimal():
        matches = [i for i, name in enumerate(names) if name is not None and name.lower() == band.lower()]
        matches = matches or _by_file(band, source) or _by_alias(band, names, image)
        if len(matches) != 1:
            raise SourceError(
                f"{image} has {len(matches)} bands named {band}, its bands are {_shown(names)}; give one of these"
            )
        return matches[0]
    if not 1 <= int(band) <= len(names):
        raise SourceError(
            f"{image} has no band {band}, its bands are {_shown(names)}; give a number from 1 to {len(names)}"
        )
    return int(band) - 1


def _by_file(band: str, source: Source) -> list[int]:
    """Bands whose file name has the sensor's own name of the band: `T33UVU_…_B04_10m.jp2` is `B04`."""
    files = [Path(str(facts.get("file", ""))).name.lower() for facts in source.describe()["bands"]]
    return [i for i, file in enumerate(files) if band.lower() in re.split(r"[_.-]", file)[:-1]]


def _by_alias(band: str, names: Names, image: str) -> list[int]:
    """Bands that are called otherwise and are the same in every reading of the names: `B02` or `nir` for `NIR1`."""
    found = {
        tuple(
            i
            for i, name in enumerate(names)
            if (name and _same(name, band)) or (theirs.names[i] is not None and theirs.names[i] == ours.names[0])
        )
        for theirs in read_names(names, find_sensor(image))
        for ours in read_names([band])
    }
    return list(found.pop()) if len(found) == 1 else []


def _list(wanted: Sequence[str]) -> str:
    return f"{len(wanted)} ({', '.join(wanted)})"


def _counted(names: Names) -> str:
    """Number of bands and their names, for a message: `1 band (red)`."""
    return f"{len(names)} {'band' if len(names) == 1 else 'bands'} ({_shown(names)})"


def _shown(names: Names) -> str:
    """Names of bands for a message; of many, the first."""
    shown = ", ".join(name or f"{i} (no name)" for i, name in enumerate(names[:_SHOWN], start=1))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
