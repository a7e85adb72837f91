"""Contents of a product (`Mask`, `Scores`) and the protocols of the functions that write and check products."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


class MaskClass(NamedTuple):
    """Name and colour of a label of a mask."""

    name: str
    rgb: tuple[int, int, int]

    @property
    def colour(self) -> str:
        """The colour as `#rrggbb`."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


FAILED_CLASS = MaskClass("failed", (255, 0, 255))
"""Name and colour of label 254 (failed or not processed) in every product; no model's class is likely to have it."""


class MaskLevel(NamedTuple):
    """A coarser level of a mask that is stored already."""

    shape: tuple[int, int]
    read: Callable[[Window], NDArray[np.uint8]]
    """Labels `(y, x)` of a window, in pixels of the level."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Finished mask of a scene, for writers: labels 0 … n − 1, 254 failed or not processed, 255 nodata."""

    grid: Grid
    read: Callable[[Window], NDArray[np.uint8]]
    """Labels `(y, x)` of a window inside the grid. Writers read strips of rows, top to bottom."""
    classes: tuple[MaskClass, ...]
    provenance: Mapping[str, str]
    """Entries of the product's metadata: model, sha256, version, fingerprint …"""
    image: Grid | None = None
    """Finest grid of the image, with the same top-left corner; None where it equals `grid`."""
    paths: tuple[str, ...] = ()
    """Paths of the image's files."""
    levels: tuple[MaskLevel, ...] = ()
    """Stored coarser levels by mode, each half the size of the level before, the first half of `grid`; or none."""
    tile_polygons: tuple[Path, ...] = ()
    """Files with the polygons of each tile (see `formats.vector`); none where they are not traced yet."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Stored scores of a scene, for writers: 0–250 for 0–1, 254 failed or not processed, 255 nodata."""

    grid: Grid
    read: Callable[[int, Window], NDArray[np.uint8]]
    """Scores `(y, x)` of the class of this number, in a window inside the grid."""
    classes: tuple[str, ...]
    provenance: Mapping[str, str]
    """Entries of the product's metadata, see `Mask.provenance`."""
    image: Grid | None = None
    """Finest grid of the image, see `Mask.image`."""


class Writer(Protocol):
    """Function that writes a product, named by `writes` in a row of `FORMATS`, with the row's options as arguments."""

    def __call__(self, content: Any, path: Path, *, threads: int = 1, **options: Any) -> tuple[Path, ...]:
        """Write one product from a `Mask` or `Scores` in bounded memory, under a temporary name until it is complete.

        Returns:
            All files written: the product first, then the files beside it.

        Raises:
            FormatError: the product cannot be written; nothing is left behind.
        """


class Check(Protocol):
    """Preflight check of a format, named by `checks` in a row of `FORMATS`.

    It has the writer's arguments and is called before the first tile: the content has no pixels yet.
    """

    def __call__(self, content: Any, path: Path, **options: Any) -> None:
        """Refuse a product that could not be written.

        Raises:
            FormatError: the product cannot be written.
        """


def at_image(mask: Mask) -> Mask:
    """Mask on the finest grid of its image: each pixel has the label that lies under its centre.

    The mask is enlarged while it is read. The two grids have the same top-left corner. A centre on the border of two
    labels has the label below or to the right, whichever window is read; the last pixels of the image, which may reach
    a part of a pixel beyond the mask, have the last labels.
    """
    if mask.image is None or mask.image == mask.grid:
        return mask
    grid, image = mask.grid, mask.image
    steps = [fine / coarse for fine, coarse in zip(image.resolution, grid.resolution, strict=True)]

    def read(window: Window) -> NDArray[np.uint8]:
        rows = _under_centres(np.arange(window.y, window.y_stop), steps[0], grid.height)
        columns = _under_centres(np.arange(window.x, window.x_stop), steps[1], grid.width)
        below = Window.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        # one axis after the other: ten times as fast as an index of both
        return mask.read(below).take(columns - below.x, axis=1).take(rows - below.y, axis=0)

    return replace(mask, grid=image, read=read, levels=(), tile_polygons=())


def _under_centres(pixels: NDArray[np.intp], step: float, size: int) -> NDArray[np.intp]:
    """Pixel of the mask under the centre of each pixel of the image, along one axis.

    Quotients are rounded to a millionth of a pixel: the label on a border must not depend on their last bit.
    """
    return np.asarray(np.minimum(np.floor(np.round((pixels + 0.5) * step, 6)), size - 1), np.intp)


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text without the characters that XML 1.0 cannot hold, escaped or not."""
    return _NOT_XML.sub("\ufffd", text)
