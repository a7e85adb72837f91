"""What a product's own metadata says of its files: which bands they hold, in which unit, and which value is nodata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.band_stack import find_finest, misfit
from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.geotiff.raster_properties import open_raster

NEVER_THE_GRID = ("pan",)
"""Bands finer than all others: one nobody asked for must not make four pixels of each one."""


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One file of a product. Where something is None, the file's own tag counts."""

    path: str
    names: tuple[str | None, ...]
    """Of its bands, in order; empty where the file's own count."""
    scales: tuple[float | None, ...]
    offsets: tuple[float | None, ...]
    nodata: float | None = None
    key: str = ""
    """What a band is called of which neither the metadata (`names` is empty then) nor the file says a name."""


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """The files of a product that hold measured bands."""

    metadata: str
    """The file that says so: it belongs to the scene's identity."""
    files: tuple[SceneFile, ...]
    notes: tuple[str, ...] = ()


def single(
    path: str, name: str, *, scale: float | None, offset: float | None, nodata: float | None = None
) -> SceneFile:
    """A file of one band."""
    return SceneFile(path, (name,), (scale,), (offset,), nodata)


def open_scene(scene: SceneFiles) -> tuple[list[RasterFile], list[SceneFile], RasterFile]:
    """Open the files of a product; those that do not lie on the others are left out, which is noted.

    Returns:
        The opened files, what the metadata says of each, and the one whose grid is the image's.

    Raises:
        SourceError: a file that cannot be read, or none that fits.
    """
    files = [open_raster(told.path) for told in scene.files]
    grids = [file for file, told in zip(files, scene.files, strict=True) if told.names != NEVER_THE_GRID]
    finest = find_finest(grids or files)
    named = [_named(file, told) for file, told in zip(files, scene.files, strict=True)]
    kept: list[tuple[RasterFile, SceneFile]] = []
    notes = list(scene.notes)
    for file, told in zip(files, named, strict=True):
        problem = _problem(file, told, finest)
        if problem is None:
            kept.append((_told(file, told, notes), told))
        else:
            notes.append(f"{', '.join(map(str, told.names))} is left out: {problem}")
    if not kept:
        raise SourceError(f"{scene.metadata}: no file fits it; {notes[-1]}")
    first, told = kept[0]
    facts = replace(first.facts, files=(*first.facts.files, scene.metadata), notes=(*first.facts.notes, *notes))
    kept[0] = RasterFile(first.path, facts), told
    reference = next((file for file, _ in kept if file.path == finest.path), kept[0][0])
    return [file for file, _ in kept], [told for _, told in kept], reference


def _named(file: RasterFile, told: SceneFile) -> SceneFile:
    """What is told of a file, its bands called as the file says where nothing else does."""
    if told.names:
        return told
    names = file.facts.names
    if len(names) == 1:
        names = (names[0] or told.key,)
    return replace(told, names=names, scales=_each(told.scales, len(names)), offsets=_each(told.offsets, len(names)))


def _each(numbers: tuple[float | None, ...], count: int) -> tuple[float | None, ...]:
    """One number for each band: said of each, or once for all."""
    if len(numbers) == count:
        return numbers
    return numbers * count if len(numbers) == 1 else (None,) * count


def _problem(file: RasterFile, told: SceneFile, finest: RasterFile) -> str | None:
    if len(told.names) != len(file.facts.bands):
        return f"{file.path} has {len(file.facts.bands)} bands, and its metadata names {len(told.names)}"
    return misfit(file, finest)


def _told(file: RasterFile, told: SceneFile, notes: list[str]) -> RasterFile:
    """The file with the nodata value that its metadata states, where it has none of its own."""
    if told.nodata is None or file.facts.mask != "none":
        return file
    if np.isnan(told.nodata):
        return file  # NaN is nodata anyway
    if any(np.dtype(dtype).kind == "f" for dtype in file.facts.dtypes):
        notes.append(f"{file.path}: nodata {told.nodata:g} of its metadata is not used, for its values are floats")
        return file
    return RasterFile(file.path, replace(file.facts, mask="nodata", nodata=(told.nodata,) * len(told.names)))


def in_order(files: Sequence[SceneFile], names: Sequence[str]) -> tuple[SceneFile, ...]:
    """Files by the place of their band in a list of names."""
    return tuple(sorted(files, key=lambda file: names.index(str(file.names[0]))))
