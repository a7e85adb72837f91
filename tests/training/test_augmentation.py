"""Laws of augmentation: decided by the seed, nothing invented, labels never interpolated, invalid pixels as served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tilesseg.training.augmentation import TURNS, PatchPixels, change_colours, change_stains, turned
from tilesseg.training.train_spec import Augment

QUIET = {"turns": False, "scale": 0, "brightness": 0, "gamma": 0, "noise": 0, "stain": 0}


def options(**changes: Any) -> Augment:
    return Augment.model_validate({**QUIET, **changes})


def patch(side: int = 24, channels: int = 2, *, gaps: bool = True) -> PatchPixels:
    rng = np.random.default_rng(side)
    values = rng.normal(0, 1, (channels, side, side)).astype(np.float32)
    valid = np.ones((side, side), np.bool_)
    if gaps:
        valid[3:9, 5:17] = False
        values[:, ~valid] = -40.0
    labels = rng.choice(np.array([0, 3, 7, 255], np.uint8), (side, side))
    return PatchPixels(values, valid, labels)


def test_the_eight_turns_differ_and_keep_values_validity_and_labels_together() -> None:
    plane = np.arange(16).reshape(4, 4)
    assert len({turned(plane, turn).tobytes() for turn in range(TURNS)}) == TURNS
    before = patch()
    for turn in range(TURNS):
        after = before.turned(turn)
        assert np.array_equal(after.valid, turned(before.valid, turn))
        assert sorted(after.values[0][after.labels == 3]) == sorted(before.values[0][before.labels == 3])


def test_a_patch_of_the_wanted_side_is_not_touched() -> None:
    before = patch()
    assert before.resampled(24) is before


@pytest.mark.parametrize("side", [17, 24, 31, 48])
def test_a_plane_stays_a_plane_when_it_is_resampled(side: int) -> None:
    """Pixel centres keep their place: y + 2x at the centre of each new pixel, but for half a pixel at the border."""
    y, x = np.mgrid[:24, :24]
    before = PatchPixels(
        (y + 2 * x)[None].astype(np.float32), np.ones((24, 24), np.bool_), np.zeros((24, 24), np.uint8)
    )
    at = np.clip((np.arange(side) + 0.5) * 24 / side - 0.5, 0, 23)
    assert np.allclose(before.resampled(side).values[0], at[:, None] + 2 * at, atol=1e-4)


@pytest.mark.parametrize("side", [19, 29])
def test_labels_are_never_interpolated_and_invalid_pixels_keep_their_fill(side: int) -> None:
    before, after = patch(), patch().resampled(side)
    assert set(np.unique(after.labels)) <= set(np.unique(before.labels))
    assert np.all(after.values[:, ~after.valid] == -40)
    inside = after.values[:, after.valid]
    assert inside.min() >= before.values[:, before.valid].min(), "the fill value leaks into valid pixels"
    assert 0.05 < (~after.valid).mean() < 0.2


def test_colours_are_a_function_of_the_seed() -> None:
    wanted = options(brightness=0.5, gamma=0.3, noise=0.1)
    first, again, other = (change_colours(patch(), wanted, seed=seed) for seed in (4, 4, 5))
    assert first.values.tobytes() == again.values.tobytes()
    assert first.values.tobytes() != other.values.tobytes()
    assert first.values.dtype == np.float32


def test_no_change_asked_for_is_no_change() -> None:
    assert change_colours(patch(), options(), seed=1).values.tobytes() == patch().values.tobytes()


def test_colours_leave_labels_and_invalid_pixels_alone() -> None:
    before, after = patch(), change_colours(patch(), options(brightness=1, gamma=0.5, noise=0.5), seed=3)
    assert np.all(after.values[:, ~before.valid] == -40)
    assert np.array_equal(after.labels, before.labels)
    assert np.all(after.values[:, before.valid] != before.values[:, before.valid])


def test_brightness_shifts_by_at_most_its_share_of_the_deviation() -> None:
    shifts = []
    for seed in range(40):
        before, after = patch(gaps=False), change_colours(patch(gaps=False), options(brightness=0.2), seed=seed)
        moved = (after.values - before.values) / before.values.std(axis=(1, 2), keepdims=True)
        assert np.ptp(moved) < 1e-4
        shifts.append(float(moved.mean()))
    assert 0.15 < max(map(abs, shifts)) <= 0.2001
    assert min(shifts) < 0 < max(shifts)


def test_gamma_keeps_the_extremes_and_the_order() -> None:
    before = patch(gaps=False)
    for seed in range(10):
        after = change_colours(before, options(gamma=0.4), seed=seed)
        for old, new in zip(before.values, after.values, strict=True):
            assert (new.min(), new.max()) == pytest.approx((old.min(), old.max()), abs=1e-5)
            assert np.all(np.diff(new.ravel()[np.argsort(old, axis=None)]) >= -1e-6)


def test_noise_has_the_deviation_asked_for() -> None:
    before = patch(128, gaps=False)
    added = change_colours(before, options(noise=0.05), seed=9).values - before.values
    assert added.std() == pytest.approx(0.05, rel=0.03)


def test_a_patch_without_any_valid_pixel_or_contrast_stays_finite() -> None:
    wanted = options(brightness=1, gamma=0.5)
    flat = PatchPixels(np.full((1, 8, 8), 3, np.float32), np.ones((8, 8), np.bool_), np.zeros((8, 8), np.uint8))
    empty = PatchPixels(flat.values, ~flat.valid, flat.labels)
    assert np.all(change_colours(flat, wanted, seed=1).values == 3)
    assert np.all(change_colours(empty, wanted, seed=1).values == 3)


def test_stains_change_their_strength_and_glass_stays_white() -> None:
    """A pixel of eosin alone stays a pixel of eosin: its optical density keeps its direction, only stronger."""
    eosin = np.array([0.07, 0.99, 0.11]) / np.linalg.norm([0.07, 0.99, 0.11])
    slide = np.stack([np.full(3, 255.0), 255 * 10 ** (-0.6 * eosin)], axis=1)[:, :, None].astype(np.uint8)
    before = -np.log10(slide[:, 1, 0] / 255)
    strengths = []
    for seed in range(30):
        after = change_stains(slide, 0.3, white=255, seed=seed)
        assert after.dtype == np.float32
        assert np.allclose(after[:, 0], 255, atol=0.01)
        density = -np.log10(after[:, 1, 0] / 255)
        assert np.allclose(density / np.linalg.norm(density), before / np.linalg.norm(before), atol=0.05)
        strengths.append(float(np.linalg.norm(density) / np.linalg.norm(before)))
    assert 0.69 < min(strengths) < 0.8 < 1.2 < max(strengths) < 1.31
    assert np.allclose(change_stains(slide, 0.0, white=255, seed=1), slide, atol=0.01)
