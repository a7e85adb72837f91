"""Shapes of the levels of a product, and the transformations that give their positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilesseg.formats.geozarr.conventions import spatial_attributes
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import level_shapes

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """Shape, transformations and attributes of a level of a product."""

    shape: tuple[int, int]
    transformations: list[Plain]
    """Transformations as the attribute has them, along all axes."""
    attributes: Mapping[str, Any]
    """Further attributes of the array."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Levels of a product, finest first, and its axes."""

    axes: list[Plain]
    levels: tuple[Frame, ...]
    shared: list[Plain]
    """Transformations that hold for all levels."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(axis["name"]) for axis in self.axes)


def standing_alone(grid: Grid, image: Grid | None, *, channels: bool = False) -> Frames:
    """Frames of a pyramid down to 256 pixels.

    The pixels of a level are twice as large as those of the level below, from the same corner, so the centre of the
    first pixel moves: translation `k` is `t0 + (2^k − 1)/2 · s0`.

    Args:
        grid: grid of the finest level.
        image: finest grid of the image, from whose first pixel's centre translations count; None for `grid`.
        channels: whether an axis c precedes y and x.
    """
    unit, factor = unit_of(grid)
    scale = [side * factor for side in grid.resolution]
    start = [at * factor for at in _start(grid, image or grid)]
    lead, plain = ([1.0], [0.0]) if channels else ([], [])
    levels = []
    for number, shape in enumerate(level_shapes(grid.shape)):
        times = 2**number
        place = [at + (times - 1) / 2 * side for at, side in zip(start, scale, strict=True)]
        steps = transformations([*lead, *(side * times for side in scale)], [*plain, *place])
        levels.append(Frame(shape, steps, georeference(grid.coarsen(times))))
    space = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in ("y", "x")]
    return Frames([*([{"name": "c", "type": "channel"}] if channels else []), *space], tuple(levels), [])


def transformations(scale: list[float], translation: list[float] | None) -> list[Plain]:
    """Transformations for the attribute: a scale, and then a translation."""
    moved = [] if translation is None else [{"type": "translation", "translation": translation}]
    return [{"type": "scale", "scale": scale}, *moved]


def georeference(grid: Grid) -> Plain:
    """Attributes `spatial:` and `proj:` of a grid on the Earth; none for a slide or a plain picture."""
    return spatial_attributes(grid) if _on_earth(grid) else {}


def unit_of(grid: Grid) -> tuple[str | None, float]:
    """Unit of length in OME, and the factor that converts lengths of the grid to it."""
    if grid.unit == "micrometre":
        return "micrometer", 1.0
    if grid.crs is not None and grid.metres_per_unit is not None:
        return "meter", grid.metres_per_unit
    return None, 1.0


def _start(grid: Grid, image: Grid) -> tuple[float, float]:
    """Translation `(y, x)` of the finest level; 0 on the Earth, where the attributes `spatial:` give the position."""
    if _on_earth(grid):
        return 0.0, 0.0
    x, y = grid.to_world(0, 0)
    (tall, wide), (own_tall, own_wide) = grid.resolution, image.resolution
    return y + (tall - own_tall) / 2, x + (wide - own_wide) / 2


def _on_earth(grid: Grid) -> bool:
    return grid.crs is not None or (grid.georeferenced and grid.unit not in ("micrometre", "pixel"))
