"""Raster files as images, by GDAL: GeoTIFF, BigTIFF, COG, VRT, JPEG 2000; one file, or several that make one image.

A delivery (Sentinel-2 SAFE, Landsat, STAC item) is several files, too; its metadata name their bands. GDAL decodes the
files (compression: `raster_file`); a file of one strip is decoded piece by piece in `strip_stream`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from tilesseg.doubts import code_of
from tilesseg.errors import SourceError, cannot
from tilesseg.formats.geotiff.band_names import PALETTE, file_names, natural, own_part
from tilesseg.formats.geotiff.band_stack import stack
from tilesseg.formats.geotiff.deliveries.delivery_files import SceneFile, SceneFiles, open_scene
from tilesseg.formats.geotiff.deliveries.landsat import find_landsat
from tilesseg.formats.geotiff.deliveries.product_rules import CODE
from tilesseg.formats.geotiff.deliveries.sentinel2 import find_safe
from tilesseg.formats.geotiff.deliveries.stac_item import find_stac
from tilesseg.formats.geotiff.geotiff_description import source_notes
from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.geotiff.raster_properties import is_remote, open_raster
from tilesseg.formats.geotiff.source import GeoTiffReader
from tilesseg.formats.geotiff.tiff_directories import choose_directory
from tilesseg.formats.reading.band_planes import ImageBand
from tilesseg.formats.reading.image import Image, ImageFacts
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.source import AlphaBand

_FOLDER_SUFFIXES = (".tif", ".tiff", ".jp2")


def open_geotiff(paths: Sequence[str], opening: Opening) -> Image:
    """Open one file, a folder of files, a product, or a list of files, as one image; see `formats.open_source`.

    Raises:
        SourceError: missing, not an image, of a data type that cannot be segmented, or files that do not fit together.
    """
    opening.check_numbers(paths[0])
    opening.refuse(paths[0], "level", "t", "z", why="a raster has one image of one level")
    opening.refuse(paths[0], "missing", why="only a Zarr leaves out chunks")
    scene = _find_scene(paths)
    chosen: tuple[str, ...] = ()
    if scene is not None:
        opening.refuse(paths[0], "series", why="a delivery is one image")
        files, scene_files, finest = open_scene(scene, opening.alpha)
        grid, layers = stack(files, opening.resolution, finest=finest)
    else:
        names, chosen = _images(_expand(paths), opening)
        files = [open_raster(name, opening.alpha) for name in names]
        scene_files = [_own(file, names) for file, names in zip(files, _names(files), strict=True)]
        grid, layers = stack(files, opening.resolution)
    firsts = list(accumulate((len(file.facts.bands) for file in files), initial=0))[:-1]
    bands = tuple(
        ImageBand(
            name=name,
            dtype=file.facts.dtypes[index],
            file=file.path,
            layer=number,
            index=index,
            mask=number,
            gaps=first + index if file.facts.gaps[index] else None,
            nodata=file.facts.nodata[index],
            resampled=not layer.native,
            scale=_first(opening.scale, scene_file.scales[index], file.facts.scales[index]),
            offset=_first(opening.offset, scene_file.offsets[index], file.facts.offsets[index]),
        )
        for number, (file, layer, scene_file, first) in enumerate(zip(files, layers, scene_files, firsts, strict=True))
        for index, name in enumerate(scene_file.names)
    )
    every_file = tuple(dict.fromkeys(name for file in files for name in file.facts.files))
    notes, size = (*chosen, *source_notes(layers)), files[0].facts.size
    if opening.scale is not None or opening.offset is not None:  # the job has settled what metadata disagree on
        notes = tuple(note for note in notes if code_of(note) != CODE)
    facts = ImageFacts(files[0].path, grid, bands, every_file, notes=notes, properties=size, alpha=_alpha(files))
    return Image.of(GeoTiffReader(facts, layers))


def _alpha(files: Sequence[RasterFile]) -> tuple[AlphaBand, ...]:
    """Bands that are read as masks, numbered among all bands of all files."""
    found, before = [], 0
    for file in files:
        found += [band._replace(number=before + band.number) for band in file.facts.alpha]
        before += len(file.facts.bands) + len(file.facts.alpha)
    return tuple(found)


def _find_scene(paths: Sequence[str]) -> SceneFiles | None:
    """Files of a delivery, where the only path names a delivery."""
    if len(paths) != 1:
        return None
    if os.path.isdir(paths[0]):
        return find_safe(paths[0]) or find_landsat(paths[0])
    return find_stac(paths[0])


def _images(paths: Sequence[str], opening: Opening) -> tuple[Sequence[str], tuple[str, ...]]:
    """Names by which GDAL opens the files, and notes: of a single file of several images, the chosen one."""
    if len(paths) != 1:
        opening.refuse(paths[0], "series", why=f"{len(paths)} files make one image")
        return paths, ()
    if not is_remote(paths[0]) and not os.path.exists(paths[0]):
        return paths, ()  # the refusal comes from opening it
    name, notes = choose_directory(paths[0], opening.series)
    return [name], notes


def plain_files(path: str) -> list[str]:
    """Images of a folder that is no delivery; the path itself where it is no such folder."""
    return [path] if _find_scene([path]) is not None else _expand([path])


def _own(file: RasterFile, names: tuple[str | None, ...]) -> SceneFile:
    """A file that is described by its own tags."""
    nothing = (None,) * len(names)
    return SceneFile(file.path, names, nothing, nothing)


def _first(*numbers: float | None) -> float:
    """The first number that is not None; the last never is."""
    return next(number for number in numbers if number is not None)


def _expand(paths: Sequence[str]) -> list[str]:
    """Files of a folder; a list of files as it is."""
    if len(paths) != 1 or is_remote(paths[0]) or not os.path.isdir(paths[0]):
        return list(paths)
    inside = (entry for entry in Path(paths[0]).iterdir() if entry.suffix.lower() in _FOLDER_SUFFIXES)
    files = sorted((str(entry) for entry in inside if entry.is_file()), key=natural)
    if not files:
        because = f"it has no {' or '.join(_FOLDER_SUFFIXES)} file"
        raise SourceError(
            cannot(f"open the folder {paths[0]} as an image", because, "name another folder or its files")
        )
    return files


def _names(files: Sequence[RasterFile]) -> list[tuple[str | None, ...]]:
    """Band names by file; a name that several files have is put behind each file's own part: `20230611.red`."""
    paths = [file.path for file in files]
    tokens = file_names([Path(path).stem for path in paths])
    named = [
        [
            token if len(file.facts.names) == 1 and name in (None, PALETTE) and token else name
            for name in file.facts.names
        ]
        for file, token in zip(files, tokens, strict=True)
    ]
    counts = Counter(name for names in named for name in {*names} - {None})
    return [
        tuple(f"{own_part(path, paths)}.{name}" if counts[name] > 1 else name for name in names)
        for path, names in zip(paths, named, strict=True)
    ]
