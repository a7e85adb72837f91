"""Boundary scores, against distances of all pairs of pixels, whatever the windows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.raster.boundaries import FOUND, FOUND_HIT, TRUE, TRUE_HIT, boundary_counts, boundary_scores, halo
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]


def blobs(seed: int, classes: int = 3) -> tuple[Labels, Labels]:
    """A reference with unknown pixels, and a mask like it with failed ones."""
    draw = np.random.default_rng(seed)
    shape = int(draw.integers(1, 40)), int(draw.integers(1, 40))
    coarse = draw.integers(0, classes, (11, 11)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    reference = coarse[: shape[0], : shape[1]].copy()
    predicted = np.roll(coarse, tuple(draw.integers(-2, 3, 2).tolist()), (0, 1))[: shape[0], : shape[1]].copy()
    reference[draw.random(shape) < 0.05] = 255
    predicted[draw.random(shape) < 0.03] = 254
    return reference, predicted


def slowly(reference: Labels, predicted: Labels, classes: int, tolerance: int) -> NDArray[np.int64]:
    """The counts by their definition."""
    predicted = np.where(reference == 255, 255, predicted)

    def places(labels: NDArray[np.int64], label: int) -> NDArray[np.int64]:
        found = []
        for y, x in np.argwhere(labels == label).tolist():
            around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            inside = [labels[at] for at in around if 0 <= at[0] < labels.shape[0] and 0 <= at[1] < labels.shape[1]]
            if any(each != label and each < classes for each in inside):
                found.append((y, x))
        return np.array(found, np.int64).reshape(-1, 2)

    def hits(own: NDArray[np.int64], other: NDArray[np.int64]) -> int:
        squares = ((own[:, None] - other[None]) ** 2).sum(-1)
        return int((squares <= tolerance**2).any(axis=1).sum()) if squares.size else 0

    counts = np.zeros((classes, 4), np.int64)
    for label in range(classes):
        true, found = places(reference.astype(np.int64), label), places(predicted.astype(np.int64), label)
        counts[label, [TRUE, FOUND]] = len(true), len(found)
        counts[label, [TRUE_HIT, FOUND_HIT]] = hits(true, found), hits(found, true)
    return counts


@pytest.mark.parametrize("seed", range(50))
def test_boundaries_are_those_of_the_definition_whatever_the_windows(seed: int) -> None:
    reference, predicted = blobs(seed)
    tolerance, whole = seed % 6, Window(0, 0, *reference.shape)
    expected = slowly(reference, predicted, 3, tolerance)
    assert (boundary_counts(reference, predicted, 3, tolerance=tolerance, inner=whole) == expected).all()
    total, reach = np.zeros((3, 4), np.int64), halo(tolerance)
    for y in range(0, reference.shape[0], 7):
        for x in range(0, reference.shape[1], 13):
            core = Window(y, x, 7, 13).intersect(whole)
            read = core.inset(-reach, -reach).intersect(whole)
            parts = reference[read.slices()], predicted[read.slices()]
            inner = core.shift(-read.y, -read.x)
            total += boundary_counts(*parts, 3, tolerance=tolerance, inner=inner)
    assert (total == expected).all()


def test_scores_of_a_boundary_that_one_side_lacks_are_0_and_of_none_undefined() -> None:
    counts = np.array([[10, 5, 8, 8], [4, 0, 0, 0], [0, 0, 0, 0]])
    scores = boundary_scores(counts)
    assert scores[0] == pytest.approx([1.0, 0.5, 2 / 3])
    assert np.isnan(scores[1, 0]) and scores[1, 1:].tolist() == [0.0, 0.0]
    assert np.isnan(scores[2]).all()
