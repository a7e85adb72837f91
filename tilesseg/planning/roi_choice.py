"""Where to look in a scene: at the tissue of a stained slide, at a region that the user draws, or everywhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.source import file_state
from tilesseg.raster.labels import NODATA
from tilesseg.raster.region_of_interest import Region, RoiCells, roi_cells
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.source import Source
    from tilesseg.planning.job import Input


VIEW, LARGEST_VIEW = 2048, 4096
"""Long side in pixels of the view in which tissue is looked for, and where cells are small."""
PROBES = 64
"""Parts along its long side in which it is asked why a view holds nothing."""
_ANYWAY = "input.tissue: none (--tissue none) looks everywhere"
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"))


class Looked(NamedTuple):
    """Where to look, and what should be said of it."""

    cells: RoiCells | None
    notes: tuple[str, ...] = ()


def choose_cells(source: Source, how: Input, *, stride: int, paths: Sequence[str], name: str) -> Looked:
    """Decide, once for a scene, which cells of its lattice are looked at.

    Args:
        source: the image, with all its bands.
        how: what the job says.
        stride: of the lattice.
        paths: of the image.
        name: of the scene.

    Raises:
        SourceError: the file that says where to look cannot be read, or touches nothing of the image.
    """
    region, what = _region(source, how, stride=stride, paths=paths, name=name)
    if region is None:
        return Looked(None)
    in_roi = roi_cells(region, shape=source.grid.shape, stride=stride)
    if in_roi.all():
        return Looked(None, (f"all of it is looked at: {what} is in every cell of {stride} px",))
    cells = RoiCells.of(in_roi, stride=stride, label=NODATA if how.outside == "nodata" else 0)
    if not in_roi.any():
        return Looked(cells, (f"warning: no tissue was found, so the mask is all {cells.label}; {_ANYWAY}",))
    share = cells.pixels(source.grid.shape) / source.grid.window.area
    note = (
        f"looked at is where {what} is, {share:.1%} of the pixels, in cells of {stride} px; the rest is {cells.label}"
    )
    return Looked(cells, (f"{note}, unseen",))


def region_file(how: Input, name: str) -> str | None:
    """The file that says where to look in the scene called `name`, or None where no file does."""
    return None if how.tissue in ("auto", "none") else os.path.abspath(how.tissue.replace("{scene}", name))


def region_identity(how: Input, name: str) -> dict[str, Any]:
    """`[size, mtime in ns]` of that file by its path, None where it is gone; empty without one."""
    path = region_file(how, name)
    return {} if path is None else {path: file_state(path)}


def _region(source: Source, how: Input, *, stride: int, paths: Sequence[str], name: str) -> tuple[Region | None, str]:
    path = region_file(how, name)
    if path is not None:
        from tilesseg.formats.reading.roi_file import read_region

        return read_region(path, grid=source.grid, native=source.native, stride=stride, image=paths[0]), Path(path).name
    bands = stained_bands(source, paths) if how.tissue == "auto" else None
    return (None if bands is None else _tissue(source.select(bands), stride)), "tissue"


def stained_bands(source: Source, paths: Sequence[str]) -> tuple[int, ...] | None:
    """The bands red, green and blue of a stained slide; None for any other image.

    A slide is measured in micrometres, or of a scanner's format; stained is what was seen in colours of one byte each.
    """
    slide = source.grid.unit == "micrometre" or (len(paths) == 1 and format_of(paths[0]) == "slide")
    names = [name.lower() if name else "" for name in source.bands]
    for colours in _COLOURS:
        if slide and all(names.count(colour) == 1 for colour in colours):
            bands = tuple(names.index(colour) for colour in colours)
            return bands if all(source.raw_dtypes[band] == np.uint8 for band in bands) else None
    return None


def _tissue(source: Source, stride: int) -> Region:
    from tilesseg.planning.tissue import tissue

    finest = 4 * -(-max(source.grid.shape) // stride)
    view = source.thumbnail(min(LARGEST_VIEW, max(VIEW, finest)))
    found = Region.stretched(tissue(_unscaled(view.values, source), view.valid), grid=source.grid, native=source.native)
    return found._replace(mask=found.mask | _doubtful(source, view.valid, found.step))


def _doubtful(source: Source, valid: NDArray[np.bool_], step: tuple[float, float]) -> NDArray[np.bool_]:
    """Where a view holds nothing although something may be there.

    Not scanned, or a level that cannot be read? A pixel in the middle of each such part is asked at full resolution: if
    it is valid, or cannot be read either, the part is looked at, and what is damaged fails there.
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
    """Whether something is, or may be, under the middle of a pixel of a view."""
    y, x = (
        min(int((at + 0.5) * side), size - 1) for at, side, size in zip(pixel, step, source.grid.shape, strict=True)
    )
    try:
        return bool(source.read(Window(y, x, 1, 1)).valid.all())
    except SourceError:
        return True


def _unscaled(values: NDArray[Any], source: Source) -> NDArray[np.float32]:
    """The bytes of the file, whatever scale and offset they are read with."""
    pairs = [source.scaling[band] for band in source.selected]
    scale, offset = (np.array(numbers, np.float32)[:, None, None] for numbers in zip(*pairs, strict=True))
    return np.asarray((values - offset) / scale, np.float32)
