"""Coordinate reference systems (CRS) as a grid holds them: WKT, units, longitude and latitude, and their comparison.

Equal CRS are written in many ways, and unequal ones need a reason. They are compared by what places a pixel: datum,
ellipsoid, prime meridian, projection with its numbers, unit. Names, codes, the order of axes (data always lie as x, y),
a vertical CRS and a shift of zero to WGS 84 (`+towgs84=0,0,0`) place nothing elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

Fields = Mapping[str, Any]
"""A CRS or a part of one, as PROJJSON."""
_GEOCENTRIC = (298.257223563, 298.257222101)
"""Inverse flattenings of WGS 84 and GRS 1980: datums on them lie within two metres of WGS 84."""


def crs_name(wkt: str | None) -> str:
    """`EPSG:32632` where the CRS has a code, else its name, else `none`."""
    if wkt is None:
        return "none"
    code = CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{code}" if code else wkt.split('"')[1]


def round_trip(crs: CRS) -> str:
    """The CRS as WKT that reads back as the same CRS: the old form if it can, which more readers know."""
    wkt = crs.to_wkt()
    return str(wkt if CRS.from_wkt(wkt) == crs else crs.to_wkt(version="WKT2_2019"))


def unit_of(crs: CRS) -> tuple[str, float | None]:
    """Name of a CRS's unit, and its metres where the unit is a length."""
    name, factor = crs.units_factor
    if crs.is_geographic:
        return ("degree" if abs(factor - 0.017453292519943295) < 1e-9 else name), None
    return ("metre" if factor == 1 else name), float(factor)


def to_lonlat(points: Sequence[tuple[float, float]], crs: str | None) -> list[tuple[float, float]]:
    """World coordinates `(x, y)` of a CRS given as WKT as longitude and latitude; without a CRS as they are."""
    if crs is None:
        return list(points)
    longitudes, latitudes = transform(crs, "OGC:CRS84", *zip(*points, strict=True))
    return list(zip(longitudes, latitudes, strict=True))


class _Parts(NamedTuple):
    """Parts of a CRS that place a pixel, each as text."""

    kind: str
    ellipsoid: str
    meridian: str
    datum: str | None
    """Name of the datum in lower case without marks; None where it is not stated and its ellipsoid is geocentric."""
    shift: str
    projection: str
    numbers: str
    unit: str


def crs_difference(one: str | None, two: str | None) -> str | None:
    """The first difference between two CRS, given as WKT, with both values; None where they place pixels alike."""
    if one == two:
        return None
    if one is None or two is None:
        return f"{crs_name(one)} and {crs_name(two)}"
    first, second = CRS.from_wkt(one), CRS.from_wkt(two)
    if first == second:
        return None
    parts, others = _parts(first), _parts(second)
    if parts is None or others is None:
        return f"{crs_name(one)} and {crs_name(two)}"
    if parts.datum == others.datum is not None:  # then a shift says how to leave the datum, not where a pixel is
        parts, others = parts._replace(shift=""), others._replace(shift="")
    for name, own, other in zip(_Parts._fields, parts, others, strict=True):
        if own != other and not (name == "datum" and None in (own, other)):
            own, other = _apart(str(own or "none"), str(other or "none"))
            return f"{crs_name(one)} and {crs_name(two)}: {name} {own} against {other}"
    return None


def _apart(one: str, two: str) -> tuple[str, str]:
    """The first item in which two lists differ; both as they are where their items are not alike."""
    firsts, seconds = one.split(", "), two.split(", ")
    if len(firsts) != len(seconds):
        return one, two
    return next((own, other) for own, other in zip(firsts, seconds, strict=True) if own != other)


def geodetic_base(crs: CRS) -> CRS | None:
    """The geographic CRS that a CRS is projected from, or the CRS itself; None where it has none."""
    try:
        fields, _ = _horizontal(crs.to_dict(projjson=True))
        base = fields.get("base_crs", fields) if _is_earthly(fields) else None
        return CRS.from_user_input(json.dumps(dict(base))) if base else None
    except (CRSError, RasterioError, CPLE_BaseError):
        return None


def ellipsoid_of(crs: CRS) -> tuple[float, float] | None:
    """Semi-major axis in metres and squared eccentricity of a CRS's ellipsoid; None where it has none."""
    try:
        fields, _ = _horizontal(crs.to_dict(projjson=True))
    except (CRSError, RasterioError, CPLE_BaseError):
        return None
    return _axes(_datum(fields).get("ellipsoid", {}))


def _parts(crs: CRS) -> _Parts | None:
    """Parts of a CRS; None of one that is neither geographic nor projected."""
    try:
        fields, shift = _horizontal(crs.to_dict(projjson=True))
    except (CRSError, RasterioError, CPLE_BaseError):
        return None
    if not _is_earthly(fields):
        return None
    datum, conversion = _datum(fields), fields.get("conversion", {})
    axes, meridian = _axes(datum.get("ellipsoid", {})), datum.get("prime_meridian", {}).get("longitude", 0)
    meridian = meridian["value"] if isinstance(meridian, Mapping) else meridian
    numbers = sorted((_plain(each["name"]), _number(each)) for each in conversion.get("parameters", ()))
    return _Parts(
        kind="geographic" if fields["type"] == "GeographicCRS" else "projected",
        ellipsoid=f"{axes[0]:.3f} m, e² {axes[1]:.12f}" if axes else "none",
        meridian=f"{float(meridian):.9f}",
        datum=_datum_name(datum, axes, known=shift is not None),
        shift=shift or "",
        projection=_plain(conversion.get("method", {}).get("name", "")),
        numbers=", ".join(f"{name} {number:.12g}" for name, number in numbers),
        unit=_unit(fields["coordinate_system"]["axis"][0].get("unit", "unity")),
    )


def _horizontal(fields: Fields) -> tuple[Fields, str | None]:
    """The horizontal CRS of any, and its shift to WGS 84: None where none is stated, empty where it is zero."""
    shift = None
    while fields.get("type") in ("BoundCRS", "CompoundCRS"):
        if fields["type"] == "CompoundCRS":
            fields = fields["components"][0]
            continue
        numbers = [float(each.get("value", 1)) for each in fields["transformation"].get("parameters", ())]
        shift = ", ".join(f"{number:g}" for number in numbers) if any(numbers) else ""
        fields = fields["source_crs"]
    return fields, shift


def _is_earthly(fields: Fields) -> bool:
    """Whether a CRS is geographic or projected, and no local one."""
    base = fields.get("base_crs", {}).get("type", "GeographicCRS")
    return fields.get("type") in ("GeographicCRS", "ProjectedCRS") and base in ("GeographicCRS", "GeodeticCRS")


def _datum(fields: Fields) -> Fields:
    base = fields.get("base_crs", fields)
    found: Fields = base.get("datum") or base.get("datum_ensemble") or {}
    return found


def _datum_name(datum: Fields, axes: tuple[float, float] | None, *, known: bool) -> str | None:
    name = str(datum.get("name", ""))
    if name.lower().startswith(("unknown", "not specified")):
        flattening = 1 / (1 - (1 - axes[1]) ** 0.5) if axes and axes[1] else 0.0
        if known or any(abs(flattening - each) < 1e-6 for each in _GEOCENTRIC):
            return None
    plain = _plain(re.sub("(?i) ensemble$", "", name))
    return "worldgeodeticsystem1984" if plain in ("wgs84", "wgs1984", "dwgs1984") else plain


def _axes(ellipsoid: Fields) -> tuple[float, float] | None:
    """Semi-major axis and squared eccentricity."""
    major = ellipsoid.get("semi_major_axis", ellipsoid.get("radius"))
    major = major["value"] if isinstance(major, Mapping) else major
    if major is None:
        return None
    inverse = float(ellipsoid.get("inverse_flattening") or 0)
    minor = ellipsoid.get("semi_minor_axis")
    minor = minor["value"] if isinstance(minor, Mapping) else minor
    flattening = 1 / inverse if inverse else 1 - float(minor) / float(major) if minor else 0.0
    return float(major), flattening * (2 - flattening)


def _number(parameter: Fields) -> float:
    """Value of a parameter, in metres or degrees where its unit is written out."""
    unit = parameter.get("unit", "unity")
    factor = float(unit.get("conversion_factor", 1.0)) if isinstance(unit, Mapping) else 1.0
    if isinstance(unit, Mapping) and unit.get("type") == "AngularUnit":
        factor /= 0.017453292519943295
    return float(parameter["value"]) * factor


def _unit(unit: Any) -> str:
    return f"{unit.get('conversion_factor', 1.0):.12g}" if isinstance(unit, Mapping) else str(unit)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
