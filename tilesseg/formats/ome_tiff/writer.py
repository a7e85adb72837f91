"""Masks and scores as pyramidal OME-TIFF: tiles, SubIFDs, physical size and class names, for readers such as QuPath.

DEFLATE, because every reader knows it; no palette, because readers of microscopy show the colours of one as channels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import tifffile

from tilesseg.errors import FormatError, cannot
from tilesseg.formats.ome_tiff.ome_xml import Note, ome_xml, physical
from tilesseg.formats.writer import FAILED_CLASS, Mask, MaskLevel, Scores, at_image
from tilesseg.formats.writing.publish import growing, publish, refusing
from tilesseg.formats.writing.tiff_tiles import SIDE, Pyramid, Spool, TiledLayer, copied
from tilesseg.raster.grid import Grid
from tilesseg.raster.labels import FAILED, NODATA, SCORE_STEPS
from tilesseg.raster.pyramid import HALVES, halve_mean, level_shapes

NAMESPACE = "tilesseg:"
CLASSIC_BYTES = 2 * 2**30
"""Size before compression above which a file is a BigTIFF; a classic TIFF has at most 4 GiB."""


def write_ome_tiff(
    mask: Mask,
    path: Path,
    *,
    overviews: Literal["mode", "nearest"] = "mode",
    resolution: Literal["model", "image"] = "model",
    threads: int = 1,
) -> tuple[Path, ...]:
    """Write `path` as an OME-TIFF of labels in one channel, with its pyramid.

    Memory: a few strips of 512 rows. Disk: unless levels are stored already, their compressed tiles are kept in a
    temporary file beside the target.

    Args:
        mask: the mask, which is read once, in strips of 512 rows. Stored levels are copied if `overviews` is mode.
        path: the target; its folder must exist.
        overviews: function that makes a level from the level below, see `raster.pyramid`.
        resolution: whether the product has the pixels of the mask, or those of the image, see `at_image`.
        threads: number of threads that read and compress.

    Raises:
        FormatError: the file cannot be written, or the written file has holes; nothing is left behind.
    """
    mask = at_image(mask) if resolution == "image" else mask
    layer = TiledLayer(mask.grid.shape, mask.read, HALVES[overviews])
    levels = mask.levels if overviews == "mode" else ()
    return _write(path, [layer], levels, _xml(path, mask, ["mask"], _meanings(mask)), mask.grid, threads)


def write_ome_tiff_scores(scores: Scores, path: Path, *, threads: int = 1) -> tuple[Path, ...]:
    """Write `path` as an OME-TIFF of scores with a channel for each class, 0–250 standing for 0–1.

    One class is read at a time; memory and disk as for `write_ome_tiff`. A level is the mean of the level below,
    without 254 and 255.

    Args:
        scores: the scores, of which each class is read once, in strips of 512 rows.
        path: the target; its folder must exist.
        threads: number of threads that read and compress.

    Raises:
        FormatError: the file cannot be written, or the written file has holes; nothing is left behind.
    """
    layers = [
        TiledLayer(scores.grid.shape, partial(scores.read, number), halve_mean) for number in range(len(scores.classes))
    ]
    values = {"0": "0", str(SCORE_STEPS): "1", str(FAILED): FAILED_CLASS.name, str(NODATA): "nodata"}
    xml = _xml(path, scores, scores.classes, [Note(f"{NAMESPACE}scores", values)])
    return _write(path, layers, (), xml, scores.grid, threads)


def _xml(path: Path, content: Mask | Scores, channels: Sequence[str], meanings: Iterable[Note]) -> str:
    notes = [*meanings, Note(f"{NAMESPACE}provenance", content.provenance), *_place_on_earth(content.grid)]
    name = re.sub(r"(\.ome)?\.tiff?$", "", path.name, flags=re.IGNORECASE)
    return ome_xml(name, content.grid.shape, channels, physical(content.grid, content.image), notes)


def _meanings(mask: Mask) -> Iterator[Note]:
    """Notes with the name and colour of each label."""
    for label, meant in [*enumerate(mask.classes), (FAILED, FAILED_CLASS)]:
        yield Note(f"{NAMESPACE}class", {"label": str(label), "name": meant.name, "colour": meant.colour})
    yield Note(f"{NAMESPACE}class", {"label": str(NODATA), "name": "nodata"})


def _place_on_earth(grid: Grid) -> Iterator[Note]:
    """Note with the CRS and transform of a georeferenced grid, for which OME has no elements."""
    if grid.crs is not None:
        transform = " ".join(repr(float(number)) for number in grid.transform)
        yield Note(f"{NAMESPACE}georeference", {"crs": grid.crs, "transform": transform})


def _write(
    path: Path, layers: Sequence[TiledLayer], stored: Sequence[MaskLevel], xml: str, grid: Grid, threads: int
) -> tuple[Path, ...]:
    with growing(path) as folder, refusing(path), ThreadPoolExecutor(threads, "tilesseg") as pool:
        result = folder / path.name
        with (folder / ".levels").open("w+b") as file:
            tiles = _tiles(layers, stored, file, pool)
            _write_levels(result, [((len(layers), *shape), data) for shape, data in tiles], xml, grid)
        _refuse_holes(result, [(len(layers), *shape) for shape, _ in tiles])
        return publish(folder, path)


def _tiles(
    layers: Sequence[TiledLayer], stored: Sequence[MaskLevel], file: IO[bytes], pool: Executor
) -> list[tuple[tuple[int, int], Iterable[bytes]]]:
    """Shape and compressed tiles of every level, to be consumed one level after the other."""
    shapes = level_shapes(layers[0].shape)
    if stored:
        levels = [MaskLevel(shapes[0], layers[0].read), *stored]  # of the only layer: stored levels are those of a mask
        return [(level.shape, copied(level, pool)) for level in levels]
    spools = [Spool(file, pool) for _ in shapes[1:]]
    return list(zip(shapes, [Pyramid(layers, spools, pool).finest(), *spools], strict=True))


def _write_levels(
    result: Path, levels: Sequence[tuple[tuple[int, int, int], Iterable[bytes]]], xml: str, grid: Grid
) -> None:
    """Write tiles level after level: those of the finest as images, the others as SubIFDs of these."""
    big = sum(int(np.prod(shape)) for shape, _ in levels) > CLASSIC_BYTES
    first: Mapping[str, Any] = {"subifds": len(levels) - 1, "description": xml.encode("ascii"), **_density(grid)}
    with tifffile.TiffWriter(result, bigtiff=big, ome=False) as tiff:
        for number, (shape, tiles) in enumerate(levels):
            tiff.write(
                iter(tiles), shape=shape, dtype="uint8", photometric="minisblack", tile=(SIDE, SIDE),
                compression="zlib", metadata=None, software="tilesseg", **({"subfiletype": 1} if number else first),
            )  # fmt: skip


def _density(grid: Grid) -> dict[str, Any]:
    """Resolution in pixels per centimetre, for readers that do not know OME."""
    size = physical(grid, None).size
    return {} if size is None else {"resolution": (1e4 / size[1], 1e4 / size[0]), "resolutionunit": "CENTIMETER"}


def _refuse_holes(result: Path, shapes: Sequence[tuple[int, int, int]]) -> None:
    """Read the levels of the written file back, and check that each of their tiles is stored whole.

    Raises:
        FormatError: a level or a tile is missing.
    """
    size = result.stat().st_size
    with tifffile.TiffFile(result) as tiff:
        levels = [[page.aspage() for page in level.pages if page is not None] for level in tiff.series[0].levels]
        written = [(len(pages), pages[0].imagelength, pages[0].imagewidth) for pages in levels]
        if not tiff.is_ome or written != list(shapes):
            cause = "its levels are not those of the mask"
            raise FormatError(cannot(f"write {result.name}", cause, "check whether the disk is full"))
        for page in (page for pages in levels for page in pages):
            counts, offsets = np.asarray(page.databytecounts), np.asarray(page.dataoffsets)
            if not counts.all() or (offsets + counts).max() > size:
                raise FormatError(cannot(f"write {result.name}", "tiles are missing", "check whether the disk is full"))
