"""Laws of blending."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.inference.blending import Blender, Mosaic, Shares, profile
from tilesseg.raster.labels import decide
from tilesseg.raster.window import Window

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
    one = profile(kind, 2048)  # type: ignore[arg-type]
    assert np.outer(one, one).min() > np.finfo(np.float32).tiny


@given(
    kind=st.sampled_from(KINDS),
    side=st.integers(1, 40),
    stride=st.integers(1, 40),
    first=st.integers(-9, 0),
    count=st.integers(1, 9),
)
def test_shares_make_one_and_are_exactly_one_where_there_is_one_patch(
    kind: str, side: int, stride: int, first: int, count: int
) -> None:
    stride = min(side, stride)
    shares = Shares(profile(kind, side), stride=stride, first=first, count=count)  # type: ignore[arg-type]
    total, patches = np.zeros(side + count * stride), np.zeros(side + count * stride, int)
    for number in range(count):
        share, seen = shares.of(first + number * stride), slice(number * stride, number * stride + side)
        assert share.weights.min() > 0
        total[seen] += share.weights
        patches[seen] += 1
        assert share.before == (np.arange(side) < side - stride).sum() * (number > 0)
        assert share.complete == (stride if number < count - 1 else side)
    np.testing.assert_allclose(total[patches > 0], 1, rtol=1e-12)
    assert (total[patches == 1] == 1).all()


@pytest.mark.parametrize("kind", ["gaussian", "linear", "hann"])
@pytest.mark.parametrize("stride", [3, 5, 8])
def test_streaming_gives_the_sum_of_weighted_scores_over_the_sum_of_weights(kind: str, stride: int) -> None:
    rng = np.random.default_rng(0)
    core, one = Window(4, 6, 20, 17), profile(kind, 12)  # type: ignore[arg-type]
    weights, axis = np.outer(one, one), Shares(one, stride=stride, first=0, count=28 // stride)
    sums, total = np.zeros((2, 60, 60), np.float64), np.zeros((60, 60), np.float64)
    blender, bands = Blender(core, (axis, axis), 2, np.copy), []
    for y in range(0, 28 // stride * stride, stride):
        blender.start(Window(y, 0, 12, 12), core.y_stop if y + stride >= 28 // stride * stride else max(4, y + stride))
        for x in range(0, 28 // stride * stride, stride):
            scores = rng.normal(size=(2, 12, 12)).astype(np.float32)
            blender.add(Window(y, x, 12, 12), scores)
            sums[:, y : y + 12, x : x + 12] += scores * weights
            total[y : y + 12, x : x + 12] += weights
        bands.append(blender.finish())
    seen = (slice(None), *core.slices())
    np.testing.assert_allclose(np.concatenate(bands, axis=1), sums[seen] / total[seen[1:]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "linear", "hann"])
@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7, 1.0, 12345.678])
@pytest.mark.parametrize("stride", [32, 64, 80, 97])
def test_a_constant_score_stays_constant_to_the_last_bit_borders_included(kind: str, score: float, stride: int) -> None:
    core, side = Window(0, 0, 310, 247), 128
    lead = (side - stride) // 2
    constant = np.full((1, side, side), score, np.float32)
    axes = tuple(
        Shares(profile(kind, side), stride=stride, first=-lead, count=-(-(size + lead) // stride))  # type: ignore[arg-type]
        for size in core.shape
    )
    blender, bands = Blender(core, axes, 1, np.copy), []  # type: ignore[arg-type]
    for y in range(-lead, core.height, stride):
        last = y + stride >= core.height
        blender.start(Window(y, -lead, side, side), core.height if last else max(0, y + stride))
        for x in range(-lead, core.width, stride):
            blender.add(Window(y, x, side, side), constant)
        bands.append(blender.finish())
    blended = np.concatenate(bands, axis=1)[0]
    assert blended.shape == core.shape
    assert (blended == np.float32(score)).all()


def test_crop_gives_the_scores_themselves() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 8, 8)).astype(np.float32)
    mosaic = Mosaic(Window(0, 0, 8, 8), np.copy, channels=3)
    mosaic.start(Window(0, 0, 8, 8), 8)
    mosaic.add(Window(0, 0, 8, 8), scores)
    assert (mosaic.finish() == scores).all()


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_decision_is_argmax_with_ties_to_the_lower_class(seed: int, classes: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 3, (classes, 5, 7)).astype(np.float32)
    assert (decide(scores) == scores.argmax(axis=0)).all()


def test_a_threshold_is_reached_not_passed() -> None:
    scores = np.array([[[0.49, 0.5, 0.51]]], np.float32)
    assert decide(scores, 0.5).tolist() == [[0, 1, 1]]
