"""Match of an image and a model: bands by name, pixels by size; a mismatch is refused with both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError

if TYPE_CHECKING:
    from tilesseg.formats.reading.open_options import Opening
    from tilesseg.models.spec import ModelSpec
    from tilesseg.raster.grid import Grid


UNLIKE = 1.5
"""Factor between the pixel sizes of image and model from which on a note is written."""


def contract_resolution(grid: Grid, spec: ModelSpec, opening: Opening, *, image: str) -> float | None:
    """Pixel size to read a scene at, in its grid's unit, or None for its own pixels.

    The job's pixel size comes first, then the micrometres per pixel that the model states.

    Args:
        grid: the image's own grid.
        spec: the model's contract.
        opening: options of the job for opening the image.
        image: names the scene in the refusal.

    Raises:
        SourceError: the model states micrometres per pixel, and the size of the image's pixels is not known.
    """
    if opening.resolution is not None or opening.level is not None or spec.mpp is None:
        return opening.resolution
    if grid.unit == "micrometre":
        return spec.mpp
    if grid.crs is None:
        stated, remedy = "no micrometres per pixel", "the image's own as input.mpp (--mpp)"
    else:
        stated, remedy = (
            f"a CRS with pixels in {grid.unit}",
            f"the pixel size to read in {grid.unit} as input.resolution",
        )
    raise SourceError(
        f"{image} has {stated}, and {spec.name} needs {spec.mpp:g} µm; give {remedy}, or take another model"
    )


def resolution_note(grid: Grid, spec: ModelSpec) -> str | None:
    """Note about pixels that are much finer or coarser than those that the model was trained on, or None."""
    trained = spec.resolution if spec.mpp is None else spec.mpp * 1e-6
    if trained is None or grid.metres_per_unit is None:
        return None
    metres = float(np.mean(grid.resolution)) * grid.metres_per_unit
    if 1 / UNLIKE <= metres / trained <= UNLIKE:
        return None
    return doubt(
        "pixel-size",
        f"pixels are {metres:.4g} m and {spec.name} was trained on {trained:g} m; to resample on reading, give "
        f"input.resolution: {trained / grid.metres_per_unit:.6g}",
    )
