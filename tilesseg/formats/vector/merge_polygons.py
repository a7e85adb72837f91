"""Merge the polygons of tiles: those that cross a seam are joined, all others are passed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.vector.polygon_outlines import (
    Polygons,
    Ring,
    Runs,
    dissolved,
    gathered,
    joined,
    neighbours,
    offsets,
)
from tilesseg.formats.vector.tile_polygons import Part, read_parts, read_runs
from tilesseg.raster.window import Window

BATCH = 4096
"""Approximate number of polygons in a batch."""
POINTS = 500_000
"""Number of points from which a batch is complete with fewer polygons."""


@dataclass(slots=True)
class _Component:
    """Rings read so far of a component that lies in several parts."""

    shells: list[Ring] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    holes: list[Ring] = field(default_factory=list)

    def rings(self) -> list[Ring]:
        """Rings of the joined component. A hole lies strictly inside its part, so joining does not change it."""
        return [*dissolved(self.shells, self.windows), *self.holes]


def joined_polygons(files: Sequence[Path], labels: frozenset[int]) -> Iterator[Polygons]:
    """All polygons of some labels, the same as those of the whole mask traced at once.

    A batch has `BATCH` polygons or a few more, and fewer if they have very many points.

    Memory: the edges of polygons on the borders of all parts, one part, and the components that are incomplete.

    Args:
        files: files of `write_parts`, of which the cores partition the mask.
        labels: requested labels.
    """
    kept: list[Polygons] = []
    for polygons in _stream(files, labels):
        kept.append(polygons)
        if sum(map(len, kept)) >= BATCH or sum(len(batch.points) for batch in kept) >= POINTS:
            yield _concatenated(kept)
            kept = []
    if kept:
        yield _concatenated(kept)


def _stream(files: Sequence[Path], labels: frozenset[int]) -> Iterator[Polygons]:
    roots, numbers = _components(files, labels)
    missing = Counter(roots.values())
    waiting: dict[int, _Component] = {}
    place = 0
    for part in (part for file in files for part in read_parts(file)):
        wanted = np.isin(part.polygons.labels, list(labels))
        in_several = numbers[np.searchsorted(numbers, place) : np.searchsorted(numbers, place + len(wanted))] - place
        wanted[in_several] = False
        yield from _batches(part.polygons, np.flatnonzero(wanted))
        done = []
        for polygon in in_several.tolist():
            root = roots[place + polygon]
            _add(waiting.setdefault(root, _Component()), part, polygon)
            missing[root] -= 1
            if not missing[root]:
                done.append((int(part.polygons.labels[polygon]), waiting.pop(root).rings()))
        if done:
            yield from _batches(gathered([label for label, _ in done], [rings for _, rings in done]))
        place += len(wanted)


def _components(files: Sequence[Path], labels: frozenset[int]) -> tuple[dict[int, int], NDArray[np.int64]]:
    """Component of each polygon that continues in another part, by number; and the numbers of these polygons in order.

    Polygons are numbered through all parts.
    """
    tables, labels_of_runs, place = [], [], 0
    for file in files:
        for _, own, runs in read_runs(file):
            on = np.isin(own[runs.polygon], list(labels))
            labels_of_runs.append(own[runs.polygon[on]])
            tables.append(np.stack(runs._replace(polygon=runs.polygon + place))[:, on])
            place += len(own)
    if not tables:
        return {}, np.empty(0, np.int64)
    pairs = neighbours(Runs(*np.concatenate(tables, axis=1)), np.concatenate(labels_of_runs))
    numbers, ends = np.unique(pairs, return_inverse=True)
    roots = joined(ends.reshape(-1, 2), len(numbers))
    return dict(zip(numbers.tolist(), roots.tolist(), strict=True)), numbers


def _add(component: _Component, part: Part, polygon: int) -> None:
    shell, *holes = (ring.copy() for ring in part.polygons.rings_of(polygon))  # not a view of the whole part
    component.shells.append(shell)
    component.windows.append(part.window)
    component.holes.extend(holes)


def _batches(polygons: Polygons, chosen: NDArray[np.intp] | None = None) -> Iterator[Polygons]:
    chosen = np.arange(len(polygons)) if chosen is None else chosen
    for first in range(0, len(chosen), BATCH):
        yield polygons.take(chosen[first : first + BATCH])


def _concatenated(batches: Sequence[Polygons]) -> Polygons:
    return Polygons(
        np.concatenate([batch.labels for batch in batches]),
        offsets(np.concatenate([np.diff(batch.polygons) for batch in batches])),
        offsets(np.concatenate([np.diff(batch.rings) for batch in batches])),
        np.concatenate([batch.points for batch in batches]),
    )
