"""Outlines of labelled pixels, cut at the seams between tiles and joined again: exact, in whole numbers.

A polygon is a 4-connected component of equal labels. Its rings run along pixel edges, between corners `(y, x)`, with
the component on the right hand (in the image as it is looked at): the shell clockwise, holes counter-clockwise. A hole
is strictly inside its tile, or it would be open there; so a seam changes shells only, and joining is: drop the pixel
edges that two shells of a component share, and link what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.raster.window import Window

Ring = NDArray[np.int32]
"""Closed: `(n + 1, 2)` corners `(y, x)`, the last one the first."""


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
        """The rings of a polygon, its shell first."""
        first, last = self.polygons[polygon], self.polygons[polygon + 1]
        return [self.points[self.rings[j] : self.rings[j + 1]] for j in range(first, last)]

    def take(self, chosen: NDArray[np.intp]) -> Polygons:
        """These polygons, in this order."""
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
    """Along the line, half-open."""
    polygon: NDArray[np.int64]


def gathered(labels: Sequence[int], rings: Sequence[Sequence[Ring]]) -> Polygons:
    """Polygons from the rings of each, turned as they should be: shell first."""
    flat = [ring for own in rings for ring in own]
    points = np.concatenate(flat).astype(np.int32) if flat else np.empty((0, 2), np.int32)
    made = Polygons(
        np.asarray(labels, np.uint8), offsets([len(own) for own in rings]), offsets([len(r) for r in flat]), points
    )
    return turned(made)


def turned(polygons: Polygons) -> Polygons:
    """Every shell clockwise, every hole counter-clockwise."""
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


def ring_areas(polygons: Polygons, rows: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Area of each ring `(ring,)`, negative for holes.

    Args:
        polygons: whose rings.
        rows: `(height + 1,)`, the area of one column of the image down to each row boundary; None counts pixels.
    """
    y, x = polygons.points[:, 0], polygons.points[:, 1].astype(np.float64)
    depth = y.astype(np.float64) if rows is None else rows[y]
    if not len(y):
        return np.zeros(0)
    from_first = x - np.repeat(x[polygons.rings[:-1]], np.diff(polygons.rings))  # small numbers lose nothing
    terms = np.append(from_first[:-1] * np.diff(depth), 0.0)
    terms[polygons.rings[1:] - 1] = 0.0  # from one ring's end to the next one's beginning
    return np.asarray(np.add.reduceat(terms, polygons.rings[:-1]))


def areas(polygons: Polygons, rows: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Area of each polygon `(polygon,)`, its holes taken off; `rows` as in `ring_areas`."""
    if not len(polygons):
        return np.zeros(0)
    return np.asarray(np.add.reduceat(ring_areas(polygons, rows), polygons.polygons[:-1]))


def border_runs(polygons: Polygons, window: Window) -> Runs:
    """Where polygons of a window reach its border."""
    start, stop, ring = _segments(polygons)
    polygon = np.searchsorted(polygons.polygons, ring, side="right") - 1
    found = []
    for axis, before, after in ((0, window.y, window.y_stop), (1, window.x, window.x_stop)):
        for line, is_after in ((before, True), (after, False)):
            on = (start[:, axis] == line) & (stop[:, axis] == line)
            along = np.sort([start[on, 1 - axis], stop[on, 1 - axis]], axis=0)
            facts = (np.full(along.shape[1], fact) for fact in (axis, is_after, line))
            found.append(np.stack([*facts, *along, polygon[on]]).astype(np.int64))
    return Runs(*np.concatenate(found, axis=1))


def neighbours(runs: Runs, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pairs `(pair, 2)` of polygons of equal label that share a pixel edge across a line.

    Args:
        runs: of all tiles, their polygons numbered through.
        labels: `(run,)`, the label of each run's polygon.
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
    """Union-find over `count` things: of each the smallest one `(count,)` that the pairs connect it with."""
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
    """Join shells of one component that meet at the borders of their windows: the shell, then the holes that arise.

    Args:
        shells: each turned clockwise.
        windows: the window that each was cut out of.
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
    """Of many rings in turn; those on a border of their window are a pixel long, the others as long as they are."""

    start: Ring
    stop: Ring
    border: NDArray[np.bool_]
    first: NDArray[np.bool_]
    """Whether a ring begins here."""


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
    """Closed rings of the kept edges, cut into lines wherever one begins."""
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
    """Of each line the one that goes on where it ends: where two do, the one to the left.

    Two corners of a component that meet in a point have the outside, or a hole, between them; turning left stays with
    that, and so no ring touches itself.
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
    """The ring without points at which it does not turn."""
    way = np.sign(np.diff(ring, axis=0))
    turns = (way != np.roll(way, 1, axis=0)).any(axis=1)
    corners = ring[:-1][turns]
    return np.concatenate([corners, corners[:1]])


def _signed_area(ring: Ring) -> float:
    y, x = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x[:-1] - x[0]) @ np.diff(y))


def _segments(polygons: Polygons) -> tuple[Ring, Ring, NDArray[np.int64]]:
    """Beginnings and ends of all straight lines, and the ring that each is of."""
    inside = np.ones(len(polygons.points), bool)
    inside[polygons.rings[1:] - 1] = False  # from one ring's end to the next one's beginning
    at = np.flatnonzero(inside)
    ring = np.repeat(np.arange(len(polygons.rings) - 1), np.diff(polygons.rings) - 1)
    return polygons.points[at], polygons.points[at + 1], ring


def _edge_keys(start: Ring, stop: Ring) -> NDArray[np.int64]:
    """A number for each pixel edge, whichever way it is gone along."""
    return np.asarray((_keys(np.minimum(start, stop)) << 1) + (start[:, 1] == stop[:, 1]), np.int64)


def _keys(corners: Ring) -> NDArray[np.int64]:
    y, x = corners.astype(np.int64).T
    keys: NDArray[np.int64] = (y << 31) + x
    return keys


def _repeated(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which keys occur more than once."""
    _, back, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[back] > 1)


def offsets(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several begins, and the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _counted(first: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.intp]:
    """`first[i], first[i] + 1, …`, `counts[i]` of them, for each i in turn."""
    place = np.arange(int(counts.sum())) - np.repeat(offsets(counts)[:-1], counts)
    return np.asarray(np.repeat(first, counts) + place, np.intp)


def _taken(starts: NDArray[np.int64], chosen: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Offsets of the chosen ones, and what they hold."""
    counts = starts[chosen + 1] - starts[chosen]
    return offsets(counts), _counted(starts[chosen], counts)
