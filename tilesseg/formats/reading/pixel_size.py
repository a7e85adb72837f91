"""Size of a pixel: micrometres per pixel, the levels of a pyramid, and the level that serves a requested size best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tilesseg.doubts import code_of
from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.image import Image, Shape
from tilesseg.formats.reading.resample import exact_ratio, output_shape
from tilesseg.formats.reading.resampled_reader import resampled_reader
from tilesseg.raster.grid import Grid

MICROMETRE = 1e-6
_SLACK = 0.02
"""Share by which the ratios of height and of width may differ, beyond the rounding to whole pixels."""


def at_pixel_size(image: Image, resolution: float, *, tolerance: float) -> Image:
    """The image at a pixel size: one of its levels where that is near enough, else resampled from the best of them.

    The best level is the coarsest whose pixels are no larger than requested: shrinking takes the area mean, and
    only an image that is itself too coarse is enlarged, by linear interpolation.

    Args:
        image: the image at its full resolution.
        resolution: side of a pixel, in the unit of the image's grid.
        tolerance: share by which a level's pixels may differ and still be taken as they are.
    """
    candidates = [image, *image.levels]
    near = [level for level in candidates if _difference(level.grid, resolution) <= tolerance]
    if near:
        best = min(near, key=lambda level: _difference(level.grid, resolution))
        note = None if _difference(best.grid, resolution) < 1e-9 else _note_near(best.grid, resolution, tolerance)
        return replace(image, reader=resampled_reader(best.reader, best.grid, native=image.native, note=note))
    fine = [level for level in candidates if max(level.grid.resolution) <= resolution]
    best = fine[-1] if fine else image
    y, x = (exact_ratio(resolution / side) for side in best.grid.resolution)
    height, width = output_shape(best.grid.shape, (y, x))
    a, b, c, d, e, f = best.grid.transform
    grid = replace(best.grid, height=height, width=width, transform=(a * x, b * y, c, d * x, e * y, f))
    note = _note_resampled(best.grid, resolution)
    return replace(image, reader=resampled_reader(best.reader, grid, native=image.native, step=(y, x), note=note))


def with_mpp(image: Image, mpp: float) -> Image:
    """The image with pixels of `mpp` micrometres at its full resolution, in place of the size in its file.

    Raises:
        SourceError: it has a CRS, so that its pixels already have a size on the Earth.
    """
    if image.grid.crs is not None:
        (y, x), path = image.grid.resolution, image.reader.facts.path
        because = f"its CRS gives it pixels of {x:g} × {y:g} {image.grid.unit}"
        raise SourceError(cannot(f"read {path} with mpp {mpp:g}", because, "leave mpp out"))
    factor = mpp / image.native.resolution[1]
    native = _sized(image.native, factor)
    levels = tuple(
        resampled_reader(level.reader, _sized(level.grid, factor), native=_sized(level.native, factor))
        for level in image.levels
    )
    reader = resampled_reader(image.reader, _sized(image.grid, factor), native=native, levels=levels)
    properties = {key: value for key, value in reader.facts.properties.items() if key != "mpp_refused"}
    notes = tuple(note for note in reader.facts.notes if code_of(note) != "pixel-size-contradicted")
    facts = replace(reader.facts, properties={**properties, "mpp_from": "input.mpp"}, notes=notes)
    return replace(image, reader=replace(reader, facts=facts))


def downsample(finest: Shape, shape: Shape) -> tuple[float, float] | None:
    """Number of pixels of the finest level that one pixel of a level covers, `(y, x)`.

    The sizes of levels are whole numbers, so their ratio is not quite the scanner's: the whole number next to
    it is taken where both sizes follow from it by rounding, else the ratio of each axis.

    Args:
        finest: shape of the finest level.
        shape: shape of the level.

    Returns:
        None where the shape is no smaller picture of the finest level.
    """
    ratios = finest[0] / shape[0], finest[1] / shape[1]
    whole = round(max(ratios, key=lambda ratio: shape[ratios.index(ratio)]))
    if whole >= 1 and all(size in (full // whole, -(-full // whole)) for full, size in zip(finest, shape, strict=True)):
        return float(whole), float(whole)
    rounding = sum(1 / max(1, size) for size in shape)
    alike = abs(ratios[0] / ratios[1] - 1) <= _SLACK + rounding
    return ratios if alike and min(ratios) > 1 else None


def coarser_levels(shapes: Sequence[Shape]) -> list[tuple[int, tuple[float, float]]]:
    """Numbers and downsamples of the levels that are coarser pictures of the first one, each coarser than the last."""
    levels: list[tuple[int, tuple[float, float]]] = [(0, (1.0, 1.0))]
    for number, shape in enumerate(shapes[1:], start=1):
        step = downsample(shapes[0], shape)
        if step is not None and min(step) > max(levels[-1][1]):
            levels.append((number, step))
    return levels


def _sized(grid: Grid, factor: float) -> Grid:
    """The same pixels, of sides `factor` times as long in micrometres as they are in the grid's own unit."""
    a, b, c, d, e, f = (number * factor for number in grid.transform)
    return replace(grid, transform=(a, b, c, d, e, f), unit="micrometre", metres_per_unit=MICROMETRE)


def _difference(grid: Grid, resolution: float) -> float:
    """Share by which the side of a pixel that differs most is longer or shorter than the requested one."""
    return max(abs(side / resolution - 1) for side in grid.resolution)


def _note_near(grid: Grid, resolution: float, tolerance: float) -> str:
    return (
        f"pixels of {grid.resolution[1]:.6g} {grid.unit} are taken as they are for the {resolution:.6g} wanted: they "
        f"differ by {_difference(grid, resolution):.1%}, less than the tolerance of {tolerance:.0%}"
    )


def _note_resampled(grid: Grid, resolution: float) -> str:
    how = "area means" if resolution >= max(grid.resolution) else "interpolated: the image is coarser than that"
    return f"resampled from pixels of {grid.resolution[1]:.6g} to {resolution:.6g} {grid.unit} ({how})"
