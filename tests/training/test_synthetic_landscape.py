"""Laws of the made-up landscape: the same from everywhere, complete, and not too easy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tilesseg.raster.window import Window
from tilesseg.training.synthetic_landscape import BANDS, CLASSES, FIELD, NODATA, WATER, landscape, stripes
from tilesseg.training.synthetic_noise import fractal, uniform

SHAPE = (700, 900)


def test_a_seed_gives_the_same_scene_again() -> None:
    first, second = landscape(SHAPE, 3), landscape(SHAPE, 3)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


def test_a_seed_gives_the_same_scene_in_another_process() -> None:
    code = (
        "import zlib; from tilesseg.training.synthetic_landscape import landscape as l; "
        "print(zlib.crc32(l((90, 70), 3).bands.tobytes()))"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(seen) == 1


def test_another_seed_gives_another_country() -> None:
    first, second = landscape(SHAPE, 3), landscape(SHAPE, 4)
    assert (first.labels != second.labels).mean() > 0.3
    assert np.array_equal(first.valid, second.valid)


@pytest.mark.parametrize(
    "window", [Window(0, 0, 1, 1), Window(37, 501, 300, 77), Window(255, 3, 2, 880), Window(400, 700, 300, 200)]
)
def test_a_window_holds_the_pixels_of_the_whole(window: Window) -> None:
    whole, part = landscape(SHAPE, 3), landscape(SHAPE, 3, window=window)
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[..., *window.slices()], b)


def test_the_ground_does_not_depend_on_the_size_of_the_scene() -> None:
    small, large = landscape((300, 300), 3), landscape((600, 900), 3)
    both = small.valid & large.valid[:300, :300]
    assert np.array_equal(small.labels, large.labels[:300, :300])
    assert np.array_equal(small.bands[:, both], large.bands[:, :300, :300][:, both])


def test_a_window_outside_the_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves the scene of 700 × 900"):
        landscape(SHAPE, 3, window=Window(0, 0, 701, 1))


def test_all_classes_are_there_and_none_is_nearly_all() -> None:
    scene = landscape((2048, 2048), 1)
    shares = np.bincount(scene.labels.ravel(), minlength=len(CLASSES)) / scene.labels.size
    assert len(shares) == len(CLASSES)
    assert shares.min() > 0.02
    assert shares.max() < 0.8


def test_two_corners_have_no_data_and_nothing_else_has() -> None:
    scene = landscape(SHAPE, 3)
    assert not scene.valid[0, 0]
    assert not scene.valid[-1, -1]
    assert scene.valid[0, -1]
    assert scene.valid[-1, 0]
    assert 0.85 < scene.valid.mean() < 0.95
    assert np.array_equal((scene.bands == NODATA).all(0), ~scene.valid)
    assert (scene.bands[:, scene.valid] > NODATA).all()
    edges = scene.valid.argmax(1)
    assert (np.diff(edges) <= 0).all()  # the wedge narrows row by row


def test_values_are_reflectances_of_a_hazy_day() -> None:
    scene = landscape((1024, 1024), 5)
    assert scene.bands.dtype == np.uint16
    assert scene.bands.shape == (len(BANDS), 1024, 1024)
    assert scene.bands.max() <= 10000
    nir = [np.median(scene.bands[3][scene.valid & (scene.labels == label)]) for label in range(len(CLASSES))]
    assert nir[WATER] == min(nir)  # water is dark in the infrared


def test_dark_fields_have_the_colours_of_water() -> None:
    scene = landscape((1024, 1024), 1)
    nir, seen = scene.bands[3], scene.valid
    bright_water = np.percentile(nir[seen & (scene.labels == WATER)], 90)
    dark_field = np.percentile(nir[seen & (scene.labels == FIELD)], 3)
    assert dark_field < bright_water


def test_noise_of_one_seed_says_nothing_about_the_next() -> None:
    at = np.arange(0, 4096, 16.0)
    fields = np.array([fractal(at, at, seed, "any", 60, 1).ravel() for seed in range(8)])
    assert np.abs(np.corrcoef(fields) - np.eye(8)).max() < 0.1
    assert 0.5 < fields.std() < 1.5


def test_hashed_numbers_are_evenly_spread() -> None:
    numbers = uniform(1, "any", np.arange(-300, 300)[:, None], np.arange(-300, 300))
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert np.abs(counts / counts.mean() - 1).max() < 0.03
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("window", [Window(0, 0, 64, 64), Window(32001, 17, 5, 300), Window(7, 32000, 600, 3)])
def test_stripes_are_the_same_from_any_window(window: Window) -> None:
    values, labels = stripes(window, bands=2)
    whole, truth = stripes(Window(max(0, window.y - 3), max(0, window.x - 5), 700, 400), bands=2)
    dy, dx = min(3, window.y), min(5, window.x)
    at = (slice(dy, dy + window.height), slice(dx, dx + window.width))
    assert np.array_equal(values, whole[:, *at])
    assert np.array_equal(labels, truth[at])


def test_stripes_tell_their_label_in_every_band() -> None:
    values, labels = stripes(Window(5, 7, 500, 400))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert np.array_equal(values // 60, np.broadcast_to(labels, values.shape))
    assert len(np.unique(values[0][labels == 1])) > 30  # and are not flat
