"""Everything GDAL opens as a source: GeoTIFF, BigTIFF, COG, VRT, JPEG 2000, one file or several that make one image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.band_names import file_names, natural
from tilesseg.formats.geotiff.raster_facts import is_remote, open_raster
from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.geotiff.raster_stack import stack
from tilesseg.formats.geotiff.source import Band, GeoTiffSource

__all__ = ["GeoTiffSource", "open_geotiff"]

_FOLDER_SUFFIXES = (".tif", ".tiff", ".jp2")


def open_geotiff(
    paths: Sequence[str], *, scale: float | None, offset: float | None, resolution: float | None
) -> GeoTiffSource:
    """Open one file, one folder of files, or a list of files, as one image; see `formats.open_source`.

    Raises:
        SourceError: missing, not an image, of a data type that cannot be segmented, or files that do not fit together.
    """
    for name, number in (("scale", scale), ("offset", offset)):
        if number is not None and not np.isfinite(number):
            raise SourceError(f"{paths[0]}: {name} {number}, a finite number needed")
    files = [open_raster(path) for path in _expand(paths)]
    grid, layers = stack(files, resolution)
    bands = tuple(
        Band(
            name=name,
            layer=number,
            index=index,
            scale=file.facts.scales[index] if scale is None else scale,
            offset=file.facts.offsets[index] if offset is None else offset,
        )
        for number, (file, names) in enumerate(zip(files, _names(files), strict=True))
        for index, name in enumerate(names)
    )
    return GeoTiffSource(layers=layers, grid=grid, all_bands=bands, selected=tuple(range(len(bands))))


def _expand(paths: Sequence[str]) -> list[str]:
    """The files meant by a folder; a list as it is."""
    if len(paths) != 1 or is_remote(paths[0]) or not os.path.isdir(paths[0]):
        return list(paths)
    inside = (entry for entry in Path(paths[0]).iterdir() if entry.suffix.lower() in _FOLDER_SUFFIXES)
    files = sorted((str(entry) for entry in inside if entry.is_file()), key=natural)
    if not files:
        raise SourceError(f"{paths[0]}: a folder without an image, at least one {' or '.join(_FOLDER_SUFFIXES)} needed")
    return files


def _names(files: Sequence[RasterFile]) -> list[tuple[str | None, ...]]:
    """Band names by file; a name that two files claim gets the second file's own part before it."""
    tokens = file_names([Path(file.path).stem for file in files])
    taken: set[str] = set()
    result = []
    for file, token in zip(files, tokens, strict=True):
        single = len(file.facts.names) == 1
        names = [name or (token if single else None) for name in file.facts.names]
        names = [f"{token}.{name}" if name in taken and token else name for name in names]
        taken.update(name for name in names if name)
        result.append(tuple(names))
    return result
