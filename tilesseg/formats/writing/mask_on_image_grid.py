"""A mask of the model's pixels on the image's own: each pixel takes the label that lies under its centre.

The two grids have the same top-left corner. A centre on the border of two labels takes the one below or to the right,
whichever window asks; the image's last pixels may lie beyond the mask's last ones by a part of one, and take those.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.writer import Mask
from tilesseg.raster.window import Window


def at_image(mask: Mask) -> Mask:
    """The mask on the image's own grid, enlarged while it is read; itself where that is its grid."""
    if mask.image is None or mask.image == mask.grid:
        return mask
    grid, image = mask.grid, mask.image
    steps = [own / coarse for own, coarse in zip(image.resolution, grid.resolution, strict=True)]

    def read(window: Window) -> NDArray[np.uint8]:
        rows = _under(np.arange(window.y, window.y_stop), steps[0], grid.height)
        columns = _under(np.arange(window.x, window.x_stop), steps[1], grid.width)
        seen = Window.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        # one axis after the other: ten times as fast as an index of both
        return mask.read(seen).take(columns - seen.x, axis=1).take(rows - seen.y, axis=0)

    return replace(mask, grid=image, read=read, levels=(), tile_polygons=())


def _under(pixels: NDArray[np.intp], step: float, size: int) -> NDArray[np.intp]:
    """The mask's pixel under the centre of each pixel of the image, along one axis.

    Rounded to a millionth of a pixel: what is on a border must not depend on the last bit of a quotient.
    """
    return np.asarray(np.minimum(np.floor(np.round((pixels + 0.5) * step, 6)), size - 1), np.intp)
