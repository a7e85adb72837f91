"""Opening a raster file and finding out what it is, once. Cheap whatever size the file declares: no pixel is read."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.band_names import band_name
from tilesseg.formats.geotiff.raster_file import (
    MaskKind,
    RasterFacts,
    RasterFile,
    one_line_errors,
    open_dataset,
    settled,
)
from tilesseg.grid import IDENTITY, Grid, Transform

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")

_MOST_BANDS = 10_000  # one patch of more would not fit into memory; damaged headers declare 65535


def open_raster(path: str) -> RasterFile:
    """Open a file with GDAL and gather its facts.

    Raises:
        SourceError: missing, not an image, or of a data type that cannot be segmented.
    """
    if not is_remote(path):
        if not os.path.exists(path):
            raise SourceError(f"{path}: no such file")
        path = os.path.abspath(path)
    with one_line_errors(f"{path}: not an image that GDAL can open"):
        dataset = open_dataset(path)
    with one_line_errors(f"{path}: cannot tell what it is"), rasterio.Env():
        return RasterFile(path, settled(lambda: _facts(path, dataset)))


def is_remote(path: str) -> bool:
    """Whether a path is GDAL's business alone: a URL, a `/vsi…` path or a `DRIVER:…` name."""
    return "://" in path or path.startswith("/vsi") or (":" in path and not os.path.exists(path))


def _facts(path: str, dataset: Any) -> RasterFacts:
    if dataset.count > _MOST_BANDS:
        raise SourceError(f"{path}: {dataset.count} bands, at most {_MOST_BANDS}: its header is probably damaged")
    colours = dataset.colorinterp
    bands = tuple(i for i, colour in zip(dataset.indexes, colours, strict=True) if colour != ColorInterp.alpha)
    if not bands:
        raise SourceError(f"{path}: no band with data, 1 needed")
    dtypes = tuple(dataset.dtypes[i - 1] for i in bands)
    wrong = [dtype for dtype in dtypes if dtype not in DTYPES]
    if wrong:
        raise SourceError(f"{path}: data type {wrong[0]}, one of {', '.join(DTYPES)} needed; convert it first")
    transform, transform_note = _transform(dataset)
    grid, crs_note = _grid(dataset, transform)
    compression = dataset.compression
    return RasterFacts(
        driver=dataset.driver,
        grid=grid,
        bands=bands,
        names=tuple(band_name(dataset.descriptions[i - 1], colours[i - 1].name) for i in bands),
        dtypes=dtypes,
        scales=tuple(float(dataset.scales[i - 1]) for i in bands),
        offsets=tuple(float(dataset.offsets[i - 1]) for i in bands),
        nodata=tuple(dataset.nodatavals[i - 1] for i in bands),
        mask=_mask_kind(dataset),
        alpha=len(bands) < dataset.count,
        overviews=tuple(dataset.overviews(bands[0])),
        cell=dataset.block_shapes[bands[0] - 1],
        compression=compression.value if compression else None,
        files=_files(path, dataset),
        notes=tuple(note for note in (crs_note, transform_note, _palette_note(colours)) if note),
    )


def _mask_kind(dataset: Any) -> MaskKind:
    flags = dataset.mask_flag_enums  # empty lists where GDAL's flags are 0: a mask for each band
    if MaskFlags.per_dataset in flags[0]:
        return "dataset"
    if all(MaskFlags.all_valid in of_band for of_band in flags):
        return "none"
    return "nodata" if all(of_band == [MaskFlags.nodata] for of_band in flags) else "bands"


def _transform(dataset: Any) -> tuple[Transform, str | None]:
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    if a * e - b * d == 0:
        return IDENTITY, f"its geotransform {(a, b, c, d, e, f)} maps no area: ignored, pixel coordinates are used"
    transform = (a, b, c, d, e, f)
    if transform == IDENTITY:
        return transform, "no geotransform: pixel coordinates are used"
    if b or d:
        return transform, "rotated: rows do not run along the axes of the coordinate system; kept as it is"
    return transform, "south-up: the first row is the southernmost; kept as it is" if e > 0 else None


def _grid(dataset: Any, transform: Transform) -> tuple[Grid, str | None]:
    """The grid, and what to say where it has no CRS."""
    grid = Grid(dataset.height, dataset.width, transform, unit="pixel" if transform == IDENTITY else "unknown")
    try:
        crs = dataset.crs
        if crs:
            unit, metres = _unit(crs)
            return replace(grid, crs=_round_trip(crs), unit=unit, metres_per_unit=metres), None
    except CRSError as error:
        return grid, f"its coordinate reference system cannot be understood: {' '.join(str(error).split())}"
    gcps = settled(lambda: dataset.gcps)[0]
    if gcps:
        return grid, f"placed by {len(gcps)} ground control points only: treated in pixel coordinates"
    if transform != IDENTITY:
        return grid, "no coordinate reference system, or one that GDAL cannot understand: the transform is kept"
    return grid, "no coordinate reference system"


def _round_trip(crs: Any) -> str:
    """The CRS as WKT that reads back as the same CRS: the old form if it can, which more readers know."""
    wkt = crs.to_wkt()
    return str(wkt if type(crs).from_wkt(wkt) == crs else crs.to_wkt(version="WKT2_2019"))


def _unit(crs: Any) -> tuple[str, float | None]:
    name, factor = crs.units_factor
    if crs.is_geographic:
        return ("degree" if abs(factor - 0.017453292519943295) < 1e-9 else name), None
    return ("metre" if factor == 1 else name), float(factor)


def _palette_note(colours: Any) -> str | None:
    if ColorInterp.palette not in colours:
        return None
    return "a palette image: its values are indices into a colour table, not brightness"


def _files(path: str, dataset: Any) -> tuple[str, ...]:
    """Files of the dataset, those of VRTs within VRTs too."""
    found = dict.fromkeys([path])
    pending = list(settled(lambda: dataset.files))
    while pending:
        name = pending.pop(0)
        if name in found:
            continue
        found[name] = None
        if name.lower().endswith(".vrt") and os.path.exists(name):
            with one_line_errors(f"{path}: cannot open its member {name}"), open_dataset(name) as member:
                pending += settled(lambda member=member: member.files)  # type: ignore[misc]
    return tuple(found)
