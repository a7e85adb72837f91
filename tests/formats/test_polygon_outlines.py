"""Laws of outlines. Oracles: shapely's areas, validity and union, and counting pixels."""

from __future__ import annotations

import itertools

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tilesseg.formats.vector.polygon_outlines import (
    Polygons,
    Runs,
    areas,
    border_runs,
    dissolved,
    gathered,
    joined,
    neighbours,
    ring_areas,
    turned,
)
from tilesseg.formats.vector.tile_polygons import traced
from tilesseg.raster.pixel_areas import PixelAreas
from tilesseg.raster.window import Window

SQUARE = np.array([[0, 0], [0, 2], [2, 2], [2, 0], [0, 0]], np.int32)
"""Clockwise as an image is looked at: to the right along the top first."""
LABELS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 254, 255])
)


def trace(labels: NDArray[np.uint8]) -> Polygons:
    return traced(labels, Window(0, 0, *labels.shape))


def as_shapely(rings: list[NDArray[np.int32]]) -> shapely.Polygon:
    shell, *holes = (ring[:, ::-1] for ring in rings)
    return shapely.Polygon(shell, holes)


@given(LABELS)
def test_areas_are_pixel_counts(labels: NDArray[np.uint8]) -> None:
    polygons = trace(labels)
    for label in range(3):
        assert areas(polygons)[polygons.labels == label].sum() == (labels == label).sum()


@given(LABELS)
def test_shells_are_clockwise_and_holes_are_not(labels: NDArray[np.uint8]) -> None:
    polygons = trace(labels)
    shells = np.isin(np.arange(len(polygons.rings) - 1), polygons.polygons[:-1])
    assert ((ring_areas(polygons) > 0) == shells).all()


@given(LABELS, st.sampled_from([(1, 64), (2, 4), (64, 64)]))
def test_an_area_is_the_sum_over_pixels_of_their_areas(labels: NDArray[np.uint8], cell: tuple[int, int]) -> None:
    count = [-(-size // side) for size, side in zip(labels.shape, cell, strict=True)]
    of = PixelAreas.of(cell, np.random.default_rng(0).uniform(1, 2, count))
    each = of.quanta.repeat(cell[0], axis=0).repeat(cell[1], axis=1)[: labels.shape[0], : labels.shape[1]]
    polygons = trace(labels)
    for label in range(3):
        assert areas(polygons, of.up_to)[polygons.labels == label].sum() == each[labels == label].sum()


def test_rings_turned_the_wrong_way_are_turned() -> None:
    hole = np.array([[1, 1], [1, 3], [3, 3], [3, 1], [1, 1]], np.int32)
    made = gathered([7], [[SQUARE[::-1] * 2, hole]])
    assert ring_areas(made).tolist() == [16.0, -4.0]
    assert turned(made) is made
    assert as_shapely(made.rings_of(0)).area == areas(made)[0] == 12.0


@given(LABELS, st.data())
def test_taking_polygons_keeps_their_rings(labels: NDArray[np.uint8], data: st.DataObject) -> None:
    polygons = trace(labels)
    chosen = data.draw(st.lists(st.integers(0, max(0, len(polygons) - 1)), max_size=5 if len(polygons) else 0))
    taken = polygons.take(np.array(chosen, np.intp))
    assert taken.labels.tolist() == polygons.labels[chosen].tolist() if chosen else len(taken) == 0
    for place, polygon in enumerate(chosen):
        for mine, theirs in zip(taken.rings_of(place), polygons.rings_of(polygon), strict=True):
            assert (mine == theirs).all()


@given(LABELS)
def test_border_runs_cover_every_border_pixel_of_a_class_once(labels: NDArray[np.uint8]) -> None:
    window = Window(30, 70, *labels.shape)
    polygons = traced(labels, window)
    runs = border_runs(polygons, window)
    for axis, after, own in ((0, 1, labels[0]), (0, 0, labels[-1]), (1, 1, labels[:, 0]), (1, 0, labels[:, -1])):
        found = np.full(len(own), 254, np.uint8)
        for on in np.flatnonzero((runs.axis == axis) & (runs.after == after)):
            part = slice(runs.start[on] - (70, 30)[axis], runs.stop[on] - (70, 30)[axis])
            assert (found[part] == 254).all()
            found[part] = polygons.labels[runs.polygon[on]]
        assert (found == np.where(own == 255, 254, own)).all()


@given(st.integers(1, 30), st.data())
def test_union_find_gives_each_its_smallest_companion(count: int, data: st.DataObject) -> None:
    number = st.integers(0, count - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(number, number), max_size=40)), np.int64).reshape(-1, 2)
    expected = list(range(count))
    for a, b in itertools.chain(*[pairs.tolist()] * count):
        expected = [min(expected[a], expected[b]) if k in (expected[a], expected[b]) else k for k in expected]
    assert joined(pairs, count).tolist() == expected


def test_a_long_chain_is_one() -> None:
    chain = np.arange(100_000)
    pairs = np.random.default_rng(0).permutation(np.stack([chain[:-1], chain[1:]], axis=1))
    assert (joined(pairs, len(chain)) == 0).all()


def test_neighbours_share_an_edge_and_a_label() -> None:
    windows = Window(0, 0, 1, 4), Window(1, 0, 1, 4)
    upper, lower = (
        traced(np.array([row], np.uint8), w) for row, w in zip(([1, 2, 1, 0], [1, 1, 2, 0]), windows, strict=True)
    )
    mine, theirs = border_runs(upper, windows[0]), border_runs(lower, windows[1])
    theirs = theirs._replace(polygon=theirs.polygon + len(upper))
    both = Runs(*np.concatenate([np.stack(mine), np.stack(theirs)], axis=1))
    labels = np.concatenate([upper.labels, lower.labels])
    pairs = neighbours(both, labels[both.polygon])
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert sorted(labels[pairs[:, 0]].tolist()) == [0, 1]  # a 1 and a 2 are over another label


def test_two_halves_of_a_ring_join_to_a_shell_and_a_hole() -> None:
    left = traced(np.array([[1, 1], [1, 0], [1, 1]], np.uint8), Window(0, 0, 3, 2))
    right = traced(np.array([[1, 1], [0, 1], [1, 1]], np.uint8), Window(0, 2, 3, 2))
    shells = [polygons.rings_of(int(np.flatnonzero(polygons.labels == 1)[0]))[0] for polygons in (left, right)]
    shell, hole = dissolved(shells, [Window(0, 0, 3, 2), Window(0, 2, 3, 2)])
    assert len(shell) == len(hole) == 5  # no point where the seam was
    assert as_shapely([shell, hole]).equals(shapely.box(0, 0, 4, 3) - shapely.box(1, 1, 3, 2))


@given(LABELS, st.integers(1, 8))
def test_dissolving_gives_what_shapely_unites(labels: NDArray[np.uint8], at: int) -> None:
    """A frame joins all that has label 1, so that it is one component."""
    framed = np.pad((labels == 1).astype(np.uint8), 1, constant_values=1)
    whole = trace(framed)
    component = int(np.flatnonzero(whole.labels == 1)[np.argmax(areas(whole)[whole.labels == 1])])
    only = np.zeros(framed.shape, np.uint8)
    expected = as_shapely(whole.rings_of(component))
    for y, x in np.ndindex(framed.shape):
        only[y, x] = expected.contains(shapely.Point(x + 0.5, y + 0.5))
    at = min(at, framed.shape[1] - 1)
    windows = [Window(0, 0, framed.shape[0], at), Window(0, at, framed.shape[0], framed.shape[1] - at)]
    parts = [(traced(only[w.slices()], w), w) for w in windows]
    cut = [(p.rings_of(k), w) for p, w in parts for k in np.flatnonzero(p.labels == 1).tolist()]
    shell, *holes = dissolved([rings[0] for rings, _ in cut], [w for _, w in cut])
    got = as_shapely([shell, *holes, *(hole for rings, _ in cut for hole in rings[1:])])
    assert got.is_valid
    assert got.normalize() == expected.normalize()
    assert got.equals(shapely.union_all([as_shapely(rings) for rings, _ in cut]))
