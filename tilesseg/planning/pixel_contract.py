"""Match of an image and a model in the size of their pixels: the size that is read, its refusals, and a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.raster.window import Window

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening
    from tilesseg.models.spec import ModelSpec
    from tilesseg.planning.job import TilingOptions
    from tilesseg.raster.grid import Grid


WGS84_A = 6378137.0
WGS84_E2 = 0.0066943799901413165
UNLIKE = 1.5
"""Factor between the pixel sizes of image and model from which on a note is written."""
MOST_ENLARGED = 4.0
"""Largest factor by which pixels are enlarged on reading: beyond it, one of the two sizes is wrong."""
LEAST_SIDE = 64
"""Side in pixels below which an image that was resampled is too small for a model whose patch is free."""


def contract_resolution(
    grid: Grid, spec: ModelSpec, opening: Opening, *, image: str, refused: str | None = None
) -> float | None:
    """Pixel size to read a scene at, in its grid's unit, or None for its own pixels.

    The job's pixel size comes first, then the micrometres per pixel that the model states.

    Args:
        grid: the image's own grid.
        spec: the model's contract.
        opening: options of the job for opening the image.
        image: names the scene in the refusal.
        refused: sizes that the file states and that are not taken, with the reason.

    Raises:
        SourceError: the model states micrometres per pixel, and the size of the image's pixels is not known.
    """
    if opening.resolution is not None or opening.level is not None or spec.mpp is None:
        return opening.resolution
    if grid.unit == "micrometre":
        return spec.mpp
    if grid.crs is None:
        stated = "no micrometres per pixel" + (f" ({refused})" if refused else "")
        remedy = "the image's own as input.mpp (--mpp)"
    else:
        stated, remedy = (
            f"a CRS with pixels in {grid.unit}",
            f"the pixel size to read in {grid.unit} as input.resolution",
        )
    raise SourceError(
        f"{image} has {stated}, and {spec.name} needs {spec.mpp:g} µm; give {remedy}, or take another model"
    )


def refuse_enlarging(own: Grid, grid: Grid, *, image: str) -> None:
    """Refuse to enlarge pixels more than 4 times: a wrong size makes an image of gigapixels out of nothing.

    Args:
        own: grid of the image as it is read without a pixel size.
        grid: grid at the pixel size.
        image: names the scene in the refusal.

    Raises:
        SourceError: the pixels are smaller than a quarter of the image's own.
    """
    factor = max(one / two for one, two in zip(own.resolution, grid.resolution, strict=True))
    if factor <= MOST_ENLARGED * (1 + 1e-9):
        return
    raise SourceError(
        f"{image}: pixels of {_size(grid)} are requested and its own are {_size(own)}, which enlarges it {factor:.4g} "
        f"times to {grid.height} × {grid.width}, more than {MOST_ENLARGED:g} times; {_remedy(own, grid)}"
    )


def refuse_shrinking(own: Grid, grid: Grid, spec: ModelSpec, options: TilingOptions, *, image: str) -> None:
    """Refuse an image that is smaller than a patch because it was resampled; one that is small by itself is right.

    Args:
        own: grid of the image as it is read without a pixel size.
        grid: grid at the pixel size.
        spec: the model's contract, whose patch counts where the job states none.
        options: options of the job.
        image: names the scene in the refusal.

    Raises:
        SourceError: a side has a patch's pixels in the image, and no longer in the resampled one.
    """
    stated = options.patch if options.patch != "auto" else spec.patch.fixed or spec.patch.preferred
    patch = stated or spec.patch.at_least(LEAST_SIDE)
    if not any(two < patch <= one for one, two in zip(own.shape, grid.shape, strict=True)):
        return
    whose = f"a patch of {patch}" if stated else f"{patch} pixels"
    raise SourceError(
        f"{image}: pixels of {_size(grid)} are requested and its own are {_size(own)}, which leaves {grid.height} × "
        f"{grid.width} of its {own.height} × {own.width}, less than {whose}; {_remedy(own, grid)}"
    )


def resolution_note(grid: Grid, spec: ModelSpec) -> str | None:
    """Note about pixels that are much finer or coarser than those that the model was trained on, or None."""
    trained = spec.resolution if spec.mpp is None else spec.mpp * 1e-6
    metres = ground_size(grid)
    if trained is None or metres is None or 1 / UNLIKE <= metres / trained <= UNLIKE:
        return None
    wanted = trained * float(np.mean(grid.resolution)) / metres
    return doubt(
        "pixel-size",
        f"pixels are {metres:.4g} m and {spec.name} was trained on {trained:g} m; to resample on reading, give "
        f"input.resolution: {wanted:.3g}" + (f" ({grid.unit}s)" if grid.unit == "degree" else ""),
    )


def ground_size(grid: Grid) -> float | None:
    """Side in metres of a square of the ground area of the middle pixel; None where the unit is no length."""
    if grid.crs is not None:
        from tilesseg.formats.reading.ground_area import pixel_areas

        areas = pixel_areas(grid)
        middle = areas and areas.of_window(Window(grid.height // 2, grid.width // 2, 1, 1)) * areas.quantum
        if middle:
            return float(np.sqrt(middle))
    if grid.metres_per_unit is None:
        return None
    return float(np.mean(grid.resolution)) * grid.metres_per_unit


def degree_lengths(latitude: float) -> tuple[float, float]:
    """Metres of a degree along the meridian and along the parallel, on the ellipsoid (Snyder 1987, eq. 4-18, 4-19)."""
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    shared = 1 - WGS84_E2 * sine**2
    along_meridian = WGS84_A * (1 - WGS84_E2) / shared**1.5
    along_parallel = WGS84_A * max(float(cosine), 1e-3) / shared**0.5
    return float(np.radians(along_meridian)), float(np.radians(along_parallel))


def _size(grid: Grid) -> str:
    """Size of a pixel in its unit, of a slide in micrometres, and in metres where the unit is neither."""
    side = float(np.mean(grid.resolution))
    if grid.unit == "micrometre":
        return f"{side:.4g} µm"
    if grid.unit == "metre":
        return f"{side:.4g} m"
    metres = ground_size(grid)
    return f"{side:.4g} {grid.unit}s" + (f" ({metres:.4g} m)" if metres else "")


def _remedy(own: Grid, grid: Grid) -> str:
    """Advice to correct the size that is wrong: the image's own, or the one that is requested."""
    requested = float(np.mean(grid.resolution))
    if own.unit == "micrometre":
        return "correct the image's own size with input.mpp (--mpp), or the requested one with input.resolution"
    if own.unit == "degree":
        y, x = (requested / metres for metres in degree_lengths(own.to_world(own.height / 2, own.width / 2)[1]))
        return (
            f"input.resolution (--resolution) is in degrees here: {requested:g} m are {y:.4g} degrees from north to "
            f"south, {x:.4g} from west to east"
        )
    return f"correct input.resolution (--resolution), which is in {own.unit}s here"
