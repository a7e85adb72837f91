"""Several aligned files as one image: the grid that they share, and the place of each file on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_file import RasterFile
from tilesseg.formats.reading.crs import crs_difference
from tilesseg.formats.reading.resample import Pair, output_shape
from tilesseg.raster.grid import Grid

_SAME = 0.02  # of a pixel: files of equal pixel size that differ by more do not lie on one grid


@dataclass(frozen=True, slots=True)
class RasterLayer:
    """A file, and the place of the image's grid on it."""

    file: RasterFile
    scale: Pair
    """Size of one of the image's pixels in the file's pixels, `(y, x)`."""
    offset: Pair
    """The image's top-left corner in the file's pixels, `(y, x)`."""

    @property
    def native(self) -> bool:
        """Whether the file's pixels are the image's."""
        return self.scale == (1.0, 1.0) and self.offset == (0.0, 0.0)

    @property
    def method(self) -> Literal["smooth", "nearest"]:
        """Method of resampling; indices into a colour table are never interpolated."""
        return "nearest" if self.file.facts.palette else "smooth"


def find_finest(files: Sequence[RasterFile]) -> RasterFile:
    """The file of the smallest pixels."""
    return min(files, key=lambda file: float(np.prod(file.facts.grid.resolution)))


def misfit(file: RasterFile, finest: RasterFile) -> str | None:
    """Reason why a file does not lie on the grid of another, or None where it does."""
    try:
        _align(file, finest)
    except SourceError as error:
        return str(error)
    return None


def stack(
    files: Sequence[RasterFile], resolution: float | None, *, finest: RasterFile | None = None
) -> tuple[Grid, tuple[RasterLayer, ...]]:
    """The grid of the finest file, or of pixels of size `resolution` from its corner, and every file on it.

    Args:
        files: the opened files.
        resolution: pixel size in the grid's unit; None keeps the finest file's.
        finest: the file whose grid is used, where it is not the file of the smallest pixels.

    Raises:
        SourceError: another CRS, extent or orientation; names both files and both values.
    """
    finest = finest or find_finest(files)
    layers = [_align(file, finest) for file in files]
    grid, factor = _resized(finest, resolution)
    return grid, tuple(
        replace(layer, scale=(_snap(layer.scale[0] * factor[0]), _snap(layer.scale[1] * factor[1]))) for layer in layers
    )


def _resized(finest: RasterFile, resolution: float | None) -> tuple[Grid, Pair]:
    grid = finest.facts.grid
    if resolution is None:
        return grid, (1.0, 1.0)
    if not (np.isfinite(resolution) and resolution > 0):
        raise SourceError(f"{finest.path}: resolution {resolution:g} is not a length above 0; give one in {grid.unit}")
    y, x = _snap(resolution / grid.resolution[0]), _snap(resolution / grid.resolution[1])
    height, width = output_shape(grid.shape, (y, x))
    a, b, c, d, e, f = grid.transform
    transform = (a * x, b * y, c, d * x, e * y, f)
    placement = grid.placement and grid.placement.scaled(y, x)
    return replace(grid, height=height, width=width, transform=transform, placement=placement), (y, x)


def _align(file: RasterFile, finest: RasterFile) -> RasterLayer:
    one, two = finest.facts.grid, file.facts.grid
    difference = crs_difference(one.crs, two.crs)
    if difference is not None:
        raise SourceError(
            f"{finest.path} and {file.path} have different coordinate reference systems, {difference}; "
            "warp one to the other, or list only files that match"
        )
    step = np.linalg.solve(_matrix(two), _matrix(one))  # the image's pixel positions to the file's
    (x_scale, skew_x, x), (skew_y, y_scale, y), _ = step
    skew = max(abs(skew_x) * one.height, abs(skew_y) * one.width)
    if skew > _SAME or x_scale <= 0 or y_scale <= 0:
        raise _mismatch(finest, file, "orientations", str(one.transform), str(two.transform))
    scale, offset = (_snap(y_scale), _snap(x_scale)), (round(float(y), 6), round(float(x), 6))
    if scale == (1.0, 1.0) and max(map(abs, offset)) <= _SAME:
        offset = (0.0, 0.0)
    ends = np.array(offset) + np.array(scale) * one.shape - two.shape
    allowed = _SAME if scale == (1.0, 1.0) else 1.0  # a coarser grid rarely divides the finer one's extent
    if max(np.abs(offset).max(), np.abs(ends).max()) > allowed:
        raise _mismatch(finest, file, "extents", _extent(one), _extent(two))
    return RasterLayer(file, scale, offset)


def _mismatch(one: RasterFile, two: RasterFile, what: str, first: str, second: str) -> SourceError:
    return SourceError(
        f"{one.path} and {two.path} have different {what}, {first} and {second}; "
        "warp one to the other, or list only files that match"
    )


def _extent(grid: Grid) -> str:
    (left, top), (right, bottom) = grid.to_world(0, 0), grid.to_world(grid.height, grid.width)
    return f"x {left:.10g} to {right:.10g}, y {top:.10g} to {bottom:.10g}"


def _matrix(grid: Grid) -> NDArray[np.float64]:
    return np.array([grid.transform[:3], grid.transform[3:], (0.0, 0.0, 1.0)])


def _snap(ratio: float) -> float:
    """A ratio, made exact where it is a whole number, or one over a whole number, but for rounding."""
    whole = round(ratio) if ratio >= 1 else 1 / round(1 / ratio)
    return float(whole) if abs(whole - ratio) < 1e-6 * ratio else float(ratio)
