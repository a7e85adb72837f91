"""The class index: pixels of each class in each cell, and the pixel of a rank."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.raster.window import Window
from tilesseg.training import class_cells
from tilesseg.training.class_cells import SIDE, count_cells, shares
from tilesseg.training.split import PARTS, PartMap


class Known:
    """Labels in memory, and the windows that were read of them."""

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self.labels, self.read = labels, list[Window]()

    def known(self, window: Window) -> NDArray[np.uint8]:
        self.read.append(window)
        return self.labels[window.slices()]


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (200, 333), p=[0.6, 0.3, 0.01, 0.09])


@pytest.mark.parametrize("threads", [1, 3])
def test_cells_hold_the_pixels_of_their_part(
    labels: NDArray[np.uint8], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_cells, "STRIP", 128)
    codes = np.random.default_rng(1).integers(0, 4, (13, 21)).astype(np.uint8)
    parts, known = PartMap(labels.shape, 16, codes), Known(labels)
    found = count_cells(known, labels.shape, 3, parts=parts, threads=threads)
    assert sorted(found) == sorted(PARTS)
    assert sum(window.area for window in known.read) == labels.size, "one pass"
    for part, cells in found.items():
        own = np.where(parts.mask(part, Window(0, 0, *labels.shape)), labels, 255)
        for label in range(3):
            assert cells.pixels[label] == (own == label).sum()
            assert cells.counts[label, 1, 2] == (own[64:128, 128:192] == label).sum()


def test_every_rank_is_one_pixel_of_its_class(labels: NDArray[np.uint8]) -> None:
    cells = count_cells(Known(labels), labels.shape, 3, parts=PartMap.whole("train", labels.shape))["train"]
    for label, wanted in ((2, labels == 2), (None, labels != 255)):
        places = []
        for rank in range(int(wanted.sum())):
            window, within = cells.cell(rank, label)
            assert window.height == window.width == SIDE and window.y % SIDE == window.x % SIDE == 0
            part = window.intersect(Window(0, 0, *labels.shape))
            rows, columns = np.nonzero(wanted[part.slices()])
            places.append((window.y + int(rows[within]), window.x + int(columns[within])))
        assert len(set(places)) == wanted.sum() and all(wanted[place] for place in places)


def test_shares_are_of_labelled_pixels(labels: NDArray[np.uint8]) -> None:
    cells = count_cells(Known(labels), labels.shape, 3, parts=PartMap.whole("train", labels.shape))["train"]
    known = labels[labels != 255]
    assert shares([cells, cells]) == pytest.approx([(known == label).mean() for label in range(3)])
