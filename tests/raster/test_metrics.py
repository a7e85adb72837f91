"""Laws of the confusion matrix, against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.raster.metrics import confusion, iou


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
