"""What a slide's file is, and what reads the pixels of its levels: all that the source wants to know of a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tilesseg.window import Window

Shape = tuple[int, int]
"""Height and width in pixels."""


class Planes(NamedTuple):
    """What a reader reads."""

    values: NDArray[Any]
    """`(channel, y, x)`, the channels asked for, in their order."""
    valid: list[NDArray[np.bool_]]
    """Masks `(y, x)`: one for each of the masks that these channels have, in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One level of the pyramid."""

    shape: Shape
    """Of the part that is read: without what lies outside the scanned region."""
    cell: Shape
    """What is decoded when one pixel is read: a tile, a strip, a row."""
    downsample: tuple[float, float]
    """Side of a pixel in pixels of the finest level, `(y, x)`."""
    storage: str
    """How it is stored, in words."""


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """What is known of a slide once it is open."""

    path: str
    reader: str
    """The library that reads it."""
    files: tuple[str, ...]
    """Everything the pixels come from."""
    levels: tuple[SlideLevel, ...]
    """Finest first."""
    names: tuple[str | None, ...]
    """Of the bands."""
    dtype: str
    masks: tuple[int, ...]
    """For each of the bands, the number of the mask that says where it is valid."""
    mpp: tuple[float, float] | None
    """Micrometres per pixel `(y, x)` of the finest level, None where the file does not say."""
    corner: tuple[int, int] = (0, 0)
    """Top-left corner `(y, x)` of what is read, in pixels of the finest level on the slide's canvas."""
    vendor: str | None = None
    compression: str | None = None
    objective: float | None = None
    """Power of the microscope's objective."""
    series: tuple[str, ...] = ()
    """The images of the file, where it has several; the one that is read first."""
    mask: str = "all pixels valid"
    """What says which pixels are valid, in words."""
    notes: tuple[str, ...] = ()


class LevelReader(Protocol):
    """Reads pixels. Picklable, opened anew in each process; safe to use from several threads at once."""

    @property
    def facts(self) -> SlideFacts: ...

    def read(self, level: int, window: Window, channels: Sequence[int]) -> Planes:
        """A window that lies in the level.

        Raises:
            SourceError: it cannot be read; names file and window.
        """


def where(path: str, level: int, window: Window) -> str:
    """The beginning of each refusal to read."""
    rows, columns = f"rows {window.y}–{window.y_stop - 1}", f"columns {window.x}–{window.x_stop - 1}"
    return f"{path}: cannot read {rows}, {columns} of level {level}"
