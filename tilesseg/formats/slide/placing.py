"""Where the levels of a pyramid lie: how much coarser each one is, and its grid."""

from __future__ import annotations

from collections.abc import Sequence

from tilesseg.formats.slide.reader import Shape, SlideFacts
from tilesseg.grid import Grid

MICROMETRE = 1e-6
_SLACK = 0.02
"""Share by which the ratios of height and of width may differ, beyond what rounding to whole pixels does."""


def downsample(finest: Shape, shape: Shape) -> tuple[float, float] | None:
    """How many pixels of the finest level one pixel of a level covers, `(y, x)`.

    The sizes of levels are whole numbers, so their ratio is not quite what the scanner used: the whole number next
    to it is taken where both sizes follow from it by rounding, else the ratio of each axis.

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


def trusted(shapes: Sequence[Shape]) -> list[tuple[int, tuple[float, float]]]:
    """Numbers and downsamples of the levels that are coarser pictures of the first one, each coarser than the last."""
    found: list[tuple[int, tuple[float, float]]] = [(0, (1.0, 1.0))]
    for number, shape in enumerate(shapes[1:], start=1):
        told = downsample(shapes[0], shape)
        if told is not None and min(told) > max(found[-1][1]):
            found.append((number, told))
    return found


def level_grid(facts: SlideFacts, level: int) -> Grid:
    """The grid of a level: micrometres on the slide's canvas, or pixels of its finest level where they are unknown."""
    side_y, side_x = facts.mpp or (1.0, 1.0)
    (step_y, step_x), (y, x) = facts.levels[level].downsample, facts.corner
    transform = (side_x * step_x, 0.0, side_x * x, 0.0, side_y * step_y, side_y * y)
    if facts.mpp is None:
        return Grid(*facts.levels[level].shape, transform=transform)
    return Grid(*facts.levels[level].shape, transform=transform, unit="micrometre", metres_per_unit=MICROMETRE)
