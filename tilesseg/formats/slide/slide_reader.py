"""What every reader of slides gives: facts, levels, and the grid of each level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tilesseg.formats.reading.image import Planes, Shape
from tilesseg.formats.reading.pixel_size import MICROMETRE
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window


def level_grid(facts: SlideFacts, level: int) -> Grid:
    """The grid of a level: micrometres on the slide's canvas, or pixels of its finest level where they are unknown."""
    side_y, side_x = facts.mpp or (1.0, 1.0)
    (step_y, step_x), (y, x) = facts.levels[level].downsample, facts.corner
    transform = (side_x * step_x, 0.0, side_x * x, 0.0, side_y * step_y, side_y * y)
    if facts.mpp is None:
        return Grid(*facts.levels[level].shape, transform=transform)
    return Grid(*facts.levels[level].shape, transform=transform, unit="micrometre", metres_per_unit=MICROMETRE)


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One level of the pyramid."""

    shape: Shape
    """Of the part that is read: without what lies outside the scanned region."""
    storage_block: Shape
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
