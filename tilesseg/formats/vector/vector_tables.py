"""Polygons as a table of features in the coordinates of the mask: GeoPackage, FlatGeobuf, GeoParquet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pyogrio.raw
import shapely
from pyogrio.errors import CRSError, DataLayerError, DataSourceError
from rasterio.crs import CRS

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.reading.ground_area import plane_area
from tilesseg.formats.vector.coordinates import in_world
from tilesseg.formats.vector.features import Choice, Features, area_unit, features
from tilesseg.formats.vector.vector_checks import projjson
from tilesseg.formats.writer import Mask
from tilesseg.formats.writing.geopackage_file import with_other_layers
from tilesseg.formats.writing.publish import LAYER, growing, publish, refusing
from tilesseg.formats.writing.written_crs import refuse_other_crs

GEOMETRY = "geometry"


def write(mask: Mask, path: Path, choice: Choice, *, kind: str) -> tuple[Path, ...]:
    """Write the polygons of a mask, batch by batch; a GeoPackage with other layers keeps them.

    Raises:
        FormatError: the file cannot be written; nothing is left behind.
    """
    with growing(path) as folder, refusing(path):
        schema = _schema(mask)
        batches = (_batch(batch, mask, schema, bool(choice.simplify)) for batch in features(mask, choice, folder))
        try:
            if kind == "geoparquet":
                _write_parquet(folder / path.name, mask, path, schema, batches)
            elif kind == "flatgeobuf":
                _write_layer(folder / path.name, mask, kind, schema, batches)
            else:
                with with_other_layers(path, folder / path.name, LAYER):
                    _write_layer(folder / path.name, mask, kind, schema, batches)
        except (DataSourceError, DataLayerError, CRSError, pa.ArrowException) as error:
            raise FormatError(cannot(f"write {path}", error, "make room or choose another path")) from error
        if mask.grid.crs is not None:
            refuse_other_crs(_written_crs(folder / path.name, kind), mask.grid, path)
        return publish(folder, path)


def _written_crs(file: Path, kind: str) -> CRS | None:
    """The CRS of a written table, as another reader finds it."""
    if kind == "geoparquet":
        geo = json.loads(pyarrow.parquet.read_metadata(file).metadata[b"geo"])
        return CRS.from_user_input(json.dumps(geo["columns"][GEOMETRY]["crs"]))
    text = pyogrio.read_info(file, layer=LAYER)["crs"]
    return CRS.from_user_input(text) if text else None


def _schema(mask: Mask) -> pa.Schema:
    return pa.schema(
        [
            pa.field("label", pa.int32()),
            pa.field("class", pa.string()),
            pa.field("colour", pa.string()),
            pa.field(f"area_{area_unit(mask.grid)}", pa.float64()),
            *([] if plane_area(mask.grid) is None else [pa.field("area_grid", pa.float64())]),
            pa.field(GEOMETRY, pa.binary()),
        ]
    )


def _batch(batch: Features, mask: Mask, schema: pa.Schema, oblique: bool) -> pa.RecordBatch:
    names = np.array([meant.name for meant in mask.classes], object)
    colours = np.array([meant.colour for meant in mask.classes], object)
    plane = plane_area(mask.grid)
    columns = (
        batch.labels.astype(np.int32),
        names[batch.labels],
        colours[batch.labels],
        batch.areas,
        *([] if plane is None else [batch.pixels * plane]),
        shapely.to_wkb(in_world(batch.geometries, mask.grid, oblique=oblique), byte_order=1),
    )
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _write_layer(file: Path, mask: Mask, kind: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write a layer by GDAL, and raise the errors of the stream, which GDAL swallows."""
    problems: list[BaseException] = []

    def stream() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            problems.append(error)
            raise

    reader = pa.RecordBatchReader.from_batches(schema, stream())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # a slide has none
            pyogrio.raw.write_arrow(
                reader, str(file), layer=LAYER, geometry_name=GEOMETRY, geometry_type="Polygon", crs=mask.grid.crs,
                **_options(mask, kind),
            )  # fmt: skip
    finally:
        if problems:
            raise problems[0]


def _options(mask: Mask, kind: str) -> dict[str, Any]:
    facts = dict(mask.provenance)
    if kind == "flatgeobuf":
        described = json.dumps(facts, ensure_ascii=False)
        return {"driver": "FlatGeobuf", "layer_options": {"TITLE": LAYER, "DESCRIPTION": described}}
    cartesian = (
        {} if mask.grid.crs else {"layer_options": {"SRID": "-1"}}
    )  # without it GDAL writes "undefined geographic"
    return {"driver": "GPKG", "layer_metadata": facts, **cartesian}


def _write_parquet(file: Path, mask: Mask, path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    crs = None if mask.grid.crs is None else projjson(mask.grid.crs, path)
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": crs,
        "orientation": "counterclockwise",
        "edges": "planar",
    }
    geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
    described = schema.with_metadata({"geo": json.dumps(geo), "tilesseg": json.dumps(dict(mask.provenance))})
    with pyarrow.parquet.ParquetWriter(file, described, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(described.metadata))
