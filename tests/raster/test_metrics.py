"""Laws of the confusion matrix, against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.raster.metrics import accuracy, confusion, dice, iou, kappa, precision, recall


@given(st.integers(1, 5), st.integers(0, 99))
def test_every_pixel_with_a_reference_is_counted_once_and_those_without_a_label_in_the_last_column(
    classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.choice(np.array([*range(classes), 255], np.uint8), (9, 6))
    predicted = rng.choice(np.array([*range(classes), 254, 255], np.uint8), (9, 6))
    expected = np.zeros((classes, classes + 1), int)
    for truth, label in zip(reference.flat, predicted.flat, strict=True):
        if truth != 255:
            expected[truth, label if label < classes else -1] += 1
    np.testing.assert_array_equal(confusion(reference, predicted, classes), expected)


def test_intersection_over_union_counts_pixels_without_a_label_as_missed_and_is_nan_for_an_absent_class() -> None:
    matrix = np.array([[6, 1, 0, 1], [2, 3, 0, 0], [0, 0, 0, 0]])
    assert iou(matrix) == pytest.approx([6 / 10, 3 / 6, np.nan], nan_ok=True)


def test_metrics_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(3)
    truth, found = rng.integers(0, 3, (2, 5000))
    matrix = confusion(truth.astype(np.uint8)[None], found.astype(np.uint8)[None], 4)
    for label in range(3):
        hits = ((truth == label) & (found == label)).sum()
        assert dice(matrix)[label] == pytest.approx(2 * hits / ((truth == label).sum() + (found == label).sum()))
        assert precision(matrix)[label] == pytest.approx(hits / (found == label).sum())
        assert recall(matrix)[label] == pytest.approx(hits / (truth == label).sum())
    assert np.isnan([metric(matrix)[3] for metric in (dice, precision, recall, iou)]).all()
    assert accuracy(matrix) == pytest.approx((truth == found).mean())
    chance = sum((truth == label).mean() * (found == label).mean() for label in range(3))
    assert kappa(matrix) == pytest.approx((accuracy(matrix) - chance) / (1 - chance))


def test_several_matrices_are_measured_at_once() -> None:
    matrices = np.random.default_rng(0).integers(0, 9, (7, 3, 4))
    for metric in (iou, dice, precision, recall, accuracy, kappa):
        expected = np.array([metric(matrix) for matrix in matrices])
        np.testing.assert_array_equal(metric(matrices), expected)


def test_a_reference_of_0_and_255_has_no_perfect_score_and_an_unknown_label_is_an_error() -> None:
    reference = np.array([[0, 255]], np.uint8)
    assert np.isnan(iou(confusion(reference, reference, 2))[1])
    with pytest.raises(ValueError, match="the label 7, and the classes are 0 … 1"):
        confusion(np.array([[7]], np.uint8), reference[:, :1], 2)
