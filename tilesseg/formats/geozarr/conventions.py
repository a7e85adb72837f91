"""Conventions of Zarr attributes for images: axes, grid, band names, nodata, scale and offset.

Supported are the Zarr conventions `spatial:` and `proj:` (github.com/zarr-conventions, maturity Proposal), CF's grid
mappings as rioxarray writes them, GDAL's `_CRS`, and evenly spaced coordinate arrays. Plain data, no arrays.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tilesseg.errors import FormatError, SourceError, cannot
from tilesseg.formats.reading.crs import crs_difference, crs_name, round_trip, unit_of
from tilesseg.formats.reading.proj_data import check_data, data_note
from tilesseg.formats.zarr.zarr_array import Axes
from tilesseg.formats.zarr.zarr_hierarchy import Attributes
from tilesseg.raster.grid import IDENTITY, Grid, Transform

_Y = ("y", "lat", "latitude", "northing", "row", "rows", "projection_y_coordinate")
_X = ("x", "lon", "longitude", "easting", "col", "cols", "column", "columns", "projection_x_coordinate")
_CHANNEL = ("channel", "channels", "band", "bands", "c", "wavelength", "wavelengths", "spectral")
_UNEVEN = 0.02  # of a pixel: allowed deviation of coordinates from even spacing
_COARSEST = 0.5  # of a pixel: allowed deviation where it is the rounding of single precision

_SPATIAL = {
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "name": "spatial:",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    "description": "Spatial coordinate information",
}
_PROJ = {
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "name": "proj:",
    "schema_url": "https://raw.githubusercontent.com/zarr-experimental/geo-proj/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-experimental/geo-proj/blob/v1/README.md",
    "description": "Coordinate reference system information for geospatial data",
}


def find_axes(where: str, shape: Sequence[int], names: Sequence[str | None], spatial: Sequence[str] | None) -> Axes:
    """Axes by the names of the dimensions, else `(y, x)` or `(channel, y, x)`.

    Args:
        where: name of the array in messages.
        shape: shape of the array.
        names: names of its dimensions; empty or None where it has none.
        spatial: `spatial:dimensions`, the names of y and x.

    Raises:
        SourceError: the axes are ambiguous, or there is a further axis longer than 1.
    """
    lower = [(name or "").lower() for name in names]
    ys, xs = ([spatial[0].lower()], [spatial[1].lower()]) if spatial else (list(_Y), list(_X))
    y, x = _place(lower, ys), _place(lower, xs)
    if y is None or x is None:
        if any(lower) and len(shape) > 2 and not spatial and set(lower) & set(_CHANNEL) and lower[0] not in _CHANNEL:
            raise SourceError(f"{where}: dimensions {tuple(names)}, without y and x among them; name them so")
        y, x, channel = len(shape) - 2, len(shape) - 1, (len(shape) - 3 if len(shape) > 2 else None)
        if len(shape) == 3 and shape[2] <= 4 < shape[1]:
            raise SourceError(
                f"{where}: shape {tuple(shape)}, a last axis of {shape[2]} where x was expected; name its dimensions "
                "(y, x, channel), by dimension_names or _ARRAY_DIMENSIONS, or store it as (channel, y, x)"
            )
    else:
        channel = _place(lower, _CHANNEL)
        others = [axis for axis in range(len(shape)) if axis not in (y, x)]
        if channel is None and len(others) == 1 and not lower[others[0]]:
            channel = others[0]
    for axis, length in enumerate(shape):
        if axis not in (y, x, channel) and length > 1:
            called = names[axis] if axis < len(names) and names[axis] else f"axis {axis}"
            raise SourceError(f"{where}: {called} has a length of {length}, not 1; store one step as an image alone")
    return Axes(y, x, channel)


def find_grid(where: str, shape: tuple[int, int], attributes: Attributes, mapping: Attributes) -> Grid | None:
    """The grid by attributes, or None where they have no transform.

    Args:
        where: name of the image in messages.
        shape: shape of the image.
        attributes: attributes of the array, over those of its group.
        mapping: attributes of CF's grid mapping variable.

    Raises:
        SourceError: the attributes contradict each other, or cannot be read.
    """
    transform = _spatial_transform(where, shape, attributes)
    if transform is None and "GeoTransform" in mapping:
        transform = _gdal_transform(where, str(mapping["GeoTransform"]))
    return None if transform is None else Grid(*shape, transform=transform, unit="unknown")


def placed(where: str, grid: Grid, attributes: Attributes, mapping: Attributes) -> tuple[Grid, str | None]:
    """A grid with the CRS by attributes, and a note on it, such as that there is none."""
    crs = _find_crs(where, attributes, mapping)
    if crs is None:
        kept = ": the transform is kept" if grid.transform != IDENTITY else ""
        return grid, f"no coordinate reference system{kept}"
    unit, metres = unit_of(crs)
    placed_grid = Grid(*grid.shape, transform=grid.transform, crs=round_trip(crs), unit=unit, metres_per_unit=metres)
    return placed_grid, data_note()


def grid_from_coordinates(
    where: str, shape: tuple[int, int], y: NDArray[Any] | None, x: NDArray[Any] | None
) -> tuple[Grid, str | None]:
    """The grid whose pixels have these centres, and a note where they are rounded.

    Raises:
        SourceError: the centres are not evenly spaced.
    """
    if y is None or x is None or min(shape) < 2:
        return Grid(*shape), None
    (f, e, off_y), (c, a, off_x) = _spacing(where, "y", y), _spacing(where, "x", x)
    off, note = max(off_y, off_x), None
    if off > _UNEVEN:
        note = f"coordinates are rounded, by up to {off:.1%} of a pixel: the even grid that fits them best is taken"
    return Grid(*shape, transform=(a, 0.0, c - a / 2, 0.0, e, f - e / 2), unit="unknown"), note


def find_names(attributes: Attributes, coordinates: Sequence[str] | None, count: int) -> tuple[str | None, ...]:
    """Names of the bands of an array: `band_names`, its channel coordinate, or rioxarray's `long_name`."""
    for names in (attributes.get("band_names"), coordinates, attributes.get("long_name")):
        if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == count:
            return tuple(str(name) or None for name in names)
    return (None,) * count


def find_nodata(where: str, attributes: Attributes) -> float | None:
    """The value that means nodata: `_FillValue`, `nodata` or `missing_value`; Zarr's own fill value means nothing.

    Raises:
        SourceError: the value is no number.
    """
    for key in ("_FillValue", "nodata", "missing_value"):
        if attributes.get(key) is not None:
            return _number(where, key, attributes[key])
    return None


def find_scaling(where: str, attributes: Attributes) -> tuple[float, float]:
    """CF's `scale_factor` and `add_offset`.

    Raises:
        SourceError: one of them is no number.
    """
    scale, offset = (attributes.get(key) for key in ("scale_factor", "add_offset"))
    return (
        1.0 if scale is None else _number(where, "scale_factor", scale),
        0.0 if offset is None else _number(where, "add_offset", offset),
    )


def spatial_attributes(grid: Grid) -> dict[str, Any]:
    """Attributes by which other readers place a grid."""
    attributes: dict[str, Any] = {
        "zarr_conventions": [_SPATIAL],
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(grid.shape),
        "spatial:registration": "pixel",
    }
    if grid.georeferenced:
        corners = [grid.to_world(y, x) for y in (0, grid.height) for x in (0, grid.width)]
        xs, ys = zip(*corners, strict=True)
        attributes["spatial:transform_type"] = "affine"
        attributes["spatial:transform"] = list(grid.transform)
        attributes["spatial:bbox"] = [min(xs), min(ys), max(xs), max(ys)]
    if grid.crs is not None:
        attributes["zarr_conventions"] = [_SPATIAL, _PROJ]
        attributes["proj:wkt2"] = wkt2(grid.crs)
        name = crs_name(grid.crs)
        if name.startswith("EPSG:"):
            attributes["proj:code"] = name
    return attributes


def grid_mapping(grid: Grid) -> dict[str, Any]:
    """The grid mapping of CF, for readers that know only CF: attributes of a scalar named `spatial_ref`."""
    a, b, c, d, e, f = grid.transform
    attributes = {"GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}
    if grid.crs is not None:
        attributes["crs_wkt"] = attributes["spatial_ref"] = wkt2(grid.crs)
    return attributes


def wkt2(crs: str) -> str:
    """WKT of 2019 of a CRS given as WKT.

    Raises:
        FormatError: that would be another CRS.
    """
    text = str(CRS.from_wkt(crs).to_wkt(version="WKT2_2019"))
    difference = crs_difference(crs, text)
    if difference is not None:
        raise FormatError(cannot("write the CRS of the image", difference, "give the image a CRS with an EPSG code"))
    return text


def _place(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((axis for axis, name in enumerate(names) if name in wanted), None)


def _spatial_transform(where: str, shape: tuple[int, int], attributes: Attributes) -> Transform | None:
    kind, size = attributes.get("spatial:transform_type") or "affine", attributes.get("spatial:shape")
    if size is not None and tuple(size) != shape:
        raise SourceError(f"{where}: spatial:shape {tuple(size)}, but the array has {shape}; correct the attribute")
    numbers, box = attributes.get("spatial:transform"), attributes.get("spatial:bbox")
    if kind != "affine" and (numbers or box):
        raise SourceError(f"{where}: spatial:transform_type {kind}, affine needed; remove it to work in pixels")
    if numbers is not None:
        transform = _six(where, "spatial:transform", numbers)
        return _from_node(transform) if attributes.get("spatial:registration") == "node" else transform
    if box is None:
        return None
    left, bottom, right, top = (float(number) for number in box)
    return _area(where, ((right - left) / shape[1], 0.0, left, 0.0, (bottom - top) / shape[0], top))


def _from_node(transform: Transform) -> Transform:
    """Transform from the first pixel's corner, from a transform from its centre."""
    a, b, c, d, e, f = transform
    return a, b, c - (a + b) / 2, d, e, f - (d + e) / 2


def _gdal_transform(where: str, text: str) -> Transform:
    c, a, b, f, d, e = _six(where, "GeoTransform", text.split(), area=False)
    return _area(where, (a, b, c, d, e, f))


def _six(where: str, key: str, numbers: Any, *, area: bool = True) -> Transform:
    try:
        a, b, c, d, e, f = (float(number) for number in numbers)
    except (TypeError, ValueError):
        raise SourceError(f"{where}: {key} {numbers!r}, not six numbers; correct the attribute") from None
    return _area(where, (a, b, c, d, e, f)) if area else (a, b, c, d, e, f)


def _area(where: str, transform: Transform) -> Transform:
    a, b, _, d, e, _ = transform
    if not np.isfinite(transform).all() or a * e - b * d == 0:
        raise SourceError(f"{where}: the transform {transform} maps no area; correct the attribute or remove it")
    return transform


def _find_crs(where: str, attributes: Attributes, mapping: Attributes) -> CRS | None:
    gdal = attributes.get("_CRS")
    gdal = gdal if isinstance(gdal, Mapping) else {}
    definitions = (
        attributes.get("proj:wkt2"),
        attributes.get("proj:projjson"),
        attributes.get("proj:code"),
        mapping.get("crs_wkt") or mapping.get("spatial_ref"),
        gdal.get("wkt") or gdal.get("projjson"),
    )
    text = next((text for text in definitions if text), None)
    if text is None:
        return None
    check_data()
    try:
        with rasterio.Env():  # an Env sends GDAL's own complaints to logging
            return CRS.from_user_input(text if isinstance(text, str) else json.dumps(text))
    except CRSError as error:
        what = f"read the coordinate reference system of {where}"
        raise SourceError(cannot(what, error, "correct the attribute")) from None


def _spacing(where: str, axis: str, centres: NDArray[Any]) -> tuple[float, float, float]:
    """First centre, step between centres, and the largest deviation from even spacing, in pixels.

    Numbers of single precision are rounded, at 10 m in degrees by several percent of a pixel: they are even where no
    more than this rounding lies between them and a line.
    """
    exact = centres.astype(np.float64)
    start, step = float(exact[0]), float(exact[-1] - exact[0]) / (len(exact) - 1)
    off = float(np.abs(exact - (start + step * np.arange(len(exact)))).max())
    if off > _UNEVEN * abs(step) and off <= min(_rounding(exact), _COARSEST * abs(step)):
        middle = (len(exact) - 1) / 2
        away = np.arange(len(exact)) - middle
        step = float(away @ (exact - exact.mean()) / (away @ away))
        start = float(exact.mean()) - step * middle
        return start, step, float(np.abs(exact - (start + step * np.arange(len(exact)))).max() / abs(step))
    if step == 0 or not off <= _UNEVEN * abs(step):
        raise SourceError(
            f"{where}: {axis} is not evenly spaced, off by {off:.6g} at a step of {step:.6g}; resample it"
        )
    return start, step, off / abs(step)


def _rounding(exact: NDArray[np.float64]) -> float:
    """Distance of neighbouring numbers of the precision that coordinates have; 0 for double precision."""
    single = exact.astype(np.float32)
    return float(np.spacing(np.abs(single).max())) if np.array_equal(single, exact) else 0.0


def _number(where: str, key: str, value: Any) -> float:
    """A number as CF and xarray write it: floats of Zarr 3 are little-endian doubles in base64."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(struct.unpack("<d", base64.b64decode(str(value), validate=True))[0])
    except (ValueError, struct.error):
        raise SourceError(f"{where}: {key} {value!r}, not a number; correct the attribute") from None
