"""Choice of a scene's region of interest: the tissue of a stained slide, a region in a file, or the whole image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.source import file_state
from tilesseg.paths import absolute, unsigned
from tilesseg.raster.labels import NODATA
from tilesseg.raster.region_of_interest import Region, RoiCells, roi_cells
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.planning.job import Input


VIEW, LARGEST_VIEW = 2048, 4096
"""Long side in pixels of the view in which tissue is searched for: usually, and where cells are small."""
PROBES = 64
"""Number of parts along the long side of a view in which the cause of empty pixels is examined."""
_ANYWAY = "to segment the whole image, give input.tissue: none (--tissue none)"
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"))


class RoiChoice(NamedTuple):
    """A scene's region of interest, and notes about it."""

    cells: RoiCells | None
    """Cells of the region; None where it is the whole image."""
    notes: tuple[str, ...] = ()


def choose_cells(source: Source, reading: Input, *, stride: int, paths: Sequence[str], name: str) -> RoiChoice:
    """Decide, once for a scene, which cells of its lattice are in the region of interest.

    Args:
        source: the image, with all its bands.
        reading: options of the job for reading the scene.
        stride: stride of the lattice.
        paths: paths of the image.
        name: name of the scene.

    Raises:
        SourceError: the file with the region cannot be read, or touches nothing of the image.
    """
    region, what, doubts = _region(source, reading, stride=stride, paths=paths, name=name)
    if region is None:
        return RoiChoice(None)
    in_roi = roi_cells(region, shape=source.grid.shape, stride=stride)
    if in_roi.all():
        return RoiChoice(None, (f"the whole image is segmented: {what} is in every block of {stride} px", *doubts))
    cells = RoiCells.of(in_roi, stride=stride, label=NODATA if reading.outside == "nodata" else 0)
    if not in_roi.any():
        return RoiChoice(cells, (f"warning: no tissue was found, so the mask is all {cells.label}; {_ANYWAY}",))
    share = cells.pixels(source.grid.shape) / source.grid.window.area
    only = f"only {what} is segmented ({share:.1%} of the pixels, in blocks of {stride} px)"
    rest = f"{cells.label} ({'nodata' if cells.label == NODATA else 'the first class'})"
    return RoiChoice(cells, (f"{only}; the rest is set to {rest}", *doubts))


def region_file(reading: Input, name: str) -> str | None:
    """Path of the file with the region of interest of the scene `name`, or None without such a file."""
    return None if reading.tissue in ("auto", "none") else absolute(reading.tissue.replace("{scene}", name))


def region_identity(reading: Input, name: str) -> dict[str, Any]:
    """`[size, mtime in ns]` of the file with the region, by its path; None where it is gone, empty without a file."""
    path = region_file(reading, name)
    if path is None or not os.path.isdir(path):
        return {} if path is None else {unsigned(path): file_state(path)}
    from tilesseg.formats.reading.roi_raster import zarr_state

    return zarr_state(path)


def _region(
    source: Source, reading: Input, *, stride: int, paths: Sequence[str], name: str
) -> tuple[Region | None, str, tuple[str, ...]]:
    """Region of interest, its name in notes, and doubts about it."""
    path = region_file(reading, name)
    if path is not None:
        from tilesseg.formats.reading.roi_file import read_region

        region = read_region(
            path, grid=source.grid, native=source.native, stride=stride, image=paths[0], canvas=source.canvas
        )
        return region, f"the region in {Path(path).name}", ()
    bands = stained_bands(source, paths) if reading.tissue == "auto" else None
    return (None, "tissue", ()) if bands is None else _tissue(source.select(bands), stride)


def stained_bands(source: Source, paths: Sequence[str]) -> tuple[int, ...] | None:
    """The bands red, green and blue of a stained slide; None for any other image.

    A slide is measured in micrometres, or of a scanner's format; it is stained if its colours have a byte each.
    """
    slide = source.grid.unit == "micrometre" or (len(paths) == 1 and format_of(paths[0]) == "slide")
    names = [name.lower() if name else "" for name in source.bands]
    for colours in _COLOURS:
        if slide and all(names.count(colour) == 1 for colour in colours):
            bands = tuple(names.index(colour) for colour in colours)
            return bands if all(source.file_dtypes[band] == np.uint8 for band in bands) else None
    return None


def _tissue(source: Source, stride: int) -> tuple[Region, str, tuple[str, ...]]:
    from tilesseg.planning.tissue import tissue

    finest = 4 * -(-max(source.grid.shape) // stride)
    view = source.thumbnail(min(LARGEST_VIEW, max(VIEW, finest)))
    mask = tissue(_unscaled(view.values, source), view.valid)
    region = Region.stretched(mask, grid=source.grid, native=source.native)
    doubtful = _doubtful(source, view.valid, region.step)
    region = region._replace(mask=region.mask | doubtful)
    if doubtful.any():
        text = f"{doubtful.mean():.1%} of the view for the search for tissue cannot be read, and is segmented as tissue"
        return region, "tissue", (doubt("damaged-pixels", text),)
    return region, "tissue", ()


def _doubtful(source: Source, valid: NDArray[np.bool_], step: tuple[float, float]) -> NDArray[np.bool_]:
    """Mask of empty pixels of a view that may hold tissue all the same.

    Pixels are empty where nothing was scanned, and where a level cannot be read. A pixel in the middle of each empty
    part is read at full resolution: if it is valid, or cannot be read either, the part belongs to the region of
    interest, and damaged tiles fail there.
    """
    doubtful, side = np.zeros(valid.shape, np.bool_), max(1, max(valid.shape) // PROBES)
    for y, x in np.ndindex(*(-(-size // side) for size in valid.shape)):
        part = slice(y * side, (y + 1) * side), slice(x * side, (x + 1) * side)
        rows, columns = np.nonzero(~valid[part])
        if len(rows):
            middle = y * side + rows[len(rows) // 2], x * side + columns[len(rows) // 2]
            doubtful[part] = ~valid[part] & _something(source, middle, step)
    return doubtful


def _something(source: Source, pixel: tuple[int, int], step: tuple[float, float]) -> bool:
    """Whether the image is valid, or cannot be read, under the middle of a pixel of a view."""
    y, x = (
        min(int((at + 0.5) * side), size - 1) for at, side, size in zip(pixel, step, source.grid.shape, strict=True)
    )
    try:
        return bool(source.read(Window(y, x, 1, 1)).valid.all())
    except SourceError:
        return True


def _unscaled(values: NDArray[Any], source: Source) -> NDArray[np.float32]:
    """Values as the file stores them, without scale and offset."""
    pairs = [source.scaling[band] for band in source.selected]
    scale, offset = (np.array(numbers, np.float32)[:, None, None] for numbers in zip(*pairs, strict=True))
    return np.asarray((values - offset) / scale, np.float32)
