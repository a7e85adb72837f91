"""Features of a vector file: polygons with the attribute that says their class.

GeoJSON is read as regions of interest are; other files as tables (`feature_table`), with the extra `vector`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from rasterio.crs import CRS

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.crs import crs_name
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
        if self.crs is None and not self.path.lower().endswith(GEOJSON):
            self._refuse_unplaced(grid, image)
        place = placing(self.path, self.crs, grid=grid, native=native, image=image)
        return [
            Feature(one.number, [[place(ring) for ring in polygon] for polygon in one.polygons], one.value)
            for one in self.features
        ]

    def _refuse_unplaced(self, grid: Grid, image: str) -> None:
        """Refuse a table without a CRS where its coordinates may be of two kinds; GeoJSON says them by its format."""
        if grid.crs is not None:
            raise SourceError(f"{self.path} names no CRS, and {image} has {crs_name(grid.crs)}; write its CRS into it")
        if grid.unit == "micrometre":
            raise SourceError(
                f"{self.path} names no CRS, and {image} is in µm: its coordinates may be µm or pixels; give GeoJSON in "
                "pixels of its full resolution"
            )


def read_features(path: str, *, attribute: str | None = None, layer: str | None = None) -> FeatureFile:
    """All features of a vector file that have an inside.

    Args:
        path: GeoJSON, GeoParquet, or any vector file that GDAL reads.
        attribute: name of the attribute whose value is kept.
        layer: layer of a file of several.

    Raises:
        SourceError: the file cannot be read, holds no polygon, or no feature has the attribute.
    """
    read = _read_geojson if path.lower().endswith(GEOJSON) else partial(_read_table, layer=layer)
    found = read(path, attribute)
    features = [one for one in found.features if one.polygons]
    if not features:
        raise SourceError(f"{path} holds no polygon among its {len(found.features)} features; give areas, no lines")
    return FeatureFile(path, found.crs, features)


def _read_geojson(path: str, attribute: str | None) -> FeatureFile:
    data = parsed_geojson(path)
    try:
        features = [
            Feature(number, list(polygons_of(one, path)), attribute and _value(_properties(one), attribute))
            for number, one in enumerate(_listed(data), 1)
        ]
    except RecursionError:
        because = "its features are nested too deeply"
        raise SourceError(cannot(f"read {path} as GeoJSON", because, "export it again")) from None
    if attribute is not None:
        _refuse_unknown(path, attribute, {name for one in _listed(data) for name in _properties(one)})
    return FeatureFile(path, named_crs(path, data), features)


def _refuse_unknown(path: str, attribute: str, names: set[str]) -> None:
    if names and attribute not in names:
        known = ", ".join(sorted(names))
        raise SourceError(f"{path}: its features have no attribute {attribute}, only {known}; correct attribute")


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


def _value(properties: dict[str, Any], attribute: str) -> Any:
    """Value of an attribute; the name within, where QuPath writes an object. None where it is missing."""
    value = properties.get(attribute)
    return value.get("name") if isinstance(value, dict) else value


def _read_table(path: str, attribute: str | None, *, layer: str | None) -> FeatureFile:
    try:
        from tilesseg.formats.labels.feature_table import read_table
    except ImportError:
        raise SourceError(
            f"{path} is read with the extra vector; pip install 'tilesseg[vector]', or give GeoJSON"
        ) from None
    table = read_table(path, attribute, layer=layer)
    features = [
        Feature(number, polygons, value)
        for number, (polygons, value) in enumerate(zip(table.polygons, table.values, strict=True), 1)
    ]
    return FeatureFile(path, table.crs, features)
