"""Files of a delivery by its own metadata: the bands that they hold, their scale and offset, and their nodata value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.band_stack import find_finest, misfit
from tilesseg.formats.geotiff.deliveries.product_rules import (
    Pair,
    ProductRule,
    contradiction,
    same_scaling,
    settle,
)
from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.geotiff.raster_properties import open_raster
from tilesseg.formats.reading.validity import AlphaUse

NEVER_THE_GRID = ("pan",)
"""Names of a band finer than all others, whose grid is never the image's: each pixel would become four."""


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One file of a delivery. Where a field is None, the file's own tag is used."""

    path: str
    names: tuple[str | None, ...]
    """Names of its bands, in order; empty where the file's own names are used."""
    scales: tuple[float | None, ...]
    offsets: tuple[float | None, ...]
    nodata: float | None = None
    key: str = ""
    """Name of a band without a name in the metadata (`names` is empty then) and in the file."""
    rule: ProductRule | None = None
    """Rule of the product, which speaks of bands of integers."""


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """The files of a delivery that hold measured bands."""

    metadata: str
    """Path of the metadata, which belong to the scene's identity."""
    files: tuple[SceneFile, ...]
    notes: tuple[str, ...] = ()


def single(
    path: str, name: str, *, scale: float | None, offset: float | None, nodata: float | None = None
) -> SceneFile:
    """A file of one band."""
    return SceneFile(path, (name,), (scale,), (offset,), nodata)


def open_scene(
    scene: SceneFiles, alpha: AlphaUse | None = None
) -> tuple[list[RasterFile], list[SceneFile], RasterFile]:
    """Open the files of a delivery; a file that does not lie on the others is left out, with a note.

    Args:
        scene: its files, by its metadata.
        alpha: what a band that is tagged alpha is, see `validity.choose_mask`.

    Returns:
        The opened files, the metadata of each, and the file whose grid is the image's.

    Raises:
        SourceError: a file cannot be read, or no file fits.
    """
    files = [open_raster(entry.path, alpha) for entry in scene.files]
    grids = [file for file, entry in zip(files, scene.files, strict=True) if entry.names != NEVER_THE_GRID]
    finest = find_finest(grids or files)
    named = [_named(file, entry) for file, entry in zip(files, scene.files, strict=True)]
    kept: list[tuple[RasterFile, SceneFile]] = []
    notes = list(scene.notes)
    for file, entry in zip(files, named, strict=True):
        problem = _problem(file, entry, finest)
        if problem is None:
            kept.append((_with_nodata(file, entry, notes), _scaled(file, entry, notes)))
        else:
            notes.append(f"{', '.join(map(str, entry.names))} is left out: {problem}")
    if not kept:
        raise SourceError(f"{scene.metadata}: none of its files fits ({notes[-1]}); give files that match as a list")
    first, entry = kept[0]
    notes = list(dict.fromkeys(notes))  # what is true of all bands is said once
    facts = replace(first.facts, files=(*first.facts.files, scene.metadata), notes=(*first.facts.notes, *notes))
    kept[0] = RasterFile(first.path, facts), entry
    reference = next((file for file, _ in kept if file.path == finest.path), kept[0][0])
    return [file for file, _ in kept], [entry for _, entry in kept], reference


def _named(file: RasterFile, entry: SceneFile) -> SceneFile:
    """Metadata of a file, with the file's own names for its bands where the metadata have none."""
    if entry.names:
        return entry
    names = file.facts.names
    if len(names) == 1:
        names = (names[0] or entry.key,)
    return replace(entry, names=names, scales=_each(entry.scales, len(names)), offsets=_each(entry.offsets, len(names)))


def _each(numbers: tuple[float | None, ...], count: int) -> tuple[float | None, ...]:
    """One number for each band, from a number for each or a single number."""
    if len(numbers) == count:
        return numbers
    return numbers * count if len(numbers) == 1 else (None,) * count


def _problem(file: RasterFile, entry: SceneFile, finest: RasterFile) -> str | None:
    if len(entry.names) != len(file.facts.bands):
        return f"{file.path} has {len(file.facts.bands)} bands, and its metadata names {len(entry.names)}"
    return misfit(file, finest)


def _scaled(file: RasterFile, entry: SceneFile, notes: list[str]) -> SceneFile:
    """The metadata of a file with the scale and offset that count; contradictions are noted."""
    pairs = [_scaling(file, entry, index, notes) for index in range(len(entry.names))]
    scales, offsets = zip(*((None, None) if pair is None else pair for pair in pairs), strict=True)
    return replace(entry, scales=scales, offsets=offsets)


def _scaling(file: RasterFile, entry: SceneFile, index: int, notes: list[str]) -> Pair | None:
    """Scale and offset of a band by its metadata and its product's rule; None means the file's own tags."""
    tags = file.facts.scales[index], file.facts.offsets[index]
    own = None if tags == (1.0, 0.0) else tags
    scale, offset = entry.scales[index], entry.offsets[index]
    stated = own if scale is None and offset is None else (_first(scale, tags[0]), _first(offset, tags[1]))
    taken, note = stated, ""
    if entry.rule is not None and np.dtype(file.facts.dtypes[index]).kind != "f":
        taken, note = settle(entry.rule, entry.names[index], stated)
    if own and stated and taken and not same_scaling(own, stated):
        notes.append(contradiction("the metadata of the delivery", "the files' own tags", stated, own, taken))
    notes += [note] if note else []
    return taken


def _first(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number


def _with_nodata(file: RasterFile, entry: SceneFile, notes: list[str]) -> RasterFile:
    """The file with the nodata value that its metadata states, where it has none of its own."""
    if entry.nodata is None or file.facts.mask != "none" or file.facts.alpha:
        return file
    if np.isnan(entry.nodata):
        return file  # NaN is nodata anyway
    if any(np.dtype(dtype).kind == "f" for dtype in file.facts.dtypes):
        notes.append(f"{file.path}: nodata {entry.nodata:g} of its metadata is not used, for its values are floats")
        return file
    count = len(entry.names)
    facts = replace(file.facts, mask="nodata", nodata=(entry.nodata,) * count, gaps=(True,) * count)
    return RasterFile(file.path, facts)


def in_order(files: Sequence[SceneFile], names: Sequence[str]) -> tuple[SceneFile, ...]:
    """Files by the place of their band in a list of names."""
    return tuple(sorted(files, key=lambda file: names.index(str(file.names[0]))))
