"""Counts of labels and of square metres, against NumPy's own, whatever the rows in which they are added."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.inference import class_counts
from tilesseg.inference.class_counts import ClassCounts
from tilesseg.raster.pixel_areas import PixelAreas
from tilesseg.raster.window import Window

CORE = Window(7, 5, 50, 30)
"""Window of the labels in an image of 70 × 40."""


def labels_of(shape: tuple[int, int], *, kinds: int) -> NDArray[np.uint8]:
    labels = np.random.default_rng(kinds).integers(0, kinds, shape).astype(np.uint8)
    labels[-1, -1] = 255
    return labels


AREAS = {
    "none": None,
    "alike": PixelAreas.of((70, 40), np.array([[2.5]])),
    "by row": PixelAreas.of((1, 40), 1 + np.arange(70.0)[:, None] / 16),
    "by cell": PixelAreas.of((8, 16), 1 + np.arange(27.0).reshape(9, 3) / 16),
}


def whole(areas: PixelAreas) -> NDArray[np.float64]:
    """Square metres of each pixel of the core."""
    tall, wide = areas.cell
    every = areas.quanta.repeat(tall, axis=0).repeat(wide, axis=1) * areas.quantum
    return np.asarray(every[CORE.slices()], np.float64)


@pytest.mark.parametrize("kind", AREAS)
@pytest.mark.parametrize("rows", [1, 4, 50])
@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_pixels_and_areas_by_label_are_those_of_the_whole(
    kind: str, rows: int, kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_counts, "_TALLIED", 64)  # so that a strip is tallied in several parts
    labels, areas = labels_of(CORE.shape, kinds=kinds), AREAS[kind]
    counted = ClassCounts(areas, CORE.x)
    for y in range(0, len(labels), rows):
        counted.add(labels[y : y + rows], CORE.y + y)
    counted.add(labels[:0], CORE.y + len(labels))
    names, pixels = np.unique(labels, return_counts=True)
    assert counted.counts == {str(name): int(count) for name, count in zip(names, pixels, strict=True)}
    if areas is None:
        assert counted.areas == {}
        return
    expected = {str(name): float(whole(areas)[labels == name].sum()) for name in names}
    assert list(counted.areas.items()) == list(expected.items())  # exactly: areas are whole numbers of a quantum


@pytest.mark.parametrize("kind", AREAS)
def test_a_window_of_one_label_counts_as_its_rows_do(kind: str) -> None:
    at_once, by_rows = (ClassCounts(AREAS[kind], CORE.x) for _ in range(2))
    at_once.add_uniform(255, CORE)
    for y in range(CORE.y, CORE.y_stop):
        by_rows.add(np.full((1, CORE.width), 255, np.uint8), y)
    assert at_once.counts == by_rows.counts == {"255": 1500}
    assert at_once.areas == by_rows.areas
