"""Laws of the seam score, on masks whose seams are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tilesseg.raster.tiling import Lattice, Tiling, blend_lattice, crop_lattice
from tilesseg.raster.window import Window
from tilesseg.reporting.html.seam_statistics import Seams, measure_seams, patch_lines

BLEND = blend_lattice(256, overlap=64, margin=0, multiple=8)
CROP = crop_lattice(256, margin=24, multiple=8)


def blobs(shape: tuple[int, int], seed: int = 0, sigma: float = 6.0) -> NDArray[np.float64]:
    """A smooth random field of mean 0 and deviation 1."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return np.asarray(field / field.std())


def classes(field: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.digitize(field, [-0.6, 0.2, 1.0]).astype(np.uint8)


def reader(values: NDArray[np.uint8]) -> Callable[[Window], NDArray[np.uint8]]:
    return lambda window: values[(..., *window.slices())]


def measured(values: NDArray[np.uint8], lattice: Lattice = BLEND, core: int = 512, **options: Any) -> Seams:
    shape = (int(values.shape[-2]), int(values.shape[-1]))
    return measure_seams(Tiling(shape, lattice, (core, core), core), reader(values), **options)


def offsets(shape: tuple[int, int], stride: int, amount: float, lead: int = 0) -> NDArray[np.float64]:
    """A constant of its own for each square of the lattice."""
    rng = np.random.default_rng(5)
    y, x = (np.arange(size) + lead for size in shape)
    table = rng.uniform(-amount, amount, (shape[0] // stride + 2, shape[1] // stride + 2))
    return np.asarray(table[(y // stride)[:, None], (x // stride)[None]])


def test_patch_lines_are_where_supports_begin_and_end() -> None:
    lattice = BLEND
    tiling = Tiling((700, 900), lattice, (512, 512), 512)
    found = {
        edge
        for tile in tiling
        for row in tile.patch_rows
        for patch in row.patches
        for edge in (patch.support.x, patch.support.x_stop)
        if 0 < edge < 900
    }
    assert patch_lines(lattice, 900).tolist() == sorted(found)


@pytest.mark.parametrize("lattice", [BLEND, CROP])
@pytest.mark.parametrize("seed", range(4))
def test_blobs_without_seams_score_one_within_their_error(lattice: Lattice, seed: int) -> None:
    core = lattice.stride * 3 if lattice.exclusive else 512
    for score in (lambda s: s.patches, lambda s: s.cores):
        one = score(measured(classes(blobs((1500, 1800), seed)), lattice, core))
        assert abs(one.ratio - 1) < 4 * one.error and one.error < 0.1
        assert "steps" not in one.verdict


def test_the_error_is_honest() -> None:
    """Over many fields the ratio scatters as much as its error says."""
    found = [measured(classes(blobs((512, 600), seed, 4.0)), core=256).patches for seed in range(40)]
    pulls = [(one.ratio - 1) / one.error for one in found if one.ratio]
    assert 0.7 < float(np.std(pulls)) < 1.4 and abs(float(np.mean(pulls))) < 0.5


def test_planted_seams_score_clearly_above_one_and_only_where_they_are() -> None:
    field = blobs((1500, 1500))
    seamed = classes(field + offsets(field.shape, CROP.stride, 0.3))
    found = measured(seamed, CROP, CROP.stride * 3)
    assert found.patches.ratio is not None and found.patches.ratio - 3 * found.patches.error > 1.5
    assert found.patches.verdict == "steps along the borders"
    core = 512
    tiled = measured(classes(field + offsets(field.shape, core, 0.5)), BLEND, core)
    assert tiled.cores.ratio is not None and tiled.cores.ratio - 3 * tiled.cores.error > 1.5
    assert tiled.patches.verdict != "steps along the borders"


def test_stronger_seams_score_higher() -> None:
    field = blobs((1200, 1200), 3)
    ratios = [
        measured(classes(field + offsets(field.shape, CROP.stride, amount)), CROP, CROP.stride * 2).patches.ratio
        for amount in (0.0, 0.1, 0.3, 0.9)
    ]
    assert ratios == sorted(ratios)


def test_scores_show_seams_too_faint_for_labels() -> None:
    field = blobs((1200, 1200), 1)
    steps = offsets(field.shape, CROP.stride, 0.06)
    scores = np.clip(np.rint((field + steps + 3) * 40), 0, 250).astype(np.uint8)
    found = measured(np.stack([scores, 250 - scores]), CROP, CROP.stride * 2, scores=True)
    plain = np.clip(np.rint((field + 3) * 40), 0, 250).astype(np.uint8)
    without = measured(np.stack([plain, 250 - plain]), CROP, CROP.stride * 2, scores=True)
    labels = measured(classes(field + steps), CROP, CROP.stride * 2).patches
    assert found.patches.ratio is not None and without.patches.ratio is not None
    assert labels.ratio is not None and labels.ratio - 3 * labels.error < 1
    assert found.patches.ratio - 3 * found.patches.error > 1 > without.patches.ratio - 3 * without.patches.error


def test_pairs_with_nodata_or_failed_pixels_do_not_count() -> None:
    labels = classes(blobs((1024, 1024)))
    labels[:512, :512] = 254  # a failed core, whose rim is no seam
    labels[700:] = 255
    found = measured(labels, BLEND, 512)
    for one in (found.patches, found.cores):
        assert one.ratio is not None and abs(one.ratio - 1) < 4 * one.error
    assert measured(np.full((600, 600), 255, np.uint8)).patches.ratio is None


def test_a_mask_of_one_class_says_that_it_cannot_tell_and_one_of_seams_alone_scores_high() -> None:
    constant = measured(np.zeros((1024, 1024), np.uint8)).patches
    assert constant.ratio == 0 and constant.verdict == "too little changes near the borders to tell"
    y, x = (np.arange(1024) // CROP.stride for _ in range(2))
    checks = ((y[:, None] + x[None]) % 2).astype(np.uint8)
    alone = measured(checks, CROP, CROP.stride * 2).patches
    assert alone.ratio is not None and alone.ratio > 100 and alone.verdict == "steps along the borders"


def test_a_scene_of_one_tile_and_one_patch_has_no_borders() -> None:
    found = measured(classes(blobs((100, 90))), BLEND, 512)
    assert found.cores.ratio is None and found.patches.verdict == "no borders to compare"


def test_of_a_large_scene_a_bounded_part_is_read_and_its_share_is_said() -> None:
    asked = []

    def read(window: Window) -> NDArray[np.uint8]:
        asked.append(window)
        return np.zeros(window.shape, np.uint8)

    found = measure_seams(Tiling((100_000, 90_000), BLEND, (4096, 4096), 1024), read, budget=20_000_000)
    assert sum(window.area for window in asked) < 20_100_000
    assert found.sampled == pytest.approx(4 * 2048**2 / 9e9, rel=0.2)


def test_pairs_at_the_edges_of_the_windows_read_are_counted_once() -> None:
    labels = classes(blobs((300, 4500)))
    lattice = Lattice(2048, 2048, 0, 0, 0)
    found = measured(labels, lattice, 2048)
    assert found.patches.pairs == found.cores.pairs == 2 * 300
