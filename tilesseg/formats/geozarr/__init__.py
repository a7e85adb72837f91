"""Zarr as an image: a plain array, a group of bands, GeoZarr, and staged copies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.geozarr import conventions
from tilesseg.formats.geozarr.staged_source import staged_reader
from tilesseg.formats.reading.image import Image, ImageBand, ImageFacts
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.resample import exact_ratio, output_shape
from tilesseg.formats.reading.validity import DTYPES
from tilesseg.formats.zarr.source import ZarrLayer, ZarrReader
from tilesseg.formats.zarr.zarr_array import Axes, ZarrArray, metadata_files
from tilesseg.formats.zarr.zarr_hierarchy import Hierarchy, Member, coordinates, find_members, open_node, sibling
from tilesseg.raster.grid import IDENTITY, Grid

_NO_NAMES = {"", "image", "data", "array", "band_data", "raster", "__xarray_dataarray_variable__"}


def open_geozarr(paths: Sequence[str], opening: Opening) -> Image:
    """Open one Zarr array or group; see `formats.open_source`.

    Raises:
        SourceError: missing, not an image, of a data type that cannot be segmented, or with a georeference that cannot
            be read.
    """
    opening.check_numbers(paths[0])
    opening.refuse(paths[0], "series", "level", "t", "z", why="this Zarr is not an OME-Zarr")
    path = os.path.abspath(paths[0])
    node = open_node(path)
    if isinstance(node.attrs.get("tilesseg"), dict):
        reader = staged_reader(Path(path))
    else:
        reader = _assembled(path, find_members(path, node))
    reader = _rescaled(reader, opening.scale, opening.offset)
    return Image.of(reader if opening.resolution is None else _resized(reader, opening.resolution))


def _assembled(path: str, hierarchy: Hierarchy) -> ZarrReader:
    axes = [_axes(member) for member in hierarchy.members]
    layers = [_layer(member, member_axes) for member, member_axes in zip(hierarchy.members, axes, strict=True)]
    shapes = {member.path: layer.array.shape for member, layer in zip(hierarchy.members, layers, strict=True)}
    if len(set(shapes.values())) > 1:
        raise SourceError(f"{path}: arrays of different shapes, {shapes}; open one of them")
    grid, notes = _grid(hierarchy.members[0], axes[0], layers[0].array.shape)
    bands = [
        band
        for number, (member, layer) in enumerate(zip(hierarchy.members, layers, strict=True))
        for band in _bands(number, member, layer, alone=len(layers) == 1)
    ]
    files = tuple(dict.fromkeys(file for folder in hierarchy.folders for file in metadata_files(folder)))
    facts = ImageFacts(path, grid, tuple(bands), files, notes=notes)
    overviews = tuple(
        ZarrReader(replace(facts, grid=Grid(*level[0].array.shape)), level) for level in _levels(hierarchy, axes)
    )
    return ZarrReader(facts, tuple(layers), overviews=overviews)


def _axes(member: Member) -> Axes:
    dtype = np.dtype(member.array.dtype)
    if dtype.name not in DTYPES:
        raise SourceError(f"{member.path}: data type {dtype.name}, not one of {', '.join(DTYPES)}; convert it first")
    if member.array.ndim < 2 or 0 in member.array.shape:
        raise SourceError(f"{member.path}: shape {member.array.shape}, not (y, x) or (channel, y, x); store it so")
    spatial = member.attributes.get("spatial:dimensions")
    return conventions.find_axes(member.path, member.array.shape, member.dimensions, spatial)


def _layer(member: Member, axes: Axes) -> ZarrLayer:
    return ZarrLayer(ZarrArray(member.path, axes), conventions.find_nodata(member.path, member.attributes))


def _levels(hierarchy: Hierarchy, axes: Sequence[Axes]) -> tuple[tuple[ZarrLayer, ...], ...]:
    levels = [tuple(_layer(member, a) for member, a in zip(level, axes, strict=True)) for level in hierarchy.levels]
    return tuple(level for level in levels if len({layer.array.shape for layer in level}) == 1)


def _bands(number: int, member: Member, layer: ZarrLayer, *, alone: bool) -> list[ImageBand]:
    scale, offset = conventions.find_scaling(member.path, member.attributes)
    count = layer.array.channels
    names: Sequence[str | None]
    if layer.array.axes.channel is None:
        own = not alone or (member.name.lower() not in _NO_NAMES and not member.name.isdigit())
        names = [None if member.name.endswith(".zarr") or not own else member.name]
    else:
        listed = coordinates(member, layer.array.axes.channel)
        called = [str(name) for name in listed] if listed is not None and listed.dtype.kind in "UOT" else None
        names = conventions.find_names(member.attributes, called, count)
    dtype, file = str(layer.array.dtype), layer.array.path
    return [ImageBand(name, dtype, file, scale, offset, number, k, mask=number) for k, name in enumerate(names)]


def _grid(member: Member, axes: Axes, shape: tuple[int, int]) -> tuple[Grid, tuple[str, ...]]:
    """Grid of the image, and sentences on unusual facts about it."""
    mapping = sibling(member, str(member.attributes.get("grid_mapping") or "spatial_ref"))
    grid = conventions.find_grid(member.path, shape, member.attributes, mapping)
    rounded = None
    if grid is None:
        y, x = coordinates(member, axes.y), coordinates(member, axes.x)
        grid, rounded = conventions.grid_from_coordinates(member.path, shape, y, x)
    grid, note = conventions.placed(member.path, grid, member.attributes, mapping)
    plain = "no transform: pixel coordinates are used" if grid.transform == IDENTITY else None
    return grid, tuple(each for each in (plain, rounded, note) if each)


def _rescaled(reader: ZarrReader, scale: float | None, offset: float | None) -> ZarrReader:
    """The same image, with the user's scale and offset in place of those of its bands."""
    changes: dict[str, Any] = {}
    if scale is not None:
        changes["scale"] = scale
    if offset is not None:
        changes["offset"] = offset
    facts = replace(reader.facts, bands=tuple(replace(band, **changes) for band in reader.facts.bands))
    overviews = tuple(replace(level, facts=replace(level.facts, bands=facts.bands)) for level in reader.overviews)
    return replace(reader, facts=facts, overviews=overviews)


def _resized(reader: ZarrReader, resolution: float) -> ZarrReader:
    """The same image on pixels of another size, from its first pixel's corner."""
    grid = reader.facts.grid
    y, x = (exact_ratio(resolution / side) for side in grid.resolution)
    height, width = output_shape(grid.shape, (y, x))
    a, b, c, d, e, f = grid.transform
    resized = replace(grid, height=height, width=width, transform=(a * x, b * y, c, d * x, e * y, f))
    bands = tuple(replace(band, resampled=True) for band in reader.facts.bands)
    return replace(reader, facts=replace(reader.facts, grid=resized, bands=bands), step=(y, x))
