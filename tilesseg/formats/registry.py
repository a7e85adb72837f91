"""The formats: one row for each, with its opener and its writer. A new format is a row and a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the table: opener, writer and check of a format, as `package.module:name`."""

    opens: str | None = None
    writes: str | None = None
    suffixes: tuple[str, ...] = ()
    """Suffixes of a file's name, the usual one first."""
    kind: Literal["mask", "scores", "polygons"] = "mask"
    """Content of a product in this format."""
    options: tuple[str, ...] = ()
    """Keys of a product in the job file, beside `format` and `path`; the writer takes them as keywords."""
    checks: str | None = None
    """Preflight check, called before the first tile; see `Check`."""


_POLYGONS = ("classes", "min_area", "simplify")
_POLYGONS_CHECK = "tilesseg.formats.vector:check_polygons"
_GEOTIFF_CHECK = "tilesseg.formats.writing.written_crs:check_geotiff_crs"

FORMATS: Mapping[str, Format] = {
    "geotiff": Format(opens="tilesseg.formats.geotiff:open_geotiff"),
    "zarr": Format(opens="tilesseg.formats.geozarr:open_geozarr"),
    "slide": Format(opens="tilesseg.formats.slide:open_slide"),
    "cog": Format(
        writes="tilesseg.formats.cog.writer:write_cog",
        suffixes=(".tif", ".tiff"),
        options=("overviews", "resolution"),
        checks=_GEOTIFF_CHECK,
    ),
    "ome-tiff": Format(
        opens="tilesseg.formats.slide:open_ome_tiff",
        writes="tilesseg.formats.ome_tiff.writer:write_ome_tiff",
        suffixes=(".ome.tif", ".ome.tiff", ".tif", ".tiff"),
        options=("overviews", "resolution"),
    ),
    "ome-zarr": Format(
        opens="tilesseg.formats.ome_zarr:open_ome_zarr",
        writes="tilesseg.formats.ome_zarr:write_ome_zarr",
        suffixes=(".ome.zarr", ".zarr"),
        options=("overviews", "resolution", "version", "beside"),
        checks="tilesseg.formats.ome_zarr:check_ome_zarr",
    ),
    "scores-cog": Format(
        writes="tilesseg.formats.cog.writer:write_scores",
        suffixes=(".tif", ".tiff"),
        kind="scores",
        options=("classes",),
        checks=_GEOTIFF_CHECK,
    ),
    "scores-ome-tiff": Format(
        writes="tilesseg.formats.ome_tiff.writer:write_ome_tiff_scores",
        suffixes=(".ome.tif", ".ome.tiff", ".tif", ".tiff"),
        kind="scores",
        options=("classes",),
    ),
    "scores-ome-zarr": Format(
        writes="tilesseg.formats.ome_zarr:write_ome_zarr_scores",
        suffixes=(".ome.zarr", ".zarr"),
        kind="scores",
        options=("classes", "version"),
        checks="tilesseg.formats.ome_zarr:check_ome_zarr",
    ),
    "geojson": Format(
        writes="tilesseg.formats.vector:write_geojson",
        suffixes=(".geojson", ".json"),
        kind="polygons",
        options=(*_POLYGONS, "canvas"),
        checks=_POLYGONS_CHECK,
    ),
    "gpkg": Format(
        writes="tilesseg.formats.vector:write_geopackage",
        suffixes=(".gpkg",),
        kind="polygons",
        options=_POLYGONS,
        checks=_POLYGONS_CHECK,
    ),
    "flatgeobuf": Format(
        writes="tilesseg.formats.vector:write_flatgeobuf",
        suffixes=(".fgb",),
        kind="polygons",
        options=_POLYGONS,
        checks=_POLYGONS_CHECK,
    ),
    "geoparquet": Format(
        writes="tilesseg.formats.vector:write_geoparquet",
        suffixes=(".parquet",),
        kind="polygons",
        options=_POLYGONS,
        checks=_POLYGONS_CHECK,
    ),
}


def resolve(dotted: str) -> Any:
    """The object that `package.module:name` names."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)
