"""Laws of the label pyramid, against a slow oracle that counts each cell's labels."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesseg.raster.pyramid import HALVES, Cascade, Halve, cascade, halve_mean, halve_mode, halve_nearest, level_shapes

Labels = NDArray[np.uint8]
AWKWARD = [(1, 1), (1, 2), (2, 1), (7, 1), (2, 2), (3, 3), (5, 4), (4, 5), (13, 17), (31, 64), (1, 99), (99, 1)]


def slow_mode(labels: Labels) -> Labels:
    """The definition, cell by cell."""
    height, width = labels.shape
    result = np.empty((-(-height // 2), -(-width // 2)), np.uint8)
    for y, x in np.ndindex(*result.shape):
        counts = Counter(v for v in labels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist() if v != 255)
        result[y, x] = min(counts, key=lambda label: (-counts[label], label)) if counts else 255
    return result


@st.composite
def label_images(draw: st.DrawFn) -> Labels:
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    palette = draw(st.sampled_from([(0, 1), (0, 255), (0, 1, 2, 255), (3, 254, 255), tuple(range(256))]))
    seed = draw(st.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).choice(np.array(palette, np.uint8), shape)


@given(label_images())
def test_mode_is_the_most_frequent_label_of_each_cell(labels: Labels) -> None:
    np.testing.assert_array_equal(halve_mode(labels), slow_mode(labels))


@pytest.mark.parametrize("shape", AWKWARD)
def test_mode_holds_at_awkward_shapes(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(1).choice(np.array([0, 1, 2, 254, 255], np.uint8), shape)
    np.testing.assert_array_equal(halve_mode(labels), slow_mode(labels))


def test_mode_holds_for_every_cell_of_five_labels() -> None:
    """All 5⁴ cells at once, once among mixed cells only and once thinned out by uniform ones (the quick path)."""
    values = np.array([0, 1, 7, 254, 255], np.uint8)
    cells = np.stack(np.meshgrid(*[values] * 4, indexing="ij"), axis=-1).reshape(-1, 2, 2)
    image = cells.transpose(1, 0, 2).reshape(2, -1)
    np.testing.assert_array_equal(halve_mode(image), slow_mode(image))
    wide = np.concatenate([image, np.full((2, 20 * image.shape[1]), 3, np.uint8)], axis=1)
    np.testing.assert_array_equal(halve_mode(wide), slow_mode(wide))


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ([[1, 255], [255, 255]], 1),
        ([[255, 255], [255, 255]], 255),
        ([[255, 255], [2, 1]], 1),
        ([[3, 3], [1, 1]], 1),
        ([[0, 3], [3, 255]], 3),
        ([[254, 254], [1, 255]], 254),
        ([[254, 1], [255, 255]], 1),
    ],
)
def test_mode_ignores_nodata_and_gives_ties_to_the_lower_label(cell: list[list[int]], label: int) -> None:
    assert halve_mode(np.array(cell, np.uint8)).tolist() == [[label]]


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 99))
def test_the_mean_of_scores_is_rounded_half_up_and_leaves_out_254_and_255(shape: tuple[int, int], seed: int) -> None:
    scores = np.random.default_rng(seed).choice(np.array([0, 1, 2, 249, 250, 254, 255], np.uint8), shape)
    means = halve_mean(scores)
    assert means.shape == (-(-shape[0] // 2), -(-shape[1] // 2))
    for y, x in np.ndindex(*means.shape):
        cell = scores[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        known = [score for score in cell if score < 254]
        assert means[y, x] == ((2 * sum(known) + len(known)) // (2 * len(known)) if known else min(cell))


@pytest.mark.parametrize("halve", [halve_mode, halve_mean])
def test_a_row_of_any_width_can_be_halved(halve: Halve) -> None:
    """Wider than the strip that is halved at a time, and several strips high."""
    wide = np.arange(4 * 131_100, dtype=np.uint32).reshape(4, -1) // 7 % 3
    labels = wide.astype(np.uint8)
    parts = [halve(labels[y : y + 2, x : x + 50]) for y in (0, 2) for x in (0, 65_536, 131_050)]
    halved = halve(labels)
    cut = [halved[y : y + 1, x : x + 25] for y in (0, 1) for x in (0, 32_768, 65_525)]
    np.testing.assert_array_equal(cut, parts)


@given(label_images())
def test_nearest_is_the_top_left_pixel_of_each_cell(labels: Labels) -> None:
    np.testing.assert_array_equal(halve_nearest(labels), labels[::2, ::2])


@given(label_images())
def test_mode_leaves_its_input_alone_and_takes_any_memory_layout(labels: Labels) -> None:
    before = labels.copy()
    np.testing.assert_array_equal(halve_mode(np.asfortranarray(labels)), slow_mode(labels))
    np.testing.assert_array_equal(halve_mode(labels[::-1, ::-1]), slow_mode(labels[::-1, ::-1]))
    np.testing.assert_array_equal(labels, before)


@given(label_images(), st.integers(1, 7), st.sampled_from(sorted(HALVES)), st.sets(st.integers(0, 40), max_size=9))
def test_the_streamed_pyramid_equals_the_whole_one(labels: Labels, levels: int, rule: str, cuts: set[int]) -> None:
    assert_equals_whole(labels, np.split(labels, sorted(cuts)), levels=levels, halve=HALVES[rule])


@pytest.mark.parametrize("shape", AWKWARD)
def test_the_streamed_pyramid_holds_at_awkward_shapes(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(2).choice(np.array([0, 1, 2, 255], np.uint8), shape)
    assert_equals_whole(labels, np.array_split(labels, range(3, len(labels), 3)), levels=6, halve=halve_mode)


def assert_equals_whole(labels: Labels, bands: list[Labels], *, levels: int, halve: Halve) -> None:
    streamed: dict[int, list[Labels]] = {level: [] for level in range(levels)}
    for level, y, rows in cascade(bands, levels=levels, halve=halve):
        assert y == sum(map(len, streamed[level]))
        streamed[level].append(rows)
    for level in range(levels):
        np.testing.assert_array_equal(np.concatenate(streamed[level]), labels)
        labels = halve(labels)


def test_a_cascade_holds_back_at_most_one_row_per_level() -> None:
    pyramid, given_rows = Cascade(levels=4), [0, 0, 0, 0]
    for n in range(1, 65):
        for level, _, rows in pyramid.add(np.zeros((1, 8), np.uint8)):
            given_rows[level] += len(rows)
        assert given_rows == [n >> level for level in range(4)]
    assert list(pyramid.close()) == []


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_level_shapes_halve_upwards_until_one_fits(height: int, width: int, smallest: int) -> None:
    shapes = level_shapes((height, width), smallest=smallest)
    assert shapes[0] == (height, width)
    assert max(shapes[-1]) <= smallest
    assert all(max(shape) > smallest for shape in shapes[:-1])
    for finer, coarser in pairwise(shapes):
        assert coarser == ((finer[0] + 1) // 2, (finer[1] + 1) // 2)


def test_a_pyramid_ends_at_the_first_level_of_at_most_256_pixels_a_side() -> None:
    assert level_shapes((256, 256)) == ((256, 256),)
    assert level_shapes((100, 257)) == ((100, 257), (50, 129))


def test_a_pyramid_without_levels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        Cascade(levels=0)


def test_the_last_level_fits_in_256_pixels() -> None:
    assert level_shapes((513, 300)) == ((513, 300), (257, 150), (129, 75))
    assert level_shapes((512, 300)) == ((512, 300), (256, 150))
