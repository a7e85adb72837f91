"""TIFFs of several pages: the largest image is meant, and every other one can be chosen; tifffile is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.detect import format_of
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 200, (5, 40, 60)).astype(np.uint8)
LARGE = RNG.integers(0, 200, (128, 128, 3)).astype(np.uint8)
SMALL = LARGE[::2, ::2].copy()
TINY = LARGE[::4, ::4].copy()
LABEL = RNG.integers(0, 200, (30, 44, 3)).astype(np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_pages(path: Path, *pages: NDArray[Any], tiled: tuple[int, ...] = (), reduced: tuple[int, ...] = ()) -> Path:
    """A TIFF with these pages in this order, by number `tiled` or marked as `reduced` pictures."""
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            file.write(
                page,
                photometric="rgb" if page.ndim == 3 else "minisblack",
                tile=(16, 16) if number in tiled else None,
                subfiletype=int(number in reduced),
                compression="deflate",
                metadata=None,
            )
    return path


def pixels(path: Path, **opening: Any) -> NDArray[Any]:
    """All pixels `(y, x, channel)` of the image that is read."""
    source = open_source(str(path), Opening(**opening))
    return np.moveaxis(source.read(source.grid.window).values, 0, -1)


def notes(path: Path, **opening: Any) -> str:
    return " ".join(open_source(str(path), Opening(**opening)).describe()["notes"])


def write_geotiff(path: Path, *images: NDArray[Any]) -> Path:
    """A GeoTIFF by GDAL, an image `(y, x)` in each of its directories."""
    for number, image in enumerate(images):
        size = {"height": image.shape[0], "width": image.shape[1], "count": 1, "dtype": "uint8", "nodata": 0}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
        more = {"APPEND_SUBDATASET": "YES"} if number else {}
        with rasterio.open(path, "w", driver="GTiff", **size, **place, **more) as file:
            file.write(image, 1)
    return path


# the image that is meant


@pytest.mark.parametrize("reduced", [(), (0, 2)])
@pytest.mark.parametrize("label", [LABEL, LABEL[:6, :8].copy(), LABEL[:, :, 0].copy()])
def test_a_label_before_the_slide_is_not_read(tmp_path: Path, label: NDArray[Any], reduced: tuple[int, ...]) -> None:
    path = write_pages(tmp_path / "slide.tif", label, LARGE, SMALL, tiled=(1, 2), reduced=reduced)
    np.testing.assert_array_equal(pixels(path), LARGE)
    np.testing.assert_array_equal(pixels(path, series=0), label.reshape(*label.shape[:2], -1))
    assert "0 30 × 44" in notes(path) or "0 6 × 8" in notes(path)
    assert "choose another by series" in notes(path)


@pytest.mark.parametrize("tiled", [(), (0, 1, 2)])
@pytest.mark.parametrize("reduced", [(), (0, 1)])
def test_a_pyramid_stored_coarse_to_fine_is_read_at_its_finest(
    tmp_path: Path, tiled: tuple[int, ...], reduced: tuple[int, ...]
) -> None:
    path = write_pages(tmp_path / "coarse-to-fine.tif", TINY, SMALL, LARGE, tiled=tiled, reduced=reduced)
    np.testing.assert_array_equal(pixels(path), LARGE)
    assert ("[image-of-several]" in notes(path)) == (not reduced)  # marked as levels, they are no rivals


def test_a_plain_pyramid_in_strips_is_read_at_its_finest(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "strips.tif", LARGE, SMALL, TINY)
    np.testing.assert_array_equal(pixels(path), LARGE)


def test_an_image_beside_another_of_a_quarter_of_its_size_is_doubted(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "two.tif", LARGE[:100, :100].copy(), LARGE)
    assert "[image-of-several]" in notes(path)
    assert "[image-of-several]" not in notes(path, series=1)
    np.testing.assert_array_equal(pixels(path, series=0), LARGE[:100, :100])


# pages of one size


@pytest.mark.parametrize("said", [{}, {"metadata": None}])
def test_a_stack_without_axes_is_refused_with_the_ways_to_choose(tmp_path: Path, said: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack", **said)
    with pytest.raises(SourceError, match=r"5 images of 40 × 60, .* choose one by series, z or t, 0 to 4"):
        open_source(str(tmp_path / "stack.tif"))
    for key in ("series", "z", "t"):
        np.testing.assert_array_equal(pixels(tmp_path / "stack.tif", **{key: 3})[..., 0], STACK[3])
    for key in ("series", "z", "t"):
        with pytest.raises(SourceError, match=f"{key} 5 is requested"):
            open_source(str(tmp_path / "stack.tif"), Opening(**{key: 5}))


def test_a_stack_in_one_page_is_seen(tmp_path: Path) -> None:
    """tifffile writes a stack as one page with all its planes, and its shape as text."""
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack", truncate=True)
    with pytest.raises(SourceError, match="5 images of 40 × 60"):
        open_source(str(tmp_path / "stack.tif"))
    np.testing.assert_array_equal(pixels(tmp_path / "stack.tif", z=2)[..., 0], STACK[2])


def test_axes_without_a_name_are_counted_as_one(tmp_path: Path) -> None:
    stack = np.concatenate([STACK, STACK[:1]]).reshape(2, 3, 40, 60)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(pixels(tmp_path / "stack.tif", z=4)[..., 0], stack[1, 1])


def test_pages_that_are_called_channels_are_bands(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(pixels(tmp_path / "stack.tif"), np.moveaxis(STACK, 0, -1))


def test_two_ways_to_choose_a_page_have_to_agree(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", STACK, photometric="minisblack")
    with pytest.raises(SourceError, match="z 1 and t 2"):
        open_source(str(tmp_path / "stack.tif"), Opening(z=1, t=2))


def test_a_stack_beside_a_smaller_label_is_the_image(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "stack.tif", STACK[0, :10, :10].copy(), STACK[1], STACK[2])
    with pytest.raises(SourceError, match=r"2 images of 40 × 60, .* series \(1 to 2\)"):
        open_source(str(path))
    np.testing.assert_array_equal(pixels(path, series=2)[..., 0], STACK[2])
    np.testing.assert_array_equal(pixels(path, z=1)[..., 0], STACK[2])
    np.testing.assert_array_equal(pixels(path, series=0)[..., 0], STACK[0, :10, :10])


# directories of a GeoTIFF


def test_the_largest_directory_of_a_geotiff_is_read_with_its_place(tmp_path: Path) -> None:
    small, large = np.full((20, 30), 3, np.uint8), RNG.integers(0, 9, (50, 60)).astype(np.uint8)
    path = write_geotiff(tmp_path / "scene.tif", small, large)
    source = open_source(str(path))
    np.testing.assert_array_equal(source.read(source.grid.window).values[0], large)
    np.testing.assert_array_equal(source.read(source.grid.window).valid, large != 0)
    assert source.grid.crs is not None
    assert "choose another by series" in notes(path)
    np.testing.assert_array_equal(pixels(path, series=0)[..., 0], small)
    assert str(path) in source.identity()


def test_directories_of_one_size_are_refused_without_a_choice(tmp_path: Path) -> None:
    images = [np.full((20, 30), value, np.uint8) for value in (1, 2, 3)]
    path = write_geotiff(tmp_path / "dates.tif", *images)
    with pytest.raises(SourceError, match=r"3 images of 20 × 30, .* series, 0 to 2"):
        open_source(str(path))
    assert (pixels(path, series=1) == 2).all()
    with pytest.raises(SourceError, match="series 3 is requested"):
        open_source(str(path), Opening(series=3))


def test_a_list_of_files_takes_no_directory_but_the_first(tmp_path: Path) -> None:
    one = write_geotiff(tmp_path / "a.tif", np.full((20, 30), 1, np.uint8))
    with pytest.raises(SourceError, match="series 0"):
        open_source([str(one), str(one)], Opening(series=0))


@pytest.mark.parametrize("options", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {}])
def test_overviews_and_masks_of_gdal_are_no_images(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "scene.tif"
    size = {"height": 128, "width": 128, "count": 3, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **size, **options) as file:
        file.write(np.moveaxis(LARGE, -1, 0))
        file.write_mask(np.full((128, 128), 255, np.uint8))
        file.build_overviews([2, 4])
    assert format_of(str(path)) == "geotiff"
    assert open_source(str(path)).describe()["files"][0]["overviews"] == [2, 4]
    np.testing.assert_array_equal(pixels(path), LARGE)


# the cases


@pytest.mark.parametrize("name", ["label-first.tif", "label-first-overview-0.tif"])
def test_the_slides_of_the_cases_are_read_and_not_their_labels(shared_cases: Path, name: str) -> None:
    path = shared_cases / "micro" / name
    np.testing.assert_array_equal(pixels(path), tifffile.imread(path, key=1))
    source = open_source(str(path))
    assert source.grid.resolution == (0.5, 0.5)
    assert [level.grid.shape for level in source.levels] == [(256, 256)]


def test_the_stack_of_the_cases_is_refused_and_read_by_page(shared_cases: Path) -> None:
    path = shared_cases / "micro/multipage.tif"
    with pytest.raises(SourceError, match="5 images of 200 × 300"):
        open_source(str(path))
    for key in ("series", "z", "t"):
        np.testing.assert_array_equal(pixels(path, **{key: 4})[..., 0], tifffile.imread(path, key=4))
