"""Labels as a source: rasters and vectors on the image's grid, and what their values mean."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize

from tilesseg.errors import SourceError
from tilesseg.formats.labels import raster_labels, vector_labels
from tilesseg.formats.labels.label_source import LabelSource, open_labels
from tilesseg.formats.labels.label_values import LabelOptions
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CLASSES = ("background", "nucleus")
UTM = CRS.from_epsg(32616).to_wkt()
GRID = Grid(60, 80, (0.5, 0, 700000, 0, -0.5, 3700000), UTM, "metre", 1.0)
PLAIN = Grid(60, 80)


def written(path: Path, labels: NDArray[Any], grid: Grid | None = None, nodata: float | None = None) -> str:
    bands = labels if labels.ndim == 3 else labels[None]
    place = {"transform": rasterio.Affine(*grid.transform), "crs": grid.crs} if grid else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=len(bands), dtype=bands.dtype,
        nodata=nodata, **place,
    ) as file:  # fmt: skip
        file.write(bands)
    return str(path)


def opened(path: str, grid: Grid = PLAIN, values: Mapping[int | str, str] | None = None, **options: Any) -> LabelSource:
    named = LabelOptions(values, **options)
    return open_labels(
        path, grid=grid, native=options.get("native", grid), image="i.tif", classes=CLASSES, options=named
    )


def polygon(ring: list[list[float]], **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
    }


def geojson(path: Path, features: list[dict[str, Any]], crs: int | None = None) -> str:
    named = {"crs": {"type": "name", "properties": {"name": f"EPSG:{crs}"}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **named}))
    return str(path)


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    return (np.random.default_rng(0).random((60, 80)) > 0.5).astype(np.uint8)


def test_classes_are_read_by_window_and_ignored_outside_the_image(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    labels = opened(written(tmp_path / "m.tif", mask))
    window = Window(-3, 70, 20, 20)
    expected = np.full((20, 20), 255, np.uint8)
    expected[3:, :10] = mask[:17, 70:]
    assert (labels.read(window) == expected).all()
    assert (pickle.loads(pickle.dumps(labels)).read(window) == expected).all()


def test_a_mask_of_0_and_255_is_refused_with_the_mapping_to_write(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path = written(tmp_path / "m.tif", mask * np.uint8(255))
    with pytest.raises(SourceError, match=r"the value 255 at row .* 0: background, 255: nucleus, or 255: ignore"):
        opened(path).read(PLAIN.window)
    assert (opened(path, values={0: "background", 255: "nucleus"}).read(PLAIN.window) == mask).all()
    ignored = opened(path, values={0: "background", 255: "ignore"}).read(PLAIN.window)
    assert (ignored == np.where(mask, 255, 0)).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_objects_by_number_are_one_class_by_other(tmp_path: Path, mask: NDArray[np.uint8], dtype: str) -> None:
    numbers = mask * np.arange(1, 81, dtype=np.uint8)
    path = written(tmp_path / "m.tif", numbers.astype(dtype))
    with pytest.raises(SourceError, match="0: background, other: nucleus"):
        opened(path).read(PLAIN.window)
    assert (opened(path, values={0: "background", "other": "nucleus"}).read(PLAIN.window) == mask).all()


def test_a_value_that_the_mapping_lacks_is_refused(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path = written(tmp_path / "m.tif", mask + np.uint8(7))
    with pytest.raises(SourceError, match=r"value 8 .* is not among the values 7 .*8: ignore, or other: nucleus"):
        opened(path, values={7: "background"}).read(PLAIN.window)


def test_a_class_that_there_is_not_is_refused_with_its_neighbour(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    with pytest.raises(SourceError, match=r"the class nucleas.*background, nucleus; did you mean nucleus\?"):
        opened(written(tmp_path / "m.tif", mask), values={0: "background", 1: "nucleas"})


def test_nodata_is_ignored_unless_its_value_is_listed(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path = written(tmp_path / "m.tif", mask, nodata=0)
    assert (opened(path).read(PLAIN.window) == np.where(mask, 1, 255)).all()
    assert (opened(path, values={0: "background", 1: "nucleus"}).read(PLAIN.window) == mask).all()
    assert (opened(path, values={"other": "nucleus"}).read(PLAIN.window) == np.where(mask, 1, 255)).all()


def test_scores_and_pictures_are_no_labels(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    with pytest.raises(SourceError, match=r"whole numbers, and one is 0\.25; give a mask of classes"):
        opened(written(tmp_path / "f.tif", mask.astype("float32") * 0.25)).read(PLAIN.window)
    with pytest.raises(SourceError, match="has 3 bands; export the classes as one band"):
        opened(written(tmp_path / "rgb.tif", np.stack([mask] * 3)))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (
            Grid(60, 80, (0.5, 0, 700000, 0, -0.5, 3700000), CRS.from_epsg(32617).to_wkt(), "metre", 1.0),
            "its CRS is not",
        ),
        (Grid(60, 80, (0.5, 0, 700000.25, 0, -0.5, 3700000), UTM, "metre", 1.0), r"corner lies .* 0\.5 px away"),
        (Grid(60, 80, (0.501, 0, 700000, 0, -0.5, 3700000), UTM, "metre", 1.0), "last corner lies"),
        (Grid(30, 80, (0.5, 0, 700000, 0, -0.5, 3700000), UTM, "metre", 1.0), "80 × 30 px and the image's 80 × 60 px"),
    ],
)
def test_labels_that_lie_elsewhere_are_refused_with_both_values(tmp_path: Path, grid: Grid, words: str) -> None:
    path = written(tmp_path / "m.tif", np.zeros(grid.shape, np.uint8), grid)
    with pytest.raises(SourceError, match=f"does not lie on the grid of i.tif: .*{words}"):
        opened(path, GRID)


def test_labels_without_a_place_lie_where_the_image_lies(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    assert (opened(written(tmp_path / "m.tif", mask), GRID).read(GRID.window) == mask).all()


def test_a_resampled_image_has_the_labels_at_the_centres_of_its_pixels(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path = written(tmp_path / "m.tif", mask, GRID)
    coarse = GRID.coarsen(2)
    labels = open_labels(path, grid=coarse, native=GRID, image="i.tif", classes=CLASSES)
    assert (labels.read(coarse.window) == mask[1::2, 1::2]).all()
    assert (labels.read(Window(3, 5, 4, 6)) == mask[1::2, 1::2][3:7, 5:11]).all()


def outlines(count: int, size: int, seed: int) -> list[list[list[float]]]:
    draw = np.random.default_rng(seed)
    corners = draw.random((count, 1, 2)) * size + draw.normal(0, size / 15, (count, 5, 2))
    return [[[float(x), float(y)] for x, y in ring] for ring in corners]


@pytest.mark.parametrize("all_touched", [False, True])
def test_a_window_of_vector_labels_is_that_of_the_whole_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_touched: bool
) -> None:
    monkeypatch.setattr(vector_labels, "CELL", 64)
    rings = outlines(25, 200, 1)
    path = geojson(tmp_path / "v.geojson", [polygon(ring) for ring in rings])
    labels = opened(path, Grid(200, 230), all_touched=all_touched)
    whole = labels.read(Window(0, 0, 200, 230))
    one = rasterize(
        [({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, 1) for ring in rings],
        (200, 230), all_touched=all_touched, dtype="uint8",
    )  # fmt: skip
    assert (whole != one).mean() < 2e-4, "cells differ from one raster by roundings on their edges alone"
    draw = np.random.default_rng(2)
    for y, x, height, width in draw.integers(1, 120, (30, 4)).tolist():
        window = Window(y, x, min(height, 200 - y), min(width, 230 - x))
        assert (opened(path, Grid(200, 230), all_touched=all_touched).read(window) == whole[window.slices()]).all()


def test_attributes_say_the_class_and_later_features_lie_on_top(tmp_path: Path) -> None:
    square = [[0, 0], [40, 0], [40, 40], [0, 40]]
    inner = [[10, 10], [20, 10], [20, 20], [10, 20]]
    path = geojson(tmp_path / "v.geojson", [polygon(square, kind="cell"), polygon(inner, kind="hole")])
    labels = opened(path, values={"cell": "nucleus", "hole": "background"}, attribute="kind").read(PLAIN.window)
    assert labels[5, 5] == 1 and labels[15, 15] == 0 and labels[50, 50] == 0
    with pytest.raises(SourceError, match=r"feature 2 has kind 'hole', which is none of cell; map it in values"):
        opened(path, values={"cell": "nucleus"}, attribute="kind")
    with pytest.raises(SourceError, match=r"no attribute art, only kind"):
        opened(path, attribute="art")


def test_vectors_in_another_crs_are_placed_on_the_image(tmp_path: Path) -> None:
    ring = [[700005, 3699995], [700015, 3699995], [700015, 3699985], [700005, 3699985]]
    labels = opened(geojson(tmp_path / "v.geojson", [polygon(ring)], crs=32616), GRID).read(GRID.window)
    assert labels.sum() == 400 and labels[10:30, 10:30].all()
    far = geojson(tmp_path / "far.geojson", [polygon([[x + 900, y] for x, y in ring])], crs=32616)
    with pytest.raises(SourceError, match=r"touches nothing of i\.tif: its polygons lie in columns 1810 to 1830"):
        opened(far, GRID)


def test_lines_hold_no_labels(tmp_path: Path) -> None:
    line = {"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}}
    with pytest.raises(SourceError, match="holds no polygon among its 1 features"):
        opened(geojson(tmp_path / "v.geojson", [line]))


@pytest.mark.parametrize("driver", ["GPKG", "FlatGeobuf", "ESRI Shapefile"])
def test_vector_files_of_gdal_hold_the_same_labels(tmp_path: Path, driver: str) -> None:
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    rings = [[[700005, 3699995], [700015, 3699995], [700015, 3699985], [700005, 3699985]]]
    suffix = {"GPKG": "gpkg", "FlatGeobuf": "fgb", "ESRI Shapefile": "shp"}[driver]
    path = str(tmp_path / f"v.{suffix}")
    pyogrio.raw.write(
        path, shapely.to_wkb([shapely.Polygon(ring) for ring in rings]), [np.array(["nucleus"], object)], ["kind"],
        crs="EPSG:32616", geometry_type="Polygon", driver=driver,
    )  # fmt: skip
    text = geojson(tmp_path / "v.geojson", [polygon(rings[0])], crs=32616)
    expected = opened(text, GRID).read(GRID.window)
    assert (opened(path, GRID, attribute="kind").read(GRID.window) == expected).all() and expected.any()


def test_outside_its_area_nothing_is_labelled(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    area = geojson(tmp_path / "a.geojson", [polygon([[10, 0], [30, 0], [30, 60], [10, 60]])])
    labels = opened(written(tmp_path / "m.tif", mask), area=area).read(PLAIN.window)
    assert (labels[:, 10:30] == mask[:, 10:30]).all()
    assert (labels[:, :10] == 255).all() and (labels[:, 30:] == 255).all()


def test_labels_without_a_place_are_read_at_the_centres_of_a_resampled_image(
    tmp_path: Path, mask: NDArray[np.uint8]
) -> None:
    coarse, slide = GRID.coarsen(2), Grid(60, 80, (0.25, 0, 0, 0, 0.25, 0), None, "micrometre", 1e-6)
    path = written(tmp_path / "m.tif", mask)
    for native in (GRID, slide):
        coarse = native.coarsen(2)
        labels = open_labels(path, grid=coarse, native=native, image="i.tif", classes=CLASSES)
        assert (labels.read(coarse.window) == mask[1::2, 1::2]).all()


def test_labels_of_a_much_coarser_image_are_read_in_pieces(
    tmp_path: Path, mask: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, coarse = written(tmp_path / "m.tif", mask, GRID), GRID.coarsen(3)
    labels = open_labels(path, grid=coarse, native=GRID, image="i.tif", classes=CLASSES)
    whole = labels.read(coarse.window)
    read: list[Window] = []
    monkeypatch.setattr(raster_labels, "PIECE", 12)
    own = raster_labels.RasterLabels._read
    monkeypatch.setattr(
        raster_labels.RasterLabels, "_read", lambda self, window: (read.append(window), own(self, window))[1]
    )
    assert (labels.read(coarse.window) == whole).all()
    assert max(max(window.shape) for window in read) <= 12


def test_what_a_mask_takes_away_is_ignored_whatever_its_value(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path, shown = written(tmp_path / "m.tif", mask), np.full((60, 80), 255, np.uint8)
    shown[:, :20] = 0
    with rasterio.open(path, "r+") as file:
        file.write_mask(shown)
    expected = np.where(shown, mask, 255)
    assert (opened(path).read(PLAIN.window) == expected).all()
    assert (opened(path, values={0: "background", 1: "nucleus"}).read(PLAIN.window) == expected).all()


def test_values_in_refusals_are_written_as_in_a_mapping(tmp_path: Path, mask: NDArray[np.uint8]) -> None:
    path = written(tmp_path / "m.tif", mask * np.uint32(1234567))
    with pytest.raises(SourceError, match="values 0: background, 1234567: nucleus, or 1234567: ignore"):
        opened(path).read(PLAIN.window)
    with pytest.raises(SourceError, match="raster of numbers, and values list the text '0'; write numbers"):
        opened(path, values={"0": "background", "other": "nucleus"})
    with pytest.raises(SourceError, match=r"the value 1234567 .* other: a, or a class"):
        open_labels(path, grid=PLAIN, native=PLAIN, image="i.tif", classes=("a",)).read(PLAIN.window)
