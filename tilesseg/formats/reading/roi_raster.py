"""A region of interest as a raster: read, and put in its place on the image.

A raster with a CRS, or with a transform in that of the image, is warped to the image by it. Any other is stretched over
the image, or over the whole canvas of a slide of which a part was scanned: its proportions tell these apart. Pixels
that are not 0 (nor nodata, nor transparent) are the region; in a mask of tilesseg, 255 is nodata in every format.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import reproject
from rasterio.windows import Window as RasterWindow

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.crs import crs_name, round_trip
from tilesseg.formats.registry import resolve
from tilesseg.process import QUIET
from tilesseg.raster.grid import IDENTITY, Grid, Transform
from tilesseg.raster.labels import NODATA
from tilesseg.raster.region_of_interest import Region
from tilesseg.raster.window import Window

FINEST = 4096
"""Largest number of pixels along a side of a region, unless the scene has more cells; a finer mask is coarsened."""
_ROWS = 1 << 26  # bytes of a raster that are read at a time
_OWN_LABELS, _OWN_SCORES = ("tilesseg:class", "TILESSEG_CLASS_0"), ("tilesseg:scores", "TILESSEG_SCORE_254")
"""Marks of our own masks and scores in the tags of a TIFF."""

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """Place of the image of a region of interest."""

    name: str
    """Name of the image in refusals."""
    grid: Grid
    """Grid that is read."""
    native: Grid
    """Grid of the image's own finest pixels."""
    canvas: Shape | None
    """Shape of the canvas of which the image is a part, in its finest pixels; None where it is no part."""
    step: float
    """Side of a pixel of a region that is warped, in pixels of `grid`."""


@dataclass(frozen=True, slots=True)
class _Raster:
    """An opened raster."""

    shape: Shape
    transform: Transform
    crs: str | None
    marked: Callable[[int, int], NDArray[np.bool_]]
    """Pixels `(height, width)` of the rows from `y` on, `height` of them, that are marked."""
    row_bytes: int
    """Bytes that reading a row takes."""


def read_raster(path: str, place: ImagePlace) -> Region:
    """The region of interest of a raster file or of a Zarr.

    Raises:
        SourceError: it cannot be read, is 0 everywhere, lies elsewhere, or has other proportions than the image.
    """
    what = f"take {path} as the region of interest of {place.name}"
    if resolve("tilesseg.formats.detect:is_zarr")(path):
        raster = _open_zarr(path)
        mask, steps = _joined(raster)
    else:
        try:
            with QUIET, warnings.catch_warnings(), rasterio.Env():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path) as file:
                    if file.driver == "PNG" and os.path.isfile(path):
                        resolve("tilesseg.formats.geotiff.single_block:check_png")(path)
                    raster = _of_dataset(file, what)
                    mask, steps = _joined(raster)
        except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
            raise SourceError(cannot(f"read {path} as a mask image", error, "give a raster file or GeoJSON")) from error
    if not mask.any():
        raise SourceError(cannot(what, "it is 0 everywhere", "take another mask"))
    if _has_place(raster, place.grid, path):
        return _warped(mask, steps, raster, place, what)
    return _stretched(mask, steps, raster.shape, place, what)


def _of_dataset(file: Any, what: str) -> _Raster:
    tags = [*file.tags(), str(file.tags().get("TIFFTAG_IMAGEDESCRIPTION", ""))]
    if any(mark in text for mark in _OWN_SCORES for text in tags):
        raise SourceError(cannot(what, "it holds scores", "take the mask of the same run"))
    own = any(mark in text for mark in _OWN_LABELS for text in tags)
    bands = [band for band, use in enumerate(file.colorinterp, start=1) if use != ColorInterp.alpha]

    def marked(y: int, height: int) -> NDArray[np.bool_]:
        window = RasterWindow(0, y, file.width, height)
        values = file.read(bands, window=window)
        return np.asarray(_marked(values, own=own) & (file.dataset_mask(window=window) != 0), np.bool_)

    crs = round_trip(file.crs) if file.crs else None
    a, b, c, d, e, f = tuple(file.transform)[:6]
    transform = (a, b, c, d, e, f) if a * e - b * d else IDENTITY
    return _Raster(file.shape, transform, crs, marked, row_bytes=file.width * file.count)


def _open_zarr(path: str) -> _Raster:
    """A Zarr of any kind, its finest level."""
    source = resolve("tilesseg.formats.open:open_source")(path)
    grid: Grid = source.grid
    own = _written_by_us(Path(path))

    def marked(y: int, height: int) -> NDArray[np.bool_]:
        pixels = source.read_raw(Window(y, 0, height, grid.width))
        valid = np.logical_and.reduce(np.asarray(pixels.valid))
        return np.asarray(_marked(pixels.values, own=own) & valid, np.bool_)

    placed = grid.crs is not None or grid.unit == "unknown"
    row_bytes = grid.width * sum(dtype.itemsize for dtype in source.raw_dtypes)
    return _Raster(grid.shape, grid.transform if placed else IDENTITY, grid.crs, marked, row_bytes)


def _written_by_us(folder: Path) -> bool:
    """Whether a group carries the attribute of our products."""
    mark = str(resolve("tilesseg.formats.ome_zarr.metadata:PROVENANCE"))
    for name in ("zarr.json", ".zattrs"):
        if (folder / name).is_file():
            return mark in (folder / name).read_text(encoding="utf-8")
    return False


def _marked(values: NDArray[Any], *, own: bool) -> NDArray[np.bool_]:
    marked = values != 0
    if values.dtype.kind in "fc":
        marked &= ~np.isnan(values)
    if own:
        marked &= values != NODATA
    return np.asarray(marked.any(axis=0), np.bool_)


def _joined(raster: _Raster) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Marked pixels, joined to at most `FINEST` a side, and how many were joined along each axis."""
    height, width = raster.shape
    steps = (ceil(height / FINEST), ceil(width / FINEST))
    mask = np.zeros((ceil(height / steps[0]), ceil(width / steps[1])), np.bool_)
    rows = max(1, _ROWS // max(1, raster.row_bytes) // steps[0]) * steps[0]
    for y in range(0, height, rows):
        marked = raster.marked(y, min(rows, height - y))
        joined = np.logical_or.reduceat(marked, np.arange(0, width, steps[1]), axis=1)
        joined = np.logical_or.reduceat(joined, np.arange(0, len(joined), steps[0]), axis=0)
        mask[y // steps[0] : y // steps[0] + len(joined)] = joined
    return mask, steps


def _has_place(raster: _Raster, grid: Grid, path: str) -> bool:
    """Whether a raster lies in the world that the image lies in.

    Raises:
        SourceError: it has a CRS, and the image has none.
    """
    if raster.crs is not None and grid.crs is None:
        raise SourceError(
            f"{path} is in {crs_name(raster.crs)}, and the image has no CRS; give pixels of its full resolution, as "
            "GeoJSON, or a mask without a CRS"
        )
    on_earth = grid.crs is not None or (grid.unit == "unknown" and grid.transform != IDENTITY)
    return raster.crs is not None or (on_earth and raster.transform != IDENTITY)


def _warped(mask: NDArray[np.bool_], steps: Shape, raster: _Raster, place: ImagePlace, what: str) -> Region:
    """The region by its own place; a pixel is marked where any marked pixel of the raster lies in it."""
    grid, step = place.grid, place.step
    found = np.zeros((ceil(grid.height / step), ceil(grid.width / step)), np.uint8)
    crs = CRS.from_wkt(grid.crs) if grid.crs else CRS.from_epsg(3857)  # both planes are one, whichever it is
    own = CRS.from_wkt(raster.crs) if raster.crs else crs
    own_transform, transform = _scaled(raster.transform, *steps), _scaled(grid.transform, step, step)
    try:
        with QUIET, rasterio.Env():
            reproject(
                mask.astype(np.uint8), found, src_transform=own_transform, src_crs=own, dst_transform=transform,
                dst_crs=crs, resampling=Resampling.max,
            )  # fmt: skip
    except (RasterioError, CPLE_BaseError, ValueError) as error:
        because = f"{crs_name(raster.crs)} cannot be warped to {crs_name(grid.crs)}: {' '.join(str(error).split())}"
        raise SourceError(cannot(what, because, "warp it to the image")) from error
    if not found.any():
        own_place = f"{crs_name(raster.crs)} {_extent(raster.shape, raster.transform)}"
        because = f"it lies in {own_place}, the image in {crs_name(grid.crs)} {_extent(grid.shape, grid.transform)}"
        remedy = "give a mask of the same place" if raster.crs else "name its CRS, or remove its transform"
        raise SourceError(cannot(what, because, remedy))
    return Region(found != 0, (step, step))


def _scaled(transform: Transform, y: float, x: float) -> rasterio.Affine:
    """Transform of pixels `y` and `x` times as large."""
    a, b, c, d, e, f = transform
    return rasterio.Affine(a * x, b * y, c, d * x, e * y, f)


def _extent(shape: Shape, transform: Transform) -> str:
    a, b, c, d, e, f = transform
    xs, ys = zip(*((a * x + b * y + c, d * x + e * y + f) for y in (0, shape[0]) for x in (0, shape[1])), strict=True)
    return f"x {min(xs):.10g} to {max(xs):.10g}, y {min(ys):.10g} to {max(ys):.10g}"


def _stretched(mask: NDArray[np.bool_], steps: Shape, shape: Shape, place: ImagePlace, what: str) -> Region:
    """The region of a raster without a place: of the image, or of its whole canvas, by its proportions."""
    native, canvas = place.native, place.canvas
    of_part = _fits(shape, native.shape)
    of_canvas = canvas is not None and _fits(shape, canvas)
    corner = (native.transform[5] / native.resolution[0], native.transform[2] / native.resolution[1])
    if canvas is not None and of_part and of_canvas and not _alike(shape, native.shape, canvas, corner):
        because = (
            f"its {_size(shape)} pixels fit both the scanned part, {_size(native.shape)}, and the whole canvas, "
            f"{_size(canvas)}"
        )
        raise SourceError(cannot(what, because, "give GeoJSON, or a mask of other proportions"))
    whole, start = native.shape, (0.0, 0.0)
    if canvas is not None and of_canvas and not of_part:
        whole, start = canvas, corner
    elif not of_part:
        fitting = _size(native.shape) + (f" (its whole canvas {_size(canvas)})" if canvas else "")
        because = f"its {_size(shape)} pixels have other proportions than the image, {fitting}"
        raise SourceError(cannot(what, because, "give a mask of the whole image, or GeoJSON"))
    ratios = [own / read for own, read in zip(native.resolution, place.grid.resolution, strict=True)]
    sides = [size / pixels * ratio for size, pixels, ratio in zip(whole, shape, ratios, strict=True)]
    y, x = (-at * ratio for at, ratio in zip(start, ratios, strict=True))
    region = Region(mask, (sides[0] * steps[0], sides[1] * steps[1]), (y, x))
    if not _inside(region, place.grid.shape).any():
        because = f"it marks nothing of the scanned part, {_size(native.shape)} of a canvas of {_size(whole)}"
        raise SourceError(cannot(what, because, "take another mask"))
    return region


def _inside(region: Region, shape: Shape) -> NDArray[np.bool_]:
    """The pixels of a region that lie on an image."""
    spans = (
        slice(max(0, floor(-start / step)), max(1, ceil((size - start) / step)))
        for start, step, size in zip(region.corner, region.step, shape, strict=True)
    )
    return region.mask[tuple(spans)]


def _fits(shape: Shape, whole: Shape) -> bool:
    """Whether a raster may be a picture of the whole: one scale gives both its sides, but for a pixel of rounding."""
    (least, most), (left, right) = (
        (side / (pixels + 1), side / (pixels - 1) if pixels > 1 else np.inf)
        for side, pixels in zip(whole, shape, strict=True)
    )
    return max(least, left) <= min(most, right)


def _alike(shape: Shape, part: Shape, canvas: Shape, corner: Sequence[float]) -> bool:
    """Whether it matters less than a pixel of a raster if it shows the part or the canvas."""
    return all(
        max(start, whole - start - size) * pixels <= whole
        for start, size, whole, pixels in zip(corner, part, canvas, shape, strict=True)
    )


def _size(shape: Shape) -> str:
    return f"{shape[0]} × {shape[1]}"


def zarr_state(path: str) -> dict[str, Any]:
    """Size and time of every file of metadata of a region in a Zarr, by its path."""
    identity: dict[str, Any] = resolve("tilesseg.formats.open:open_source")(path).identity()
    return identity
