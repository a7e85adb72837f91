"""Laws of a region that is a raster: it lies where its own place says, and what fits nowhere is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.warp import transform_bounds

from tilesseg.errors import SourceError
from tilesseg.formats import FORMATS, Mask, MaskClass, Scores, open_source, resolve
from tilesseg.formats.geotiff.writer import utm_grid
from tilesseg.formats.reading.roi_file import read_region
from tilesseg.planning.job import Input
from tilesseg.planning.roi_choice import region_identity
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import roi_cells

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
EARTH = utm_grid((400, 600), resolution=10.0)
SLIDE = Grid(400, 600, transform=(0.5, 0, 0, 0, 0.5, 0), unit="micrometre", metres_per_unit=1e-6)
CLASSES = (MaskClass("background", (0, 0, 0)), MaskClass("tumour", (255, 0, 0)))
STRIDE = 20


def cells(path: Path | str, grid: Grid, **place: Any) -> NDArray[np.bool_]:
    """Cells in the region, as one boolean for each pixel of the image."""
    found = read_region(str(path), grid=grid, native=place.pop("native", grid), stride=STRIDE, image="scene", **place)
    chosen = roi_cells(found, shape=grid.shape, stride=STRIDE)
    return chosen.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)[: grid.height, : grid.width]


def raster(path: Path, values: NDArray[np.uint8], **profile: Any) -> Path:
    height, width = values.shape
    kind = {"driver": "PNG" if path.suffix == ".png" else "GTiff", "count": 1, "dtype": "uint8"}
    profile.setdefault("transform", rasterio.Affine.scale(2))
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, "w", **kind, height=height, width=width, **profile) as file,
    ):
        file.write(values, 1)
    return path


def assert_only(found: NDArray[np.bool_], rows: slice, columns: slice, margin: int = 2 * STRIDE) -> None:
    """The rectangle is in the region, and what is further from it than a margin is not."""
    assert found[rows, columns].all()
    far = np.ones(found.shape, np.bool_)
    far[max(0, rows.start - margin) : rows.stop + margin, max(0, columns.start - margin) : columns.stop + margin] = (
        False
    )
    assert not found[far].any()


def test_a_region_of_a_smaller_extent_lies_where_its_transform_says(tmp_path: Path) -> None:
    values = np.zeros((50, 60), np.uint8)
    values[10:20, 30:45] = 1  # of 20 m pixels, whose corner lies at row 100, column 200
    x, y = EARTH.to_world(100, 200)
    path = raster(tmp_path / "a.tif", values, crs=EARTH.crs, transform=rasterio.Affine(20, 0, x, 0, -20, y))
    assert_only(cells(path, EARTH), slice(120, 140), slice(260, 290))
    assert_only(cells(path, EARTH.coarsen(2), native=EARTH), slice(60, 70), slice(130, 145))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:3035", "EPSG:32633"])
def test_a_region_in_another_crs_is_warped_by_it(tmp_path: Path, crs: str) -> None:
    """Oracle: pyproj places the middle of a marked rectangle."""
    (left, top), (right, bottom) = EARTH.to_world(0, 0), EARTH.to_world(*EARTH.shape)
    west, south, east, north = transform_bounds(EARTH.crs, crs, left, bottom, right, top)
    values = np.zeros((300, 300), np.uint8)
    values[100:110, 200:210] = 7
    side = rasterio.Affine((east - west) / 300, 0, west, 0, (south - north) / 300, north)
    found = cells(raster(tmp_path / "a.tif", values, crs=crs, transform=side), EARTH)
    back = pyproj.Transformer.from_crs(crs, "EPSG:32632", always_xy=True)
    x, y = back.transform(side.c + 205 * side.a, side.f + 105 * side.e)
    row, column = round((5_400_000 - y) / 10), round((x - 600_000) / 10)
    assert_only(found, slice(row - 2, row + 2), slice(column - 2, column + 2), margin=3 * STRIDE)


def test_a_region_that_touches_nothing_is_refused_with_both_places(tmp_path: Path) -> None:
    far = rasterio.Affine(10, 0, 800_000, 0, -10, 5_400_000)
    path = raster(tmp_path / "a.tif", np.ones((400, 600), np.uint8), crs=EARTH.crs, transform=far)
    with pytest.raises(
        SourceError, match=r"it lies in EPSG:32632 x 800000 to 806000.*the image in.*x 600000 to 606000"
    ):
        cells(path, EARTH)
    path = raster(tmp_path / "b.tif", np.ones((400, 600), np.uint8), transform=far)
    with pytest.raises(SourceError, match="name its CRS, or remove its transform"):
        cells(path, EARTH)


def test_a_transform_without_a_crs_is_in_that_of_the_image(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:10] = 1
    x, y = EARTH.to_world(200, 300)
    path = raster(tmp_path / "a.tif", values, transform=rasterio.Affine(10, 0, x, 0, -10, y))
    assert_only(cells(path, EARTH), slice(200, 210), slice(300, 320))
    plane = Grid(*EARTH.shape, transform=EARTH.transform, unit="unknown")
    assert_only(cells(path, plane), slice(200, 210), slice(300, 320))


def test_a_region_with_a_crs_is_refused_for_an_image_without(tmp_path: Path) -> None:
    path = raster(tmp_path / "a.tif", np.ones((40, 60), np.uint8), crs=EARTH.crs)
    with pytest.raises(SourceError, match="is in EPSG:32632, and the image has no CRS"):
        cells(path, SLIDE)


PART = Grid(512, 1024, transform=(1, 0, 512, 0, 1, 1024))
"""Scanned part of a canvas of 2048 × 2048, as OpenSlide's bounds give it."""


def test_a_mask_of_the_canvas_and_one_of_the_scanned_part_are_told_apart_by_their_proportions(tmp_path: Path) -> None:
    on_canvas, on_part = np.zeros((256, 256), np.uint8), np.zeros((64, 128), np.uint8)
    on_canvas[165:184, 157:182] = 255  # rows 1320 to 1472, columns 1256 to 1456 of the canvas
    on_part[37:56, 93:118] = 255
    expected = slice(296, 448), slice(744, 944)
    for number, values in enumerate((on_canvas, on_part)):
        path = raster(tmp_path / f"{number}.png", values)
        assert_only(cells(path, PART, canvas=(2048, 2048)), *expected)
        coarse = Grid(256, 512, transform=(2, 0, 512, 0, 2, 1024))
        halved = slice(148, 224), slice(372, 472)
        assert_only(cells(path, coarse, native=PART, canvas=(2048, 2048)), *halved)


@pytest.mark.parametrize(
    ("shape", "part", "canvas", "said"),
    [
        ((100, 300), PART, (2048, 2048), "other proportions than the image, 512 × 1024 .its whole canvas 2048 × 2048"),
        ((100, 100), PART, None, "other proportions than the image, 512 × 1024"),
        ((100, 200), Grid(512, 1024, transform=(1, 0, 300, 0, 1, 200)), (1024, 2048), "fit both the scanned part, 512"),
    ],
)
def test_a_mask_whose_place_cannot_be_known_is_refused(
    tmp_path: Path, shape: tuple[int, int], part: Grid, canvas: tuple[int, int] | None, said: str
) -> None:
    with pytest.raises(SourceError, match=said) as refusal:
        cells(raster(tmp_path / "a.png", np.ones(shape, np.uint8)), part, canvas=canvas)
    assert "\n" not in str(refusal.value)


def test_a_mask_of_the_canvas_that_marks_nothing_of_the_scanned_part_is_refused(tmp_path: Path) -> None:
    values = np.zeros((256, 256), np.uint8)
    values[:20] = 1
    with pytest.raises(SourceError, match="marks nothing of the scanned part"):
        cells(raster(tmp_path / "a.png", values), PART, canvas=(2048, 2048))


def product(name: str, folder: Path, grid: Grid) -> Path:
    """A mask of ours: tumour in one corner, 255 in half of the image, background elsewhere."""
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, grid.width // 2 :] = 255
    labels[:100, :100] = 1
    mask = Mask(grid, lambda window: labels[window.slices()], CLASSES, {"source": "scene", "version": "1"})
    path = folder / ("mask" + FORMATS[name].suffixes[0])
    resolve(str(FORMATS[name].writes))(mask, path)
    return path


@pytest.mark.parametrize("name", ["cog", "ome-tiff", "ome-zarr"])
@pytest.mark.parametrize("grid", [SLIDE, EARTH], ids=["slide", "earth"])
def test_a_mask_of_ours_is_a_region_in_every_format_and_its_255_is_not(tmp_path: Path, name: str, grid: Grid) -> None:
    path = product(name, tmp_path, grid)
    assert_only(cells(path, grid), slice(0, 100), slice(0, 100))
    assert None not in region_identity(Input(tissue=str(path)), "scene").values()


@pytest.mark.parametrize("name", ["scores-cog", "scores-ome-tiff"])
def test_scores_of_ours_are_no_region(tmp_path: Path, name: str) -> None:
    read = np.full(SLIDE.shape, 9, np.uint8)
    scores = Scores(SLIDE, lambda number, window: read[window.slices()], ("tumour",), {"source": "scene"})
    path = tmp_path / ("scores" + FORMATS[name].suffixes[0])
    resolve(str(FORMATS[name].writes))(scores, path)
    with pytest.raises(SourceError, match="it holds scores; take the mask of the same run"):
        cells(path, SLIDE)


@pytest.mark.parametrize(
    ("image", "region", "share"),
    [
        ("geo/05-scene.tif", "geo/05-region-smaller-extent.tif", 100 * 120 / 640**2),
        ("micro/slide.tif", "micro/mask-of-slide.tif", 1 / 16),
        ("micro/slide.tif", "micro/mask-of-slide.ome.tif", 1 / 16),
        ("micro/slide.tif", "micro/mask-of-slide.ome.zarr", 1 / 16),
        ("micro/on-canvas.scn", "micro/on-canvas-mask.png", 152 * 200 / (512 * 1024)),
    ],
)
def test_cases_of_regions(image: str, region: str, share: float) -> None:
    if not (CASES / image).exists():
        pytest.skip("no cases: ../shared/cases does not exist beside the checkout")
    source = open_source(str(CASES / image))
    found = cells(CASES / region, source.grid, native=source.native, canvas=source.canvas)
    assert share <= found.mean() < share + 0.05
