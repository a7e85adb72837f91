"""Windows of a raster, worked on by a few threads at the same time; results come back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import product
from typing import TypeVar

from tilesseg.raster.window import Window

T = TypeVar("T")
R = TypeVar("R")

SIDE = 512
"""Height, in pixels, of a window, and side of a TIFF's own tiles."""
WIDE = 8 * SIDE
"""Width, in pixels, of a window that is no strip."""
AHEAD = 8
"""Number of windows worked on at the same time."""


def windows(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of whole TIFF tiles, row by row: memory depends on no side of the raster."""
    height, width = shape
    for y, x in product(range(0, height, SIDE), range(0, width, WIDE)):
        yield Window(y, x, SIDE, WIDE).intersect(Window(0, 0, height, width))


def strips(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of `SIDE` whole rows, top to bottom, as a cascade of levels needs them."""
    height, width = shape
    return (Window(y, 0, min(SIDE, height - y), width) for y in range(0, height, SIDE))


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], *, ahead: int = AHEAD) -> Iterator[R]:
    """Results of `work` on each item, in the order of the items, at most `ahead` of them begun and not yet taken."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
