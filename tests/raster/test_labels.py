"""Laws of labels and of stored scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.errors import ModelError
from tilesseg.raster.labels import FAILED, NODATA, SCORE_STEPS, decide, decide_and_keep, quantise


@given(st.integers(1, 6), st.sampled_from([1, 63, 64, 65, 130]), st.integers(0, 99))
def test_the_label_is_the_first_class_of_the_highest_score(channels: int, height: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, (channels, height, 7)).astype(np.float32)
    np.testing.assert_array_equal(decide(scores), scores.argmax(axis=0))


def test_a_threshold_is_reached_by_a_score_that_equals_it() -> None:
    scores = np.array([[[0.3, 0.29999998, 0.30000004, 0.0, 1.0]]], np.float32).repeat(130, axis=1)
    labels = decide(scores, 0.3)
    assert labels.dtype == np.uint8 and (labels == [1, 0, 1, 0, 1]).all()


@given(st.integers(1, 6), st.integers(0, 99))
def test_a_pixel_is_background_where_no_score_reaches_the_threshold_else_of_its_highest_score(channels, seed) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (channels, 65, 7)).astype(np.float32) / 4
    expected = np.where((scores >= 0.75).any(axis=0), 1 + scores.argmax(axis=0), 0)
    np.testing.assert_array_equal(decide(scores, 0.75), expected)


def test_kept_scores_lie_below_the_labels_in_the_requested_order() -> None:
    scores = np.random.default_rng(0).random((4, 70, 5)).astype(np.float32)
    planes = decide_and_keep(scores, kept=(3, 1))
    np.testing.assert_array_equal(planes, np.stack([decide(scores), quantise(scores[3]), quantise(scores[1])]))


def test_scores_are_stored_as_the_nearest_of_250_steps_and_rounding_beyond_the_ends_is_cut_off() -> None:
    scores = np.array([0, 1, 0.5, 0.0019, 0.0021, 0.9979, -0.0009, 1.0009], np.float32)
    assert quantise(scores).tolist() == [0, 250, 125, 0, 1, 249, 0, 250]
    assert quantise(scores[:0]).tolist() == []


@pytest.mark.parametrize("score", [-0.002, 1.002, np.inf])
def test_a_score_that_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(ModelError, match="scores are stored as 0 to 1"):
        quantise(np.array([0.5, score], np.float32))


def test_the_values_in_stored_masks_and_scores_stay() -> None:
    assert (SCORE_STEPS, FAILED, NODATA) == (250, 254, 255)
