"""Laws of blending."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.blend import Blender, Mosaic, decide, patch_weights, profile
from tilesseg.window import Window

KINDS = ("gaussian", "linear", "hann", "crop")


@pytest.mark.parametrize("kind", KINDS)
@given(size=st.integers(1, 2048))
def test_weights_are_strictly_positive_symmetric_and_float32(kind: str, size: int) -> None:
    weights = profile(kind, size)  # type: ignore[arg-type]
    assert weights.dtype == np.float32
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_of_a_corner_does_not_underflow(kind: str) -> None:
    assert patch_weights(kind, 2048).min() > np.finfo(np.float32).tiny  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["gaussian", "linear", "hann"])
def test_streaming_gives_the_sum_of_weighted_scores_over_the_sum_of_weights(kind: str) -> None:
    rng = np.random.default_rng(0)
    core, weights = Window(4, 6, 20, 17), patch_weights(kind, 12)  # type: ignore[arg-type]
    sums, total = np.zeros((2, 40, 40), np.float64), np.zeros((40, 40), np.float64)
    blender, bands = Blender(core, weights, 2, np.copy, stride=8), []
    for y in range(0, 28, 8):
        blender.start(Window(y, 0, 12, 12), core.y_stop if y == 24 else max(core.y, y + 8))
        for x in range(0, 28, 8):
            scores = rng.normal(size=(2, 12, 12)).astype(np.float32)
            blender.add(Window(y, x, 12, 12), scores)
            sums[:, y : y + 12, x : x + 12] += scores * weights
            total[y : y + 12, x : x + 12] += weights
        bands.append(blender.finish())
    seen = (slice(None), *core.slices())
    np.testing.assert_allclose(np.concatenate(bands, axis=1), sums[seen] / total[seen[1:]], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "linear", "hann"])
@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7, 1.0, 12345.678])
@pytest.mark.parametrize("stride", [32, 64, 80, 97])
def test_a_constant_score_stays_constant_within_2_ulp_borders_included(kind: str, score: float, stride: int) -> None:
    core, side = Window(0, 0, 310, 247), 128
    lead = (side - stride) // 2
    constant = np.full((1, side, side), score, np.float32)
    blender, bands = Blender(core, patch_weights(kind, side), 1, np.copy, stride=stride), []  # type: ignore[arg-type]
    for y in range(-lead, core.height, stride):
        last = y + stride >= core.height
        blender.start(Window(y, -lead, side, side), core.height if last else max(0, y + stride))
        for x in range(-lead, core.width, stride):
            blender.add(Window(y, x, side, side), constant)
        bands.append(blender.finish())
    blended = np.concatenate(bands, axis=1)[0]
    assert blended.shape == core.shape
    assert np.abs(blended - np.float32(score)).max() <= 2 * np.spacing(np.float32(score))


def test_crop_gives_the_scores_themselves() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    mosaic = Mosaic(Window(0, 0, 8, 8), 3, np.copy)
    mosaic.start(Window(0, 0, 8, 8), 8)
    mosaic.add(Window(0, 0, 8, 8), scores)
    assert (mosaic.finish() == scores).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = np.zeros((2, 4, 4), np.float32)
    scores[1, 3, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        Blender(Window(0, 0, 4, 4), patch_weights("gaussian", 4), 2, decide, stride=3).add(Window(0, 0, 4, 4), scores)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_decision_is_argmax_with_ties_to_the_lower_class(seed: int, classes: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, (classes, 5, 7)).astype(np.float32)
    assert (decide(scores) == scores.argmax(axis=0)).all()


def test_a_threshold_is_reached_not_passed() -> None:
    scores = np.array([[[0.49, 0.5, 0.51]]], np.float32)
    assert decide(scores, 0.5).tolist() == [[0, 1, 1]]
