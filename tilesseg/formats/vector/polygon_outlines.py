"""Outlines of labelled pixels, cut at the seams between tiles and joined again: exact, in whole numbers.

A polygon is a 4-connected component of equal labels. Its rings run along pixel edges, between corners `(y, x)`, with
the component on the right hand (y pointing down): the shell clockwise, holes counter-clockwise. A hole lies strictly
inside its tile, because a hole at the border is open. So a seam changes shells only, and to join two shells of a
component, the pixel edges that they share are dropped, and the remaining edges are linked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

Ring = NDArray[np.int32]
"""Closed ring: `(n + 1, 2)` corners `(y, x)`, of which the last equals the first."""


UpTo = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""Area of the rectangle from the image's corner to each position `(y, x)`."""


@dataclass(frozen=True, slots=True)
class Polygons:
    """Many polygons in flat arrays."""

    labels: NDArray[np.uint8]
    """`(polygon,)`"""
    polygons: NDArray[np.int64]
    """`(polygon + 1,)`: polygon `i` has the rings `polygons[i] … polygons[i + 1] − 1`, its shell first."""
    rings: NDArray[np.int64]
    """`(ring + 1,)`: ring `j` has the points `rings[j] … rings[j + 1] − 1`."""
    points: Ring
    """`(point, 2)`: `(y, x)` of every ring in turn, each closed."""

    def __len__(self) -> int:
        return len(self.labels)

    def rings_of(self, polygon: int) -> list[Ring]:
        """Rings of a polygon, its shell first."""
        first, last = self.polygons[polygon], self.polygons[polygon + 1]
        return [self.points[self.rings[j] : self.rings[j + 1]] for j in range(first, last)]

    def take(self, chosen: NDArray[np.intp]) -> Polygons:
        """Chosen polygons, in the order of `chosen`."""
        polygons, rings = _taken(self.polygons, chosen)
        starts, points = _taken(self.rings, rings)
        return Polygons(self.labels[chosen], polygons, starts, self.points[points])


class Runs(NamedTuple):
    """Pixel edges of polygons on the lines where tiles end, each array `(run,)`, so `np.stack(runs)` is a table."""

    axis: NDArray[np.int64]
    """0: the line is a row boundary `y = line`; 1: a column boundary `x = line`."""
    after: NDArray[np.int64]
    """1: the polygon lies after the line, below or right of it; 0: before."""
    line: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    """End of the run on the line, exclusive."""
    polygon: NDArray[np.int64]


def gathered(labels: Sequence[int], rings: Sequence[Sequence[Ring]]) -> Polygons:
    """Polygons from lists of rings, of which the first is the shell; rings are turned by `turned`."""
    flat = [ring for own in rings for ring in own]
    points = np.concatenate(flat).astype(np.int32) if flat else np.empty((0, 2), np.int32)
    made = Polygons(
        np.asarray(labels, np.uint8), offsets([len(own) for own in rings]), offsets([len(r) for r in flat]), points
    )
    return turned(made)


def turned(polygons: Polygons) -> Polygons:
    """Polygons with every shell clockwise and every hole counter-clockwise."""
    shell = np.zeros(len(polygons.rings) - 1, bool)
    shell[polygons.polygons[:-1]] = True
    backwards = (ring_areas(polygons) > 0) != shell
    if not backwards.any():
        return polygons
    lengths = np.diff(polygons.rings)
    place = np.arange(len(polygons.points))
    mirrored = np.repeat(polygons.rings[:-1] + polygons.rings[1:] - 1, lengths) - place
    order = np.where(np.repeat(backwards, lengths), mirrored, place)
    return Polygons(polygons.labels, polygons.polygons, polygons.rings, polygons.points[order])


def ring_areas(polygons: Polygons, up_to: UpTo | None = None) -> NDArray[np.int64]:
    """Area of each ring `(ring,)`, negative for holes, as a whole number: exact, wherever the ring begins.

    Args:
        polygons: polygons with the rings.
        up_to: function that gives the area from the image's corner to positions `(y, x)`, see `PixelAreas.up_to`; None
            counts pixels.
    """
    y, x = polygons.points.astype(np.int64).T
    if not len(y):
        return np.zeros(0, np.int64)
    measure = up_to or np.multiply
    edges = measure(y[1:], x[:-1]) - measure(y[:-1], x[:-1])  # 0 along a row
    terms = np.append(edges, 0)
    terms[polygons.rings[1:] - 1] = 0  # from the end of a ring to the beginning of the next
    return np.asarray(np.add.reduceat(terms, polygons.rings[:-1]), np.int64)


def areas(polygons: Polygons, up_to: UpTo | None = None) -> NDArray[np.int64]:
    """Area of each polygon `(polygon,)` without its holes; for `up_to` see `ring_areas`."""
    if not len(polygons):
        return np.zeros(0, np.int64)
    return np.asarray(np.add.reduceat(ring_areas(polygons, up_to), polygons.polygons[:-1]), np.int64)


def border_runs(polygons: Polygons, window: Window) -> Runs:
    """Edges of polygons on the border of their window."""
    start, stop, ring = _segments(polygons)
    polygon = np.searchsorted(polygons.polygons, ring, side="right") - 1
    tables = []
    for axis, before, after in ((0, window.y, window.y_stop), (1, window.x, window.x_stop)):
        for line, is_after in ((before, True), (after, False)):
            on = (start[:, axis] == line) & (stop[:, axis] == line)
            along = np.sort([start[on, 1 - axis], stop[on, 1 - axis]], axis=0)
            facts = (np.full(along.shape[1], fact) for fact in (axis, is_after, line))
            tables.append(np.stack([*facts, *along, polygon[on]]).astype(np.int64))
    return Runs(*np.concatenate(tables, axis=1))


def neighbours(runs: Runs, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs `(pair, 2)` of polygons of equal label that share a pixel edge across a line.

    Args:
        runs: runs of all tiles, with polygons numbered through.
        labels: `(run,)`, label of each run's polygon.
    """
    place = (runs.axis << 62) + (runs.line << 31)
    starts, stops = place + runs.start, place + runs.stop
    before, after = np.flatnonzero(runs.after == 0), np.flatnonzero(runs.after)
    after = after[np.argsort(starts[after])]
    first = np.searchsorted(stops[after], starts[before], side="right")
    counts = np.searchsorted(starts[after], stops[before], side="left") - first
    mine = np.repeat(before, counts)
    theirs = after[_counted(first, counts)]
    same = labels[mine] == labels[theirs]
    return np.stack([runs.polygon[mine[same]], runs.polygon[theirs[same]]], axis=1)


def joined(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Union-find over `count` numbers: the smallest number `(count,)` that the pairs connect each of them with."""
    root = np.arange(count)
    while True:
        ends = np.sort(root[pairs], axis=1)
        apart = ends[ends[:, 0] != ends[:, 1]]
        if not len(apart):
            return root
        np.minimum.at(root, apart[:, 1], apart[:, 0])
        while (root != (further := root[root])).any():
            root = further


def dissolved(shells: Sequence[Ring], windows: Sequence[Window]) -> list[Ring]:
    """Join shells of a component that meet at the borders of their windows.

    Args:
        shells: clockwise shells.
        windows: window of each shell.

    Returns:
        The shell, then the holes that arise.
    """
    edges = _edges(shells, windows)
    kept = np.ones(len(edges.start), bool)
    on = np.flatnonzero(edges.border)
    kept[on] = ~_repeated(_edge_keys(edges.start[on], edges.stop[on]))
    corners = _keys(edges.start)
    forks = np.zeros(len(kept), bool)
    forks[kept] = _repeated(corners[kept])
    begins = kept & (edges.first | ~np.roll(kept, 1) | forks)
    rings = [_without_straight(ring) for ring in _linked(edges, kept, begins)]
    return sorted(rings, key=_signed_area, reverse=True)


class _Edges(NamedTuple):
    """Edges of many rings in turn; those on a border of their window are divided into edges of a pixel."""

    start: Ring
    stop: Ring
    border: NDArray[np.bool_]
    first: NDArray[np.bool_]
    """Whether a ring begins at the edge."""


def _edges(shells: Sequence[Ring], windows: Sequence[Window]) -> _Edges:
    start = np.concatenate([shell[:-1] for shell in shells])
    stop = np.concatenate([shell[1:] for shell in shells])
    bounds = np.array([[w.y, w.x, w.y_stop, w.x_stop] for w in windows], np.int32)
    lengths = [len(shell) - 1 for shell in shells]
    own = np.repeat(bounds, lengths, axis=0).reshape(-1, 2, 2).transpose(1, 0, 2)
    border = (((start == own) & (stop == own)).any(axis=0)).any(axis=1)
    first = np.zeros(len(start), bool)
    first[offsets(lengths)[:-1]] = True
    steps = np.where(border, np.abs(stop - start).max(axis=1), 1)
    nth = _counted(np.zeros(len(steps), np.int64), steps)[:, None]
    way, border = np.repeat(np.sign(stop - start), steps, axis=0), np.repeat(border, steps)
    begin = (np.repeat(start, steps, axis=0) + nth * way).astype(np.int32)
    end = np.where(border[:, None], begin + way, np.repeat(stop, steps, axis=0)).astype(np.int32)
    return _Edges(begin, end, border, np.repeat(first, steps) & (nth[:, 0] == 0))


def _linked(edges: _Edges, kept: NDArray[np.bool_], begins: NDArray[np.bool_]) -> list[Ring]:
    """Closed rings of the kept edges, of which each is a sequence of lines that begin where `begins` is set."""
    first = np.flatnonzero(begins).tolist()
    last = np.flatnonzero(kept & np.append(begins[1:] | ~kept[1:], True)).tolist()
    follows = _followers(edges, first, last)
    rings: list[Ring] = []
    while follows:
        begin, line = follows.popitem()
        parts = [edges.start[first[begin] : last[begin] + 1]]
        while line != begin:
            parts.append(edges.start[first[line] : last[line] + 1])
            line = follows.pop(line)
        rings.append(np.concatenate([*parts, parts[0][:1]]))
    return rings


def _followers(edges: _Edges, first: Sequence[int], last: Sequence[int]) -> dict[int, int]:
    """Number of the line that continues each line: of two that begin at its end, the line to the left.

    Where two corners of a component meet in a point, the outside or a hole lies between them. A ring that turns left
    stays at that side, and so no ring touches itself.
    """
    starting: dict[tuple[int, int], list[int]] = {}
    for line, corner in enumerate(edges.start[first].tolist()):
        starting.setdefault(tuple(corner), []).append(line)
    outward = np.sign(edges.stop[first] - edges.start[first]).tolist()
    y, x = np.sign(edges.stop[last] - edges.start[last]).T.tolist()
    left = [[-dx, dy] for dy, dx in zip(y, x, strict=True)]
    follows = {}
    for line, corner in enumerate(edges.stop[last].tolist()):
        going = starting[tuple(corner)]
        follows[line] = going[0] if len(going) == 1 else next(n for n in going if outward[n] == left[line])
    return follows


def _without_straight(ring: Ring) -> Ring:
    """Ring without the points at which it does not turn."""
    way = np.sign(np.diff(ring, axis=0))
    turns = (way != np.roll(way, 1, axis=0)).any(axis=1)
    corners = ring[:-1][turns]
    return np.concatenate([corners, corners[:1]])


def _signed_area(ring: Ring) -> float:
    y, x = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x[:-1] - x[0]) @ np.diff(y))


def _segments(polygons: Polygons) -> tuple[Ring, Ring, NDArray[np.int64]]:
    """First and last corner of all straight lines, and the number of each line's ring."""
    inside = np.ones(len(polygons.points), bool)
    inside[polygons.rings[1:] - 1] = False  # from the end of a ring to the beginning of the next
    at = np.flatnonzero(inside)
    ring = np.repeat(np.arange(len(polygons.rings) - 1), np.diff(polygons.rings) - 1)
    return polygons.points[at], polygons.points[at + 1], ring


def _edge_keys(start: Ring, stop: Ring) -> NDArray[np.int64]:
    """Number of each pixel edge, the same for both directions."""
    return np.asarray((_keys(np.minimum(start, stop)) << 1) + (start[:, 1] == stop[:, 1]), np.int64)


def _keys(corners: Ring) -> NDArray[np.int64]:
    y, x = corners.astype(np.int64).T
    keys: NDArray[np.int64] = (y << 31) + x
    return keys


def _repeated(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the keys that occur more than once."""
    _, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[back] > 1)


def offsets(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Offset of each item of these lengths in a flat array, and the end of the last."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _counted(first: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.intp]:
    """Numbers `first[i], first[i] + 1, …`, `counts[i]` of them, for each i in turn."""
    place = np.arange(int(counts.sum())) - np.repeat(offsets(counts)[:-1], counts)
    return np.asarray(np.repeat(first, counts) + place, np.intp)


def _taken(starts: NDArray[np.int64], chosen: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Offsets of the chosen items, and the places of their members."""
    counts = starts[chosen + 1] - starts[chosen]
    return offsets(counts), _counted(starts[chosen], counts)
