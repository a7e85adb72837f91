"""Laws of sampling: a function of seed, step and number; labelled pixels that train, each as often; rare classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from labelled_arrays import array_scene, sampler_of

from tilesseg.raster.window import Window
from tilesseg.training.patch_sampling import Geometry, PatchDraw, PatchSampler, largest_side
from tilesseg.training.split import SplitScene, split_scenes
from tilesseg.training.train_spec import Split


def draws(sampler: PatchSampler, count: int) -> list[PatchDraw]:
    return [sampler.draw(step, index) for step in range(count // 8) for index in range(8)]


def two_classes(side: int = 200, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return (np.random.default_rng(seed).random((side, side)) < 0.3).astype(np.uint8)


def test_a_draw_is_a_function_of_seed_step_and_number_alone() -> None:
    scenes = [array_scene("a", two_classes()), array_scene("b", two_classes(90, 1))]
    augment = {"turns": True, "scale": 0.3}
    first, again, other = (sampler_of(scenes, classes=2, augment=augment, seed=seed) for seed in (7, 7, 8))
    drawn = {(step, index): first.draw(step, index) for step in range(6) for index in range(4)}
    assert len(set(drawn.values())) == len(drawn)
    assert all(again.draw(*key) == drawn[key] for key in reversed(drawn))
    assert all(other.draw(*key) != drawn[key] for key in drawn)


def test_every_change_of_size_and_every_turn_is_drawn() -> None:
    sampler = sampler_of([array_scene("a", two_classes())], classes=2, augment={"turns": True, "scale": 0.25})
    drawn = draws(sampler, 400)
    assert {draw.turn for draw in drawn} == set(range(8))
    sides = {draw.window.height for draw in drawn}
    assert sides == set(range(13, 21))
    assert max(sides) == largest_side(16, 0.25)
    assert all(draw.window.height == draw.window.width for draw in drawn)


def test_a_rare_class_of_a_ten_thousandth_of_the_pixels_is_in_the_share_of_patches_asked_for() -> None:
    truth = np.zeros((600, 600), np.uint8)
    truth[500:506, 40:46] = 1
    sampler = sampler_of([array_scene("a", truth)], classes=2, sampling={"foreground": 0.33})
    held = [bool((truth[draw.window.slices()] == 1).any()) for draw in draws(sampler, 800)]
    assert np.mean(held) == pytest.approx(0.33, abs=0.05)


def test_rare_classes_share_the_foreground_and_absent_ones_take_nothing() -> None:
    truth = np.zeros((300, 300), np.uint8)
    truth[20:24, 20:24], truth[200:260, 200:280] = 2, 4
    sampler = sampler_of([array_scene("a", truth)], classes=6, sampling={"foreground": 1.0})
    held = [{int(label) for label in np.unique(truth[draw.window.slices()])} for draw in draws(sampler, 400)]
    assert np.mean([2 in labels for labels in held]) == pytest.approx(0.5, abs=0.08)
    assert all(labels & {2, 4} for labels in held)


def test_without_foreground_every_labelled_pixel_is_drawn_as_often() -> None:
    """Pixels in patches, far from the border: each lies in patch² ÷ pixels of them."""
    truth = two_classes(100)
    sampler = sampler_of(
        [array_scene("a", truth)], classes=2, geometry=Geometry(8, 0), sampling={"foreground": 0, "batch": 1}
    )
    hits = np.zeros(truth.shape)
    for draw in draws(sampler, 6000):
        hits[draw.window.slices()] += 1
    quarters = [hits[y : y + 40, x : x + 40].mean() for y in (10, 50) for x in (10, 50)]
    assert np.ptp(quarters) / np.mean(quarters) < 0.12
    assert hits[10:90, 10:90].min() > 0


def test_scenes_are_drawn_by_their_labelled_pixels() -> None:
    large, small = two_classes(), two_classes(100, 1)
    drawn = draws(sampler_of([array_scene("a", large), array_scene("b", small)], classes=2), 600)
    assert np.mean([draw.scene == 1 for draw in drawn]) == pytest.approx(0.2, abs=0.05)


def test_only_labelled_and_valid_pixels_are_drawn_round() -> None:
    truth, valid = two_classes(200), np.zeros((200, 200), np.bool_)
    valid[:, 100:] = True
    truth[100:] = 255
    sampler = sampler_of([array_scene("a", truth, valid)], classes=2)
    quarter = Window(0, 100, 100, 100)
    assert all(draw.window.touches(quarter) for draw in draws(sampler, 200))
    assert int(sampler.pixels.sum()) == 100 * 100


@pytest.mark.parametrize(("scale", "block"), [(0.0, 64), (0.3, 64), (0.0, 96)])
def test_patches_that_train_never_touch_a_pixel_that_is_scored(scale: float, block: int) -> None:
    """Also where blocks end inside cells of the class index."""
    scene = array_scene("a", two_classes(512))
    split = Split.model_validate({"by": "block", "block": block, "validate": 0.15, "test": 0.1})
    facts = SplitScene("a", "a.tif", scene.source.grid, scene.source.grid)
    parts = split_scenes([facts], split, patch=largest_side(16, scale))["a"]
    sampler = sampler_of([scene], classes=2, parts=[parts], augment={"scale": scale})
    whole = scene.source.grid.window
    scored = parts.mask("validate", whole) | parts.mask("test", whole)
    assert scored.any()
    drawn = draws(sampler, 400)
    assert not any(scored[draw.window.slices()].any() for draw in drawn)
    assert all(parts.mask("train", draw.window).any() for draw in drawn)


@pytest.mark.parametrize(("patch", "shrink"), [(16, 0), (32, 12)])
def test_labels_of_a_patch_lie_in_the_image_and_the_patch_overhangs(patch: int, shrink: int) -> None:
    truth, whole = two_classes(48), Window(0, 0, 48, 48)
    drawn = draws(sampler_of([array_scene("a", truth)], classes=2, geometry=Geometry(patch, shrink)), 300)
    for draw in drawn:
        assert whole.contains(draw.window.inset(shrink // 2, shrink // 2))
    assert any(not whole.contains(draw.window) for draw in drawn) == (shrink > 0)


def test_a_scene_smaller_than_a_patch_is_covered_by_it() -> None:
    truth = two_classes(11)
    for draw in draws(sampler_of([array_scene("a", truth)], classes=2), 100):
        assert draw.window.contains(Window(0, 0, 11, 11))


def test_a_scene_of_one_class_has_no_rare_one() -> None:
    sampler = sampler_of([array_scene("a", np.ones((64, 64), np.uint8))], classes=3, sampling={"foreground": 1.0})
    assert len(draws(sampler, 16)) == 16
