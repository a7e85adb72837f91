"""The laws of finding tissue: glass is not looked at, tissue is, and a view with only one of them is not split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.planning.tissue import FAINTEST, PALEST, otsu, stain_threshold, tissue

GLASS, STAIN, PALE = (243, 242, 244), (170, 90, 160), (232, 210, 224)


def view(
    shape: tuple[int, int] = (200, 300), colour: tuple[int, int, int] = GLASS, *, seed: int = 0
) -> NDArray[np.uint8]:
    """A view of one colour with a scanner's noise."""
    noise = np.random.default_rng(seed).integers(-3, 4, (3, *shape))
    return np.clip(np.array(colour)[:, None, None] + noise, 0, 255).astype(np.uint8)


def disc(shape: tuple[int, int], y: int, x: int, radius: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < radius**2, np.bool_)


def painted(rgb: NDArray[np.uint8], where: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.where(where, view(rgb.shape[1:], colour, seed=1), rgb)  # type: ignore[arg-type]


def everywhere(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ones(rgb.shape[1:], bool)


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (226, 222, 228), (200, 200, 200)])
def test_bare_glass_has_no_tissue(glass: tuple[int, int, int]) -> None:
    rgb = view(colour=glass)
    assert not tissue(rgb, everywhere(rgb)).any()


@pytest.mark.parametrize("colour", [STAIN, PALE, (120, 80, 50), (60, 60, 60), (90, 110, 190)])
def test_a_view_full_of_tissue_is_kept_whole(colour: tuple[int, int, int]) -> None:
    rgb = view(colour=colour)
    assert tissue(rgb, everywhere(rgb)).all()


def test_dark_nuclei_do_not_make_glass_of_the_pale_stroma_around_them() -> None:
    rgb = view(colour=PALE)
    for y, x in np.random.default_rng(0).integers(0, 200, (60, 2)):
        rgb = painted(rgb, disc((200, 300), y, x, 8), (110, 60, 150))
    assert tissue(rgb, everywhere(rgb)).all()


@pytest.mark.parametrize("colour", [STAIN, PALE, (70, 70, 72)])
def test_tissue_on_glass_is_found_with_a_little_around_it_and_no_more(colour: tuple[int, int, int]) -> None:
    where = disc((200, 300), 100, 120, 50)
    rgb = painted(view(), where, colour)
    found = tissue(rgb, everywhere(rgb))
    assert found[where].all()
    assert not found[~disc((200, 300), 100, 120, 55)].any()


def test_a_small_hole_belongs_to_tissue_and_a_large_one_does_not() -> None:
    rgb = painted(view(), disc((200, 300), 100, 150, 90), STAIN)
    rgb = painted(rgb, disc((200, 300), 100, 100, 10), GLASS)
    rgb = painted(rgb, disc((200, 300), 100, 190, 30), GLASS)
    found = tissue(rgb, everywhere(rgb))
    assert found[100, 100] and not found[100, 190]


def test_dust_is_no_tissue_and_a_fleck_of_tissue_is() -> None:
    rgb = view()
    rgb[:, 50, 50] = rgb[:, 50, 51] = (90, 40, 90)
    rgb = painted(rgb, disc((200, 300), 150, 150, 4), STAIN)
    found = tissue(rgb, everywhere(rgb))
    assert not found[40:60, 40:60].any() and found[150, 150]


def test_what_was_never_scanned_is_no_tissue() -> None:
    rgb = view(colour=STAIN)
    valid = everywhere(rgb)
    valid[:, :100] = False
    rgb[:, ~valid] = 0
    found = tissue(rgb, valid)
    assert not found[:, :95].any() and found[:, 100:].all()
    assert not tissue(rgb, np.zeros_like(valid)).any()


def test_a_dark_ground_is_not_taken_for_glass() -> None:
    rgb = painted(view(colour=(8, 8, 8)), disc((200, 300), 100, 100, 30), (40, 200, 60))
    assert tissue(rgb, everywhere(rgb)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2)])
def test_a_view_of_any_size_is_taken(shape: tuple[int, int]) -> None:
    assert not tissue(view(shape), np.ones(shape, bool)).any()


def test_otsu_is_scikit_images() -> None:
    filters = pytest.importorskip("skimage.filters")
    values = np.concatenate(
        [np.random.default_rng(0).normal(5, 2, 5000), np.random.default_rng(1).normal(60, 20, 3000)]
    )
    values = np.clip(values, 0, 255).astype(np.float32)
    assert otsu(values) == pytest.approx(filters.threshold_otsu(values, nbins=256), abs=2)


def test_the_threshold_stays_between_what_glass_has_and_what_only_stain_has() -> None:
    assert stain_threshold(np.zeros(100, np.float32)) == FAINTEST == stain_threshold(np.empty(0, np.float32))
    assert stain_threshold(np.array([40.0] * 50 + [150.0] * 50, np.float32)) == PALEST


def read(path: Path, factor: int) -> NDArray[np.uint8]:
    import tifffile

    image = tifffile.imread(path)[..., :3]
    height, width = (side // factor * factor for side in image.shape[:2])
    small = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3).mean(axis=(1, 3))
    return np.moveaxis(small.astype(np.uint8), -1, 0)


@pytest.mark.parametrize("factor", [2, 8])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("wsi/CMU-1-Small-Region.svs", 0.3, 0.5),
        ("instanseg/HE_example.ome.tif", 0.68, 0.8),
        ("kidney_ihc.tif", 0.002, 0.02),
    ],
)
def test_on_real_slides_tissue_is_found_at_every_scale(
    shared_data: Path, name: str, low: float, high: float, factor: int
) -> None:
    rgb = read(shared_data / "microscopy" / name, factor)
    found = tissue(rgb, everywhere(rgb))
    assert low < found.mean() < high
    strong = rgb.max(axis=0).astype(int) - rgb.min(axis=0) > 40
    lost = strong & ~found
    assert lost.sum() <= 0.002 * strong.sum()  # dust alone
