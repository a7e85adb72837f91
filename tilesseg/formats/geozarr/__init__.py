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
from tilesseg.formats.reading.band_planes import ImageBand
from tilesseg.formats.reading.image import Image, ImageFacts
from tilesseg.formats.reading.open_options import Missing, Opening
from tilesseg.formats.reading.resample import exact_ratio, output_shape
from tilesseg.formats.reading.stated_size import ground_doubt
from tilesseg.formats.reading.validity import DTYPES
from tilesseg.formats.zarr.missing_chunks import refuse_empty
from tilesseg.formats.zarr.source import ZarrLayer, ZarrReader
from tilesseg.formats.zarr.zarr_array import Axes, ZarrArray, metadata_files
from tilesseg.formats.zarr.zarr_hierarchy import Hierarchy, Member, coordinates, find_members, open_node, sibling
from tilesseg.formats.zarr.zipped import file_of, zarr_root
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
    opening.refuse(paths[0], "alpha", why="a Zarr tags no band as alpha")
    path = zarr_root(os.path.abspath(paths[0]))
    node = open_node(path)
    if isinstance(node.attrs.get("tilesseg"), dict):
        reader = staged_reader(Path(path))
    else:
        reader = _assembled(path, find_members(path, node), opening.missing)
    reader = _rescaled(reader, opening.scale, opening.offset)
    return Image.of(reader if opening.resolution is None else _resized(reader, opening.resolution))


def _assembled(path: str, hierarchy: Hierarchy, missing: Missing | None) -> ZarrReader:
    absent = missing == "nodata"
    axes = [_axes(member) for member in hierarchy.members]
    arrays = [_layer(member, member_axes) for member, member_axes in zip(hierarchy.members, axes, strict=True)]
    shapes = {member.path: layer.array.shape for member, layer in zip(hierarchy.members, arrays, strict=True)}
    if len(set(shapes.values())) > 1:
        raise SourceError(f"{path}: arrays of different shapes, {shapes}; open one of them")
    grid, notes = _grid(hierarchy.members[0], axes[0], arrays[0].array.shape)
    bands: list[ImageBand] = []
    layers: list[ZarrLayer] = []
    copies = []
    for layer in arrays:
        refuse_empty(layer.array, missing)
    for member, layer in zip(hierarchy.members, arrays, strict=True):
        together = _together(layer) if absent else layer.array.channels
        bands += _bands(member, layer, alone=len(arrays) == 1, layers=len(layers), together=together, before=len(bands))
        copies.append(-(-layer.array.channels // together))
        layers += [replace(layer, absent=absent)] * copies[-1]
    found = (file for folder in hierarchy.folders for file in metadata_files(folder))
    files = tuple(dict.fromkeys(map(file_of, found)))
    facts = ImageFacts(path, grid, tuple(bands), files, notes=notes)
    overviews = []
    for level in _levels(hierarchy, axes):
        own = [replace(layer, absent=absent) for layer, count in zip(level, copies, strict=True) for _ in range(count)]
        overviews.append(ZarrReader(replace(facts, grid=Grid(*level[0].array.shape)), tuple(own)))
    return ZarrReader(facts, tuple(layers), overviews=tuple(overviews), missing=missing)


def _together(layer: ZarrLayer) -> int:
    """Number of channels in one chunk: they are stored, or absent, together."""
    axis = layer.array.axes.channel
    return 1 if axis is None else int(layer.array.array.chunks[axis])


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


def _bands(
    member: Member, layer: ZarrLayer, *, alone: bool, layers: int, together: int, before: int
) -> list[ImageBand]:
    """Bands of an array.

    Args:
        member: the array, as its hierarchy describes it.
        layer: the same, opened.
        alone: whether it is the only array of the image.
        layers: number of layers before those of this array.
        together: number of channels in one layer.
        before: number of bands before those of this array.
    """
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
    bands = []
    for k, name in enumerate(names):
        number, gaps = layers + k // together, None if layer.nodata is None else before + k
        bands.append(
            ImageBand(name, dtype, file, scale, offset, number, k, mask=number, gaps=gaps, nodata=layer.nodata)
        )
    return bands


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
    return grid, tuple(each for each in (plain, rounded, note, ground_doubt(grid)) if each)


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
