"""What a writer is given, and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


class MaskClass(NamedTuple):
    """What a label of a mask means, and how it is drawn."""

    name: str
    rgb: tuple[int, int, int]


FAILED_CLASS = MaskClass("failed", (255, 0, 255))
"""Label 254 in every product: not processed, and drawn so that nobody takes it for a class."""


class MaskLevel(NamedTuple):
    """A stored coarser level of a mask."""

    shape: tuple[int, int]
    read: Callable[[Window], NDArray[np.uint8]]
    """As `Mask.read`, in the level's own pixels."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A finished mask as a writer sees it: labels 0 … n − 1, 254 failed or not processed, 255 nodata."""

    grid: Grid
    read: Callable[[Window], NDArray[np.uint8]]
    """Labels `(y, x)` of a window inside the grid. Writers ask for bands of rows, top to bottom."""
    classes: tuple[MaskClass, ...]
    provenance: Mapping[str, str]
    """Goes into the product's metadata as it is: model, sha256, version, fingerprint …"""
    image: Grid | None = None
    """The image's own finest grid, with the same top-left corner; None where it is `grid`."""
    paths: tuple[str, ...] = ()
    """Files of the image."""
    levels: tuple[MaskLevel, ...] = ()
    """Coarser levels by mode that are stored already, each half of the one before, the first half of `grid`; or
    none."""
    tile_polygons: tuple[Path, ...] = ()
    """Files with the polygons of each tile (see `formats.vector`); none where they are not traced yet."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Stored scores as a writer sees them: 0–250 for 0–1, 254 failed or not processed, 255 nodata."""

    grid: Grid
    read: Callable[[int, Window], NDArray[np.uint8]]
    """Of the class of this number, the scores `(y, x)` of a window inside the grid."""
    classes: tuple[str, ...]
    provenance: Mapping[str, str]
    """As `Mask.provenance`."""
    image: Grid | None = None
    """As `Mask.image`."""


class Writer(Protocol):
    """What a row's `writes` names: it takes a `Mask` or `Scores`, by the row's kind, and the options of the row."""

    def __call__(self, content: Any, path: Path, *, threads: int = 1, **options: Any) -> tuple[Path, ...]:
        """Write one product in bounded memory, under a temporary name until it is complete.

        Returns:
            Everything written: the product first, then what lies beside it.

        Raises:
            FormatError: it cannot be written; nothing is left behind.
        """


class Check(Protocol):
    """What a row's `checks` names; it gets what the writer will get, of which nothing can be read yet."""

    def __call__(self, content: Any, path: Path, **options: Any) -> None:
        """Look, before the first tile, whether the product can be written.

        Raises:
            FormatError: it cannot; says what to do.
        """
