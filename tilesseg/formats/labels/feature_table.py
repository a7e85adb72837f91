"""Feature tables: files of GDAL by pyogrio, GeoParquet by pyarrow. Imported with the extra `vector` alone.

GeoParquet is read here because GDAL as pyogrio brings it has no driver for it: a column of WKB, whose name and CRS the
file's metadata say (https://geoparquet.org/releases/v1.1.0).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pyogrio
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.polygon_file import Polygon

PARQUET = (".parquet", ".geoparquet")


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Polygons of a table's features and the values of one attribute, in the file's order."""

    crs: CRS | None
    """CRS of the coordinates; None where the file has none, or only a plane without a place."""
    polygons: list[list[Polygon]]
    values: list[Any]
    """Value of the attribute of each feature; None where it is missing."""


def read_table(path: str, attribute: str | None, *, layer: str | None) -> FeatureTable:
    """All features of a table.

    Args:
        path: the file.
        attribute: attribute whose values are read; None reads none.
        layer: layer of a file of several.

    Raises:
        SourceError: it cannot be read, has no such attribute, holds several layers and none is named, or a position is
            not finite.
    """
    read = _read_parquet if path.lower().endswith(PARQUET) else _read_by_gdal
    try:
        return read(path, attribute, layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise SourceError(cannot(f"read {path}", error, "give a vector file and its layer")) from None
    except (pyarrow.ArrowException, shapely.errors.ShapelyError, CRSError, OSError) as error:
        raise SourceError(cannot(f"read {path}", error, "export it again, or give GeoJSON")) from None


def _read_by_gdal(path: str, attribute: str | None, layer: str | None) -> FeatureTable:
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if layer is None and len(layers) > 1:
        raise SourceError(f"{path} holds the layers {', '.join(layers)}; say by layer which holds the labels")
    _refuse_unknown(path, attribute, [*map(str, pyogrio.read_info(path, layer=layer)["fields"])])
    meta, _, geometries, columns = pyogrio.raw.read(path, layer=layer, columns=[attribute] if attribute else [])
    if geometries is None:
        raise SourceError(f"{path} is a table without geometry; give polygons")
    values = [None] * len(geometries) if attribute is None else [_plain(value) for value in columns[0]]
    return FeatureTable(_placed(meta["crs"]), _all_polygons(path, geometries), values)


def _read_parquet(path: str, attribute: str | None, layer: str | None) -> FeatureTable:
    facts = (pyarrow.parquet.read_metadata(path).metadata or {}).get(b"geo")
    column = json.loads(facts) if facts else {}
    name = column.get("primary_column")
    described = column.get("columns", {}).get(name, {})
    if described.get("encoding") != "WKB":
        because = f"its geometry is {described.get('encoding', 'not described')}, and WKB is read"
        raise SourceError(cannot(f"read {path}", because, "export it as GeoParquet with WKB, or as GeoJSON"))
    _refuse_unknown(path, attribute, [one for one in pyarrow.parquet.read_schema(path).names if one != name])
    table = pyarrow.parquet.read_table(path, columns=[name, *([attribute] if attribute else [])])
    values = [None] * len(table) if attribute is None else [_plain(value) for value in table[attribute].to_pylist()]
    crs = described.get("crs", "OGC:CRS84")
    polygons = _all_polygons(path, np.array(table[name].to_pylist(), object))
    return FeatureTable(_placed(crs if isinstance(crs, str | None) else json.dumps(crs)), polygons, values)


def _refuse_unknown(path: str, attribute: str | None, names: Sequence[str]) -> None:
    if attribute is not None and attribute not in names:
        raise SourceError(f"{path} has no attribute {attribute}, only {', '.join(names) or 'none'}; correct attribute")


def _placed(text: str | None) -> CRS | None:
    """CRS of a text; None for a plane without a place, as GeoPackage writes a missing CRS."""
    crs = CRS.from_user_input(text) if text else None
    return None if crs is None or crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS")) else crs


def _plain(value: Any) -> Any:
    """A value of a column as a plain number or text; None where it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _all_polygons(path: str, geometries: Any) -> list[list[Polygon]]:
    """Polygons of each geometry.

    Raises:
        SourceError: a position is not finite.
    """
    found = [list(_polygons_of_shape(shape)) for shape in shapely.from_wkb(geometries)]
    for number, polygons in enumerate(found, 1):
        if not all(np.isfinite(ring).all() for polygon in polygons for ring in polygon):
            because = f"a position of feature {number} is not finite"
            raise SourceError(cannot(f"read {path}", because, "export it again"))
    return found


def _polygons_of_shape(shape: Any) -> Iterator[Polygon]:
    """Polygons of a geometry of shapely, of collections too."""
    if shape is None or shape.is_empty:
        return
    if shape.geom_type == "Polygon":
        yield [np.asarray(ring.coords, np.float64)[:, :2] for ring in (shape.exterior, *shape.interiors)]
    elif hasattr(shape, "geoms"):
        for part in shape.geoms:
            yield from _polygons_of_shape(part)
