"""Counts of labels and of square metres, against NumPy's own, whatever the rows in which they are added."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.inference import class_counts
from tilesseg.inference.class_counts import ClassCounts
from tilesseg.raster.window import Window

Y = 7
"""Image row of the first row of labels."""


def labels_of(shape: tuple[int, int], *, kinds: int) -> NDArray[np.uint8]:
    labels = np.random.default_rng(kinds).integers(0, kinds, shape).astype(np.uint8)
    labels[-1, -1] = 255
    return labels


def areas_of(kind: str, start: int, stop: int) -> NDArray[np.float64] | None:
    """Square metres of a pixel of each row: none, the same in every row, or more in each."""
    rows = np.arange(start, stop)
    return {"none": None, "alike": np.full(len(rows), 2.5), "by row": 1 + rows / 16}[kind]


@pytest.mark.parametrize("kind", ["none", "alike", "by row"])
@pytest.mark.parametrize("rows", [1, 4, 50])
@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_pixels_and_areas_by_label_are_those_of_the_whole(
    kind: str, rows: int, kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_counts, "_TALLIED", 64)  # so that a strip is tallied in several parts
    labels = labels_of((50, 30), kinds=kinds)
    counted = ClassCounts(lambda start, stop: areas_of(kind, start, stop))
    for y in range(0, len(labels), rows):
        counted.add(labels[y : y + rows], Y + y)
    counted.add(labels[:0], Y + len(labels))
    names, pixels = np.unique(labels, return_counts=True)
    assert counted.counts == {str(name): int(count) for name, count in zip(names, pixels, strict=True)}
    by_row = areas_of(kind, Y, Y + len(labels))
    if by_row is None:
        assert counted.areas == {}
        return
    expected = {str(name): float(((labels == name).sum(axis=1) * by_row).sum()) for name in names}
    assert list(counted.areas) == list(expected)
    assert counted.areas == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["none", "alike", "by row"])
def test_a_window_of_one_label_counts_as_its_rows_do(kind: str) -> None:
    window = Window(Y, 3, 20, 11)
    at_once, by_rows = (ClassCounts(lambda start, stop: areas_of(kind, start, stop)) for _ in range(2))
    at_once.add_uniform(255, window)
    by_rows.add(np.full(window.shape, 255, np.uint8), window.y)
    assert at_once.counts == by_rows.counts == {"255": 220}
    assert at_once.areas == pytest.approx(by_rows.areas, rel=1e-12)
