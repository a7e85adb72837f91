"""An OME-Zarr image as a source: one plane of it, with its channels as bands, and its trusted levels.

A chunk that is not stored holds the array's fill value, or nodata where the user says so; see `missing_chunks`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import zarr

from tilesseg.errors import SourceError
from tilesseg.formats.geozarr import conventions
from tilesseg.formats.ome_zarr.level_grids import displaced, finest_grid, level_grid, misfit
from tilesseg.formats.ome_zarr.metadata import Kind, Multiscale, channel_names
from tilesseg.formats.ome_zarr.series import Chosen, choose_image
from tilesseg.formats.reading.band_planes import ImageBand
from tilesseg.formats.reading.image import Image, ImageFacts
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.validity import DTYPES
from tilesseg.formats.zarr.missing_chunks import refuse_empty
from tilesseg.formats.zarr.source import ZarrLayer, ZarrReader
from tilesseg.formats.zarr.zarr_array import Axes, ZarrArray, metadata_files
from tilesseg.formats.zarr.zarr_hierarchy import open_node
from tilesseg.formats.zarr.zipped import file_of, zarr_root
from tilesseg.raster.grid import Grid


def open_ome_zarr(paths: Sequence[str], opening: Opening) -> Image:
    """Open an image of an OME-Zarr 0.4 or 0.5; see `formats.open_source`.

    Args:
        paths: the group of the image, or of a collection by bioformats2raw.
        opening: `series` chooses the image, `level` the level, `t` and `z` the plane.

    Raises:
        SourceError: no image, invalid metadata, a data type that cannot be segmented, or no stored chunk; or a time,
            plane, level or image has to be chosen, or the chosen one is missing.
    """
    path = zarr_root(os.path.abspath(paths[0]))
    opening.check_numbers(path)
    opening.refuse(path, "alpha", why="a Zarr tags no band as alpha")
    chosen = choose_image(path, opening.series)
    count = len(chosen.multiscale.datasets)
    level = opening.level or 0
    if not 0 <= level < count:
        raise SourceError(f"{path}: level {level} is requested, the image has 0 to {count - 1}; choose one")
    first = _array(chosen, 0)
    attributes = {**chosen.attributes, **first.attrs.asdict()}
    finest, notes, properties = finest_grid(chosen.path, chosen.multiscale, _plane(chosen, first), attributes)
    reader = _level(chosen, level, finest, opening)
    coarser, left = _coarser(chosen, level, reader, finest, opening)
    notes = (*chosen.notes, *notes, *reader.facts.notes, *left)
    facts = replace(reader.facts, notes=tuple(dict.fromkeys(notes)), properties=properties)
    return Image.of(replace(reader, facts=facts, levels=coarser))


def _coarser(
    chosen: Chosen, level: int, reader: ZarrReader, finest: Grid, opening: Opening
) -> tuple[tuple[ZarrReader, ...], list[str]]:
    """Levels from which pixels may be computed, and notes on the others."""
    levels: list[ZarrReader] = []
    notes: list[str] = []
    for number in range(level + 1, len(chosen.multiscale.datasets)):
        name = chosen.multiscale.datasets[number].path
        try:
            one = _level(chosen, number, finest, opening)
            why = _unfit(chosen, number, one, reader, levels)
        except SourceError as error:
            why = str(error)
        if why is None:
            levels.append(one)
        else:
            notes.append(f"level {name} is left out: {why}")
    return tuple(levels), notes


def _unfit(chosen: Chosen, number: int, one: ZarrReader, reader: ZarrReader, finer: Sequence[ZarrReader]) -> str | None:
    """Reason why a level cannot replace the level that is read; None where it can."""
    own, above = one.facts.grid, (finer[-1] if finer else reader).facts.grid
    if own.resolution[0] <= above.resolution[0] or own.resolution[1] <= above.resolution[1]:
        return "its pixels are not larger than those of the level before"
    if [band.dtype for band in one.facts.bands] != [band.dtype for band in reader.facts.bands]:
        return "its channels or its data type are others"
    theirs, ours = (side.layers[0].array.array.shape for side in (one, reader))
    axes = chosen.multiscale.axes
    if any(theirs[k] != ours[k] for k, axis in enumerate(axes) if axis.kind not in ("y", "x", "c")):
        return f"of {theirs}, and the one that is read of {ours}, so that its planes are others"
    return misfit(chosen.multiscale, number, own.shape, (reader.facts.native or reader.facts.grid).shape)


def _level(chosen: Chosen, number: int, finest: Grid, opening: Opening) -> ZarrReader:
    array, multiscale = _array(chosen, number), chosen.multiscale
    path = _path(chosen, number)
    opened = ZarrArray(path, _axes(path, multiscale, array.shape, opening))
    refuse_empty(opened, opening.missing)
    layers, bands, note = _bands(chosen, opened, array, opening)
    shape = _plane(chosen, array)
    place = displaced(multiscale, number)
    facts = ImageFacts(
        chosen.path,
        finest if number == 0 else level_grid(finest, multiscale, number, shape),
        bands,
        files=_files((*chosen.folders, path)),
        notes=tuple(one for one in (note, place) if one),
        native=finest,
    )
    return ZarrReader(facts, layers, missing=opening.missing)


def _files(folders: Sequence[str]) -> tuple[str, ...]:
    """The files of metadata in some folders; of a zip file, that file."""
    files = (file for folder in dict.fromkeys(folders) for file in metadata_files(folder))
    return tuple(dict.fromkeys(map(file_of, files)))


def _array(chosen: Chosen, number: int) -> zarr.Array[Any]:
    path, axes = _path(chosen, number), chosen.multiscale.axes
    node = open_node(path)
    if not isinstance(node, zarr.Array):
        raise SourceError(f"{path}: a group, not an array, as the image's datasets have it; correct them")
    if node.ndim != len(axes) or 0 in node.shape:
        names = ", ".join(axis.name for axis in axes)
        raise SourceError(f"{path}: shape {node.shape} does not fit the axes {names}; write the image again")
    if np.dtype(node.dtype).name not in DTYPES:
        name = np.dtype(node.dtype).name
        raise SourceError(f"{path}: data type {name}, not one of {', '.join(DTYPES)}; convert it first")
    return node


def _path(chosen: Chosen, number: int) -> str:
    return os.path.join(chosen.path, chosen.multiscale.datasets[number].path)


def _plane(chosen: Chosen, array: zarr.Array[Any]) -> tuple[int, int]:
    y, x = chosen.multiscale.axis("y"), chosen.multiscale.axis("x")
    assert y is not None and x is not None
    return int(array.shape[y]), int(array.shape[x])


def _axes(path: str, multiscale: Multiscale, shape: Sequence[int], opening: Opening) -> Axes:
    """Numbers of the axes, and the time and the plane that are read."""
    fixed = []
    for number, (axis, length) in enumerate(zip(multiscale.axes, shape, strict=True)):
        if axis.kind == "other" and length > 1:
            raise SourceError(f"{path}: axis {axis.name} has a length of {length}, not 1; store one step alone")
        if axis.kind in ("t", "z"):
            fixed.append((number, _step(path, axis.kind, length, getattr(opening, axis.kind))))
    kinds: tuple[Kind, Kind] = ("t", "z")
    for kind in kinds:
        if multiscale.axis(kind) is None:
            _step(path, kind, 1, getattr(opening, kind))
    y, x = multiscale.axis("y"), multiscale.axis("x")
    assert y is not None and x is not None
    return Axes(y, x, multiscale.axis("c"), tuple(one for one in fixed if shape[one[0]] > 1))


def _step(path: str, kind: str, length: int, requested: int | None) -> int:
    if requested is None and length > 1:
        raise SourceError(
            f"{path}: {kind} has a length of {length}, of which 1 is read; give {kind}, 0 to {length - 1}"
        )
    if requested is not None and not 0 <= requested < length:
        raise SourceError(f"{path}: {kind} {requested} is requested, the image has 0 to {length - 1}; choose one")
    return requested or 0


def _bands(
    chosen: Chosen, array: ZarrArray, opened: zarr.Array[Any], opening: Opening
) -> tuple[tuple[ZarrLayer, ...], tuple[ImageBand, ...], str | None]:
    """Layers and bands: channels of one chunk are a layer, because they are stored, or absent, together."""
    attributes: Mapping[str, Any] = opened.attrs.asdict()
    together = 1 if array.axes.channel is None else opened.chunks[array.axes.channel]
    nodata = conventions.find_nodata(array.path, attributes)
    names, note = channel_names(chosen.attributes, array.channels)
    scale = 1.0 if opening.scale is None else opening.scale
    offset = 0.0 if opening.offset is None else opening.offset
    bands = tuple(
        ImageBand(
            name,
            str(array.dtype),
            array.path,
            scale,
            offset,
            layer=k // together,
            index=k,
            mask=k // together,
            gaps=None if nodata is None else k,
            nodata=nodata,
        )
        for k, name in enumerate(names)
    )
    layers = (ZarrLayer(array, nodata, absent=opening.missing == "nodata"),) * (bands[-1].layer + 1)
    return layers, bands, note
