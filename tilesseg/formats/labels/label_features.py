"""Features of a vector file: polygons with the attribute that says their class.

GeoJSON is read by ourselves, as regions of interest are; other files by pyogrio, with the extra `vector`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rasterio.crs import CRS

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.polygon_file import Polygon, named_crs, parsed_geojson, placing, polygons_of
from tilesseg.raster.grid import Grid

GEOJSON = (".geojson", ".json")


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a vector file."""

    number: int
    """Its number in the file, from 1."""
    polygons: list[Polygon]
    """Its polygons; empty for points and lines, which have no inside."""
    value: Any = None
    """Value of the attribute; None where the feature has none."""


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """Features of a file in their order, in the file's coordinates."""

    path: str
    crs: CRS | None
    """CRS of the coordinates; None: longitude and latitude, or pixels of an image without a CRS."""
    features: list[Feature]

    def placed(self, *, grid: Grid, native: Grid, image: str) -> list[Feature]:
        """Features in pixels of the grid, as `(x, y)`.

        Raises:
            SourceError: the CRS of file and image do not fit, or a position has no place in the image's.
        """
        place = placing(self.path, self.crs, grid=grid, native=native, image=image)
        return [
            Feature(one.number, [[place(ring) for ring in polygon] for polygon in one.polygons], one.value)
            for one in self.features
        ]


def read_features(path: str, *, attribute: str | None = None, layer: str | None = None) -> FeatureFile:
    """All features of a vector file that have an inside.

    Args:
        path: GeoJSON, or any vector file that GDAL reads.
        attribute: name of the attribute whose value is kept.
        layer: layer of a file of several.

    Raises:
        SourceError: the file cannot be read, holds no polygon, or no feature has the attribute.
    """
    read = _read_geojson if path.lower().endswith(GEOJSON) else partial(_read_by_gdal, layer=layer)
    found = read(path, attribute)
    features = [one for one in found.features if one.polygons]
    if not features:
        raise SourceError(f"{path} holds no polygon among its {len(found.features)} features; give areas, no lines")
    return FeatureFile(path, found.crs, features)


def _read_geojson(path: str, attribute: str | None) -> FeatureFile:
    data = parsed_geojson(path)
    try:
        features = [
            Feature(number, list(polygons_of(one, path)), _value(_properties(one), attribute, path))
            for number, one in enumerate(_listed(data), 1)
        ]
    except RecursionError:
        because = "its features are nested too deeply"
        raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again")) from None
    return FeatureFile(path, named_crs(path, data), features)


def _listed(data: Any) -> Iterator[Any]:
    """Features of a collection, or of QuPath's bare list; any other object is one feature."""
    if isinstance(data, dict) and data.get("type") == "FeatureCollection" and isinstance(data.get("features"), list):
        yield from data["features"]
    elif isinstance(data, list):
        yield from data
    else:
        yield data


def _properties(feature: Any) -> dict[str, Any]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return properties if isinstance(properties, dict) else {}


def _value(properties: dict[str, Any], attribute: str | None, path: str) -> Any:
    """Value of an attribute; the name within, where QuPath writes an object."""
    if attribute is None:
        return None
    if attribute not in properties:
        raise SourceError(
            f"{path}: a feature has no attribute {attribute}, only {', '.join(sorted(properties)) or 'none'}; correct "
            "attribute"
        )
    value = properties[attribute]
    return value.get("name") if isinstance(value, dict) else value


def _read_by_gdal(path: str, attribute: str | None, *, layer: str | None) -> FeatureFile:
    try:
        import pyogrio
        import shapely
    except ImportError:
        raise SourceError(
            f"{path} is read with the extra vector; pip install 'tilesseg[vector]', or give GeoJSON"
        ) from None
    try:
        meta, _, geometries, columns = pyogrio.raw.read(path, layer=layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise SourceError(cannot(f"read {path}", error, "give a vector file and its layer")) from None
    values = _column(path, attribute, [*meta["fields"]], columns)
    shapes = shapely.from_wkb(geometries)
    features = [
        Feature(number, list(_polygons_of_shape(shape)), None if values is None else _plain(values[number - 1]))
        for number, shape in enumerate(shapes, 1)
    ]
    return FeatureFile(path, CRS.from_user_input(meta["crs"]) if meta["crs"] else None, features)


def _column(path: str, attribute: str | None, names: list[str], columns: Any) -> Any:
    if attribute is None:
        return None
    if attribute not in names:
        raise SourceError(f"{path} has no attribute {attribute}, only {', '.join(names) or 'none'}; correct attribute")
    return columns[names.index(attribute)]


def _plain(value: Any) -> Any:
    """A value of a column as a plain number or text; None where it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _polygons_of_shape(shape: Any) -> Iterator[Polygon]:
    """Polygons of a geometry of shapely, of collections too."""
    if shape is None or shape.is_empty:
        return
    if shape.geom_type == "Polygon":
        yield [np.asarray(ring.coords, np.float64)[:, :2] for ring in (shape.exterior, *shape.interiors)]
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from _polygons_of_shape(part)
