"""Calibration from histograms, against sums over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from tilesseg.raster.calibration import BINS, calibration_error, cross_entropy, reliability, score_histogram


def test_histograms_give_the_error_and_the_entropy_of_the_pixels() -> None:
    draw = np.random.default_rng(0)
    first = draw.integers(0, 251, (60, 70)).astype(np.uint8)
    reference = (draw.random((60, 70)) > first / 250).astype(np.uint8)  # class 0 is as frequent as its score says
    reference[:3] = 255
    stored = np.stack([first, 250 - first])
    stored[:, 5] = 254
    histogram = np.stack([score_histogram(reference, stored[label], label) for label in (0, 1)])
    known = (reference != 255) & (stored[0] <= 250)
    scores, truth = stored[:, known] / 250, reference[known]
    expected = []
    for label in (0, 1):
        bins = np.minimum((scores[label] * BINS + 1e-9).astype(int), BINS - 1)
        parts = [(bins == b) for b in range(BINS)]
        away = [abs((truth[p] == label).mean() - scores[label][p].mean()) * p.mean() for p in parts if p.any()]
        expected.append(sum(away))
    assert calibration_error(histogram) == pytest.approx(expected)
    of_truth = np.where(truth == 0, scores[0], scores[1])
    assert cross_entropy(histogram) == pytest.approx(-np.log(np.maximum(of_truth, 1 / 500)).mean())


def test_a_sure_and_wrong_score_costs_the_logarithm_of_500() -> None:
    histogram = score_histogram(np.ones((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 1)
    assert cross_entropy(histogram) == pytest.approx(np.log(500))
    pixels, right, confidence = reliability(histogram)
    assert pixels.sum() == 1 and right[0] == 1 and confidence[0] == 0 and np.isnan(right[1:]).all()


def test_without_pixels_nothing_is_known() -> None:
    histogram = np.zeros((2, 251, 2), np.int64)
    assert np.isnan(calibration_error(histogram)).all() and np.isnan(cross_entropy(histogram))
