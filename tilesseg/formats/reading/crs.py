"""Coordinate reference systems (CRS) as a grid holds them: WKT, units, and longitude and latitude."""

from __future__ import annotations

from collections.abc import Sequence

from rasterio.crs import CRS
from rasterio.warp import transform


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
