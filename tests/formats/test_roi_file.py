"""The laws of a region that the user draws: what it touches is looked at; one that cannot be meant is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.writer import utm_grid
from tilesseg.formats.reading import roi_raster
from tilesseg.formats.reading.roi_file import read_region
from tilesseg.raster.grid import Grid
from tilesseg.raster.region_of_interest import roi_cells

SLIDE = Grid(400, 600, transform=(0.5, 0, 0, 0, 0.5, 0), unit="micrometre", metres_per_unit=1e-6)
EARTH = utm_grid((400, 600), resolution=10.0)
SQUARE = [[[100, 50], [200, 50], [200, 150], [100, 150], [100, 50]]]
STRIDE = 50


def looked_at(path: Path, *, grid: Grid = SLIDE, native: Grid | None = None, stride: int = STRIDE) -> NDArray[np.bool_]:
    found = read_region(str(path), grid=grid, native=native or grid, stride=stride, image="slide.svs")
    return roi_cells(found, shape=grid.shape, stride=stride)


def drawn(folder: Path, data: Any) -> Path:
    path = folder / "region.geojson"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def polygon(coordinates: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": coordinates}


def feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"classification": {"name": "Tumor"}}, "geometry": geometry}


def painted(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    driver = "PNG" if path.suffix == ".png" else "GTiff"
    with (
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(path, "w", driver=driver, transform=rasterio.Affine.scale(2), **shape, **profile) as file,
    ):
        file.write(values)
    return path


def around_the_square() -> NDArray[np.bool_]:
    """Cells that the square touches: those it fills, and their neighbours, for its edges lie on cells' borders."""
    expected = np.zeros((8, 12), bool)
    expected[0:4, 1:5] = True
    return expected


@pytest.mark.parametrize(
    "data",
    [
        polygon(SQUARE),
        feature(polygon(SQUARE)),
        {"type": "MultiPolygon", "coordinates": [SQUARE]},
        {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 1]}, polygon(SQUARE)]},
        {"type": "FeatureCollection", "features": [feature(polygon(SQUARE)), feature(None)]},
        [feature(polygon(SQUARE))],
        {
            "type": "FeatureCollection",
            "crs": None,
            "features": [feature({"type": "MultiPolygon", "coordinates": [SQUARE]})],
        },
        feature(polygon([[[x, y, 7.0] for x, y in SQUARE[0]]])),
    ],
    ids=["geometry", "feature", "multi", "collection", "features", "qupath list", "null crs", "three numbers"],
)
def test_polygons_are_found_in_whatever_holds_them_in_pixels_of_the_slide(tmp_path: Path, data: Any) -> None:
    assert (looked_at(drawn(tmp_path, data)) == around_the_square()).all()


def test_a_hole_is_not_looked_at_and_every_polygon_is(tmp_path: Path) -> None:
    outline = [[0, 0], [400, 0], [400, 400], [0, 400], [0, 0]]
    hole = [[90, 90], [310, 90], [310, 310], [90, 310], [90, 90]]
    other = [[520, 20], [580, 20], [580, 80], [520, 20]]
    found = looked_at(drawn(tmp_path, {"type": "MultiPolygon", "coordinates": [[outline, hole], [other]]}))
    assert not found[2:6, 2:6].any() and found[0, :8].all() and found[7, :8].all() and found[0, 10]
    assert not found[3:, 10:].any()


def test_polygons_count_pixels_of_the_full_resolution_whatever_is_read(tmp_path: Path) -> None:
    path = drawn(tmp_path, polygon(SQUARE))
    coarse = SLIDE.coarsen(2)
    assert (looked_at(path, grid=coarse, native=SLIDE, stride=25) == around_the_square()).all()


def test_a_polygon_smaller_than_a_pixel_is_looked_at(tmp_path: Path) -> None:
    dot = [[[333.1, 222.1], [333.2, 222.1], [333.2, 222.2], [333.1, 222.1]]]
    found = looked_at(drawn(tmp_path, polygon(dot)))
    assert found[4, 6] and found.sum() <= 4


@pytest.mark.parametrize("crs", [None, "urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:32632", "urn:ogc:def:crs:EPSG::32632"])
def test_on_the_earth_polygons_are_longitude_and_latitude_or_in_the_crs_that_the_file_names(
    tmp_path: Path, crs: str | None
) -> None:
    pyproj = pytest.importorskip("pyproj")
    a, _, c, _, e, f = EARTH.transform
    ring = [(a * x + c, e * y + f) for x, y in SQUARE[0]]
    if crs is None or "CRS84" in crs:
        to_lonlat = pyproj.Transformer.from_crs("EPSG:32632", "OGC:CRS84", always_xy=True)
        ring = [to_lonlat.transform(x, y) for x, y in ring]
    data: dict[str, Any] = {"type": "FeatureCollection", "features": [feature(polygon([ring]))]}
    if crs is not None:
        data["crs"] = {"type": "name", "properties": {"name": crs}}
    found = looked_at(drawn(tmp_path, data), grid=EARTH)
    assert found[1:3, 2:4].all() and not found[~around_the_square()].any()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "as GeoJSON: "),
        ('"text"', "it holds a str"),
        ({"type": "Topology"}, "it holds a Topology"),
        ({"type": "FeatureCollection"}, "a FeatureCollection is incomplete"),
        ({"type": "FeatureCollection", "features": []}, "holds no polygon"),
        ({"type": "Point", "coordinates": [1, 1]}, "holds no polygon"),
        (polygon([[[0, 0], [1, 1], [0, 0]]]), "holds no polygon"),
        (polygon([[[0, 0], [1, None], [1, 1], [0, 0]]]), "as GeoJSON: "),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [1, 1], [0, 0]]]}', "not finite"),
        (polygon([[[0, 0], [1], [1, 1], [0, 0]]]), "as GeoJSON: "),
        (
            polygon([[[5000, 0], [5100, 0], [5100, 100], [5000, 0]]]),
            "touches nothing of slide.svs: .* columns 5000 to 5100",
        ),
        ({**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": "EPSG:4326"}}}, "slide.svs has no CRS"),
        ({**polygon(SQUARE), "crs": {"type": "link"}}, "names no known CRS"),
    ],
)
def test_what_is_no_region_of_the_slide_is_refused_in_one_line(tmp_path: Path, data: Any, said: str) -> None:
    with pytest.raises(SourceError, match=said) as refusal:
        looked_at(drawn(tmp_path, data))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["none.geojson", "none.png"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=name):
        looked_at(tmp_path / name)


def test_a_place_that_the_images_crs_does_not_know_is_refused(tmp_path: Path) -> None:
    far = polygon([[[9.0, 91.0], [9.1, 91.0], [9.1, 95.0], [9.0, 91.0]]])
    with pytest.raises(SourceError, match="no place") as refusal:
        looked_at(drawn(tmp_path, far), grid=EARTH)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("size", [(8, 12), (40, 60), (401, 599), (3, 5)])
def test_a_mask_image_of_any_size_is_stretched_over_the_image(tmp_path: Path, size: tuple[int, int]) -> None:
    values = np.zeros((1, *size), np.uint8)
    rows, columns = (slice(side // 2, None) for side in size)
    values[0, rows, columns] = 1
    found = looked_at(painted(tmp_path / "mask.png", values))
    assert found[4:, 6:].all()
    margin = int(np.ceil(max(400 / size[0], 600 / size[1]) / STRIDE)) + 1
    assert not found[: 4 - margin].any() and not found[:, : 6 - margin].any()


def test_a_single_pixel_of_a_mask_finer_than_the_region_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi_raster, "FINEST", 50)
    monkeypatch.setattr(roi_raster, "_ROWS", 5000)
    values = np.zeros((1, 400, 600), np.uint8)
    values[0, 233, 471] = 3
    found = looked_at(painted(tmp_path / "mask.tif", values))
    assert found[4, 9] and found.sum() <= 4


def test_transparent_and_nodata_pixels_of_a_mask_are_not_looked_at(tmp_path: Path) -> None:
    values = np.full((4, 40, 60), 200, np.uint8)
    values[3, :, 30:] = 0
    found = looked_at(painted(tmp_path / "mask.png", values))
    assert found[:, :6].all() and not found[:, 7:].any()
    labels = np.full((1, 40, 60), 1, np.uint8)
    labels[0, :, 30:] = 255
    found = looked_at(painted(tmp_path / "mask.tif", labels, nodata=255))
    assert found[:, :6].all() and not found[:, 7:].any()


def test_a_mask_of_zeros_or_of_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="0 everywhere"):
        looked_at(painted(tmp_path / "mask.png", np.zeros((1, 40, 60), np.uint8)))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SourceError, match="as a mask image: ") as refusal:
        looked_at(tmp_path / "text.png")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("stride", [1, 7, 50, 64, 399, 1000])
def test_polygons_are_found_at_every_stride(tmp_path: Path, stride: int) -> None:
    found = looked_at(drawn(tmp_path, polygon(SQUARE)), stride=stride)
    whole = found.repeat(stride, axis=0).repeat(stride, axis=1)[:400, :600]
    assert whole[50:150, 100:200].all()
    near = stride + 2
    assert not whole[150 + near :].any() and not whole[:, 200 + near :].any()


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"GeometryCollection","geometries":[' * 3_000,
        '{"type":"GeometryCollection","geometries":[' * 600 + "]}" * 600,
        "[" * 100_000,
        "[" * 700 + "]" * 700,
        '{"type":"Polygon","coordinates":' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_a_region_that_is_nested_too_deeply_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "roi.geojson"
    path.write_text(text)
    grid = Grid(64, 64)
    with pytest.raises(SourceError, match=r"roi\.geojson.*; (correct or )?(export it again|draw at least one)"):
        read_region(str(path), grid=grid, native=grid, stride=16, image="scene.tif")
