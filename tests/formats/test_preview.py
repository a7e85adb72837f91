"""Laws of the quick look. The oracle is rasterio reading the PNG back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from tilesseg.errors import FormatError
from tilesseg.formats.open import open_source
from tilesseg.formats.writer import Mask, MaskClass, MaskLevel
from tilesseg.formats.writing.preview import (
    GAP,
    display_bands,
    draw,
    panel_size,
    stretch,
    thin,
    write_preview,
    write_quick_look,
)
from tilesseg.raster.grid import Grid
from tilesseg.raster.pyramid import halve_mode, level_shapes

CLASSES = (MaskClass("sea", (0, 0, 200)), MaskClass("land", (0, 200, 0)))
SHAPES = [(1, 1), (40, 30), (30, 40), (30, 90), (1, 50), (50, 1)]


def read_png(path: Path) -> NDArray[np.uint8]:
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.driver == "PNG" and file.colorinterp[-1].name == "alpha"
        picture: NDArray[np.uint8] = file.read()
        return picture


def scene(shape: tuple[int, int], bands: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 254, 255], np.uint8), shape)
    return {"image": rng.random((bands, *shape)), "valid": labels != 255, "labels": labels, "classes": CLASSES}


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_png_holds_both_panels_and_nothing_lies_beside_it(shape: Any, bands: int, tmp_path: Path) -> None:
    path = tmp_path / "look.png"
    write_preview(path, **scene(shape, bands))
    height, width = shape
    wide = (2 * height + GAP, width) if width > 1.5 * height else (height, 2 * width + GAP)
    assert read_png(path).shape == (4, *wide)
    assert list(tmp_path.iterdir()) == [path]


def test_classes_have_their_colours_failed_is_magenta_and_nodata_is_transparent() -> None:
    labels = np.array([[0, 1, 254, 255]] * 4, np.uint8)
    picture = draw(np.zeros((1, 4, 4)), valid=labels != 255, labels=labels, classes=CLASSES)
    image, overlaid = picture[:, :, :4], picture[:, :, 4 + GAP :]
    grey = int(image[0, 0, 0])
    assert image[3, 0].tolist() == [255, 255, 255, 0]
    assert overlaid[:, 0, 2].tolist() == [255, 0, 255, 255]
    assert overlaid[3, 0].tolist() == [255, 255, 255, 0]
    assert overlaid[:3, 0, 0].tolist() == pytest.approx([grey / 2, grey / 2, (grey + 200) / 2], abs=1)
    assert not picture[3, :, 4 : 4 + GAP].any()


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 99))
def test_a_stretch_does_not_depend_on_units(offset: float, scale: float, seed: int) -> None:
    image = np.random.default_rng(seed).random((1, 20, 20))
    valid = np.ones((20, 20), np.bool_)
    there = stretch(image * scale + offset, valid).astype(int)
    assert np.abs(there - stretch(image, valid)).max() <= 1


def test_a_stretch_counts_valid_pixels_only_and_clips_the_ends() -> None:
    band = np.arange(100.0).reshape(1, 10, 10)
    valid = np.ones((10, 10), np.bool_)
    valid[0] = False
    band[0, 0] = [np.nan, np.inf, -9999.0, 1e30, 5, 5, 5, 5, 5, 5]
    stretched = stretch(band, valid)[0]
    assert not stretched[0].any()
    assert stretched[1, :2].tolist() == [0, 0] and stretched[9, -2:].tolist() == [255, 255]
    assert (np.diff(stretched[1:].ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("valid", [True, False])
def test_constant_and_empty_images_are_drawn(valid: bool) -> None:
    shape = (5, 5)
    stretched = stretch(np.full((1, *shape), 7, np.uint16), np.full(shape, valid))
    assert np.unique(stretched).tolist() == ([128] if valid else [0])


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 60))
def test_thinning_a_constant_mask_gives_that_constant(height: int, width: int, size: int) -> None:
    mask = Mask(Grid(height, width), lambda w: np.full(w.shape, 3, np.uint8), CLASSES, {})
    factor = max(1.0, max(height, width) / size)
    small = (max(1, int(height / factor)), max(1, int(width / factor)))
    assert (thin(mask, small) == 3).all()


@pytest.mark.parametrize("small", [(600, 1100), (299, 548), (20, 37), (1, 2)])
def test_stored_levels_make_the_same_picture(small: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (601, 1100), np.uint8)
    mask, stored = Mask(Grid(*labels.shape), lambda w: labels[w.slices()], CLASSES, {}), []
    halved = labels
    for shape in level_shapes(labels.shape)[1:]:  # type: ignore[arg-type]
        halved = halve_mode(halved)
        stored.append(MaskLevel(shape, lambda w, halved=halved: halved[w.slices()]))
    np.testing.assert_array_equal(thin(replace(mask, levels=tuple(stored)), small), thin(mask, small))


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (1300, 70), (600, 1100)])
def test_thinning_to_the_same_size_changes_nothing_and_keeps_places(shape: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    mask = Mask(Grid(*shape), lambda w: labels[w.slices()], CLASSES, {})
    np.testing.assert_array_equal(thin(mask, shape), labels)
    half = np.where(np.arange(shape[1]) < shape[1] / 2, 0, 1).astype(np.uint8)
    split = Mask(Grid(*shape), lambda w: np.broadcast_to(half[w.x : w.x_stop], w.shape).copy(), CLASSES, {})
    small = thin(split, (max(1, shape[0] // 5), max(1, shape[1] // 5)))
    assert abs(small.mean() - half.mean()) < 2 / small.shape[1]


@given(st.integers(1, 40_000), st.integers(1, 40_000), st.integers(32, 2000))
def test_the_picture_is_no_larger_than_asked(height: int, width: int, size: int) -> None:
    long = panel_size((height, width), size)
    factor = max(1.0, max(height, width) / long)
    y, x = max(1, int(height / factor)), max(1, int(width / factor))
    whole = (2 * y + GAP, x) if width > 1.5 * height else (y, 2 * x + GAP)
    assert max(whole) <= size


def write_scene(path: Path, names: list[str | None], shape: tuple[int, int] = (1100, 900)) -> None:
    """Band k is bright in the k-th part of the image; the lowest rows are nodata."""
    image = np.ones((len(names), *shape), np.uint16)
    for k, rows in enumerate(np.array_split(np.arange(shape[0] - 100), len(names))):
        image[k, rows] = 1000
    image[:, -100:] = 0
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=len(names), height=shape[0], width=shape[1], nodata=0,
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
    ) as file:  # fmt: skip
        file.write(image)
        for k, name in enumerate(names, 1):
            if name:
                file.set_band_description(k, name)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["nir", "Blue", "Green", "Red"], (3, 2, 1)),
        (["B04", "B03", "B02", "B08"], (0, 1, 2)),
        (["x", "y", "z", "w"], (0, 1, 2)),
        (["x", "y"], (0,)),
        (["elevation"], (0,)),
    ],
)
def test_red_green_and_blue_are_found_by_name(names: Any, shown: Any, tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", names, (20, 20))
    assert display_bands(open_source(str(tmp_path / "scene.tif"))) == shown


def test_a_quick_look_shows_the_scene_the_right_way_up(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", ["blue", "green", "red"])
    source = open_source(str(tmp_path / "scene.tif"))

    def read(window: Any) -> NDArray[np.uint8]:
        rows = np.arange(window.y, window.y_stop)
        labels = np.where(rows >= 1000, 255, np.where(rows < 550, 0, 1)).astype(np.uint8)
        return np.repeat(labels[:, None], window.width, axis=1)

    write_quick_look(tmp_path / "look.png", source=source, mask=Mask(source.grid, read, CLASSES, {}), size=300)
    picture = read_png(tmp_path / "look.png")
    height, width = picture.shape[1:]
    assert max(height, width) <= 300
    assert [int(picture[:3, int(height * at), width // 4].argmax()) for at in (0.1, 0.45, 0.8)] == [2, 1, 0]
    assert picture[3, -1, width // 4] == picture[3, -1, -width // 4] == 0
    assert [picture[2, y, -width // 4] > picture[1, y, -width // 4] for y in (1, height // 2 + 9)] == [True, False]


def test_a_quick_look_of_real_imagery_has_its_footprint(shared_data: Path, tmp_path: Path) -> None:
    source = open_source(str(shared_data / "satellite" / "rasterio" / "RGB.byte.tif"))
    valid = source.read(source.grid.window).valid
    mask = Mask(source.grid, lambda w: np.where(valid[w.slices()], 1, 255).astype(np.uint8), CLASSES, {})
    write_quick_look(tmp_path / "look.png", source=source, mask=mask)
    alpha = read_png(tmp_path / "look.png")[3]
    for panel in (alpha[:, : alpha.shape[1] // 2 - GAP // 2], alpha[:, alpha.shape[1] // 2 + GAP // 2 :]):
        assert (panel > 0).mean() == pytest.approx(valid.mean(), abs=0.01)


def test_a_preview_that_cannot_be_written_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "look.png").mkdir()
    for path in (tmp_path / "missing" / "look.png", tmp_path / "look.png"):
        with pytest.raises(FormatError, match="cannot write") as refusal:
            write_preview(path, **scene((5, 5)))
        assert "\n" not in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["look.png"]
