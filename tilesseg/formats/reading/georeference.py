"""Coordinate reference systems as a grid holds them, and a grid's place as plain JSON data."""

from __future__ import annotations

from typing import Any

from rasterio.crs import CRS

from tilesseg.raster.grid import Grid


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
    """Name of a CRS's unit, and its metres where it is a length."""
    name, factor = crs.units_factor
    if crs.is_geographic:
        return ("degree" if abs(factor - 0.017453292519943295) < 1e-9 else name), None
    return ("metre" if factor == 1 else name), float(factor)


def describe_grid(grid: Grid) -> dict[str, Any]:
    """Size and place of an image."""
    y, x = grid.resolution
    return {
        "height": grid.height,
        "width": grid.width,
        "crs": crs_name(grid.crs) if grid.crs else None,
        "transform": list(grid.transform),
        "resolution": {"y": y, "x": x, "unit": grid.unit},
    }
