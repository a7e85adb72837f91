"""A plane piece by piece: a few pieces are in work at the same time, in threads, and are given in order."""

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
"""Height of a piece, and side of a TIFF's own tiles."""
WIDE = 8 * SIDE
AHEAD = 8
"""Pieces in work at the same time."""


def pieces(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of whole TIFF tiles, row by row: memory depends on no side of the plane."""
    height, width = shape
    for y, x in product(range(0, height, SIDE), range(0, width, WIDE)):
        yield Window(y, x, SIDE, WIDE).intersect(Window(0, 0, height, width))


def bands(shape: tuple[int, int]) -> Iterator[Window]:
    """Windows of `SIDE` whole rows: what a cascade of levels takes."""
    height, width = shape
    return (Window(y, 0, min(SIDE, height - y), width) for y in range(0, height, SIDE))


def in_order(pool: Executor, work: Callable[[T], R], items: Iterable[T], *, ahead: int = AHEAD) -> Iterator[R]:
    """What threads make of items, in the order of the items, never more than `ahead` of what is taken."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
