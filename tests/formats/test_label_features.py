"""Features as labels: files that are incomplete, ambiguous, or larger than what can be drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.crs import CRS

from tilesseg.errors import SourceError
from tilesseg.formats import vector
from tilesseg.formats.labels import vector_labels
from tilesseg.formats.labels.label_source import open_labels
from tilesseg.formats.labels.label_values import LabelOptions
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.raster.grid import Grid
from tilesseg.raster.window import Window

pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided:UserWarning")
CLASSES = ("background", "nucleus")
PLAIN = Grid(60, 80)
UTM = Grid(60, 80, (0.5, 0, 700000, 0, -0.5, 3700000), CRS.from_epsg(32616).to_wkt(), "metre", 1.0)
SLIDE = Grid(60, 80, (0.25, 0, 0, 0, 0.25, 0), None, "micrometre", 1e-6)
SQUARE = [[10, 10], [50, 10], [50, 50], [10, 50], [10, 10]]
WRITERS = {
    "gpkg": vector.write_geopackage, "fgb": vector.write_flatgeobuf, "parquet": vector.write_geoparquet,
    "geojson": vector.write_geojson,
}  # fmt: skip


def read(path: Path, grid: Grid = PLAIN, **options: Any) -> NDArray[np.uint8]:
    named = LabelOptions(**options)
    labels = open_labels(str(path), grid=grid, native=grid, image="i.tif", classes=CLASSES, options=named)
    return labels.read(grid.window)


def geojson(path: Path, *rings: Any, properties: Any = None) -> Path:
    features = [
        {"type": "Feature", "properties": own, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        for ring, own in zip(rings, properties or [{}] * len(rings), strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def product(folder: Path, suffix: str, grid: Grid) -> tuple[Path, NDArray[np.uint8]]:
    labels = np.zeros(grid.shape, np.uint8)
    labels[10:30, 20:60] = 1
    classes = (MaskClass("background", (0, 0, 0)), MaskClass("nucleus", (255, 0, 0)))
    path = folder / f"m.{suffix}"
    WRITERS[suffix](Mask(grid, lambda window: labels[window.slices()], classes, {}), path)
    return path, labels


@pytest.mark.parametrize("grid", [PLAIN, UTM], ids=["plain", "utm"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_polygons_of_a_mask_are_labels_again(tmp_path: Path, suffix: str, grid: Grid) -> None:
    path, labels = product(tmp_path, suffix, grid)
    assert (read(path, grid) == labels).all()


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_micrometres_are_not_taken_for_pixels(tmp_path: Path, suffix: str) -> None:
    path, _ = product(tmp_path, suffix, SLIDE)
    with pytest.raises(SourceError, match=r"names no CRS, and i\.tif is in µm: .* give GeoJSON in pixels"):
        read(path, SLIDE)
    path, labels = product(tmp_path, "geojson", SLIDE)
    assert (read(path, SLIDE) == labels).all()


def table(path: Path, shapes: list[Any], kinds: list[Any] | None = None, **options: Any) -> Path:
    pyogrio, shapely = pytest.importorskip("pyogrio"), pytest.importorskip("shapely")
    columns, names = ([], []) if kinds is None else ([np.array(kinds, object)], ["kind"])
    options = {"geometry_type": "Polygon", "driver": "GPKG", "crs": None, **options}
    made = None if shapes[0] is None else shapely.to_wkb([shapely.Polygon(shape) for shape in shapes])
    pyogrio.raw.write(str(path), made, columns, names, **options)
    return path


def test_a_table_without_a_crs_is_not_taken_for_longitude_and_latitude(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"v\.shp names no CRS, and i\.tif has EPSG:32616; write its CRS into it"):
        read(table(tmp_path / "v.shp", [SQUARE], driver="ESRI Shapefile"), UTM)


def test_of_several_layers_one_must_be_named(tmp_path: Path) -> None:
    path = table(tmp_path / "v.gpkg", [SQUARE], layer="one")
    table(path, [[[0, 0], [9, 0], [9, 9], [0, 9]]], layer="two", append=True)
    with pytest.raises(SourceError, match="holds the layers one, two; say by layer"):
        read(path)
    assert read(path, layer="two").sum() == 81


def test_tables_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a position of feature 2 is not finite"):
        read(table(tmp_path / "v.gpkg", [SQUARE, [[1, 1], [np.inf, 1], [5, 5], [1, 1]]]))
    with pytest.raises(SourceError, match="is a table without geometry"):
        read(table(tmp_path / "t.gpkg", [None], ["a"], geometry_type="Unknown"))


def test_a_missing_value_is_refused_with_its_number_and_is_none_of_the_others(tmp_path: Path) -> None:
    files = [
        geojson(tmp_path / "a.geojson", SQUARE, SQUARE, properties=[{"kind": "nucleus"}, {}]),
        geojson(tmp_path / "b.geojson", SQUARE, SQUARE, properties=[{"kind": "nucleus"}, {"kind": None}]),
        table(tmp_path / "c.gpkg", [SQUARE, SQUARE], ["nucleus", None]),
    ]
    for path in files:
        with pytest.raises(SourceError, match="1 of 2 features have no kind, the first is feature 2"):
            read(path, attribute="kind", values={"other": "nucleus"})


@pytest.mark.parametrize(
    ("value", "values", "found"),
    [("1", {1: "nucleus"}, 1), (1.0, {"1": "nucleus"}, 1), (True, {1: "nucleus"}, 1), ("007", {"007": "nucleus"}, 1)],
)
def test_numbers_are_the_same_as_text(tmp_path: Path, value: Any, values: Any, found: int) -> None:
    path = geojson(tmp_path / "a.geojson", SQUARE, properties=[{"kind": value}])
    assert read(path, attribute="kind", values=values)[20, 20] == found


def test_a_value_of_no_class_is_refused_with_the_closest(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", SQUARE, properties=[{"kind": "Nucleus"}])
    with pytest.raises(SourceError, match=r"none of background, nucleus; did you mean nucleus\? map it"):
        read(path, attribute="kind")
    path = geojson(tmp_path / "b.geojson", SQUARE, properties=[{"kind": ["a"]}])
    with pytest.raises(SourceError, match=r"feature 1 has kind \['a'\], which is none of a"):
        read(path, attribute="kind", values={"a": "nucleus"})


def test_an_open_ring_is_closed(tmp_path: Path) -> None:
    closed = read(geojson(tmp_path / "a.geojson", [[10, 10], [50, 10], [50, 50], [10, 10]]))
    assert (read(geojson(tmp_path / "b.geojson", [[10, 10], [50, 10], [50, 50]])) == closed).all() and closed.any()


def test_a_polygon_that_reaches_too_far_is_refused_and_not_left_out(tmp_path: Path) -> None:
    far = [[4, -1e10], [1e10, -1e10], [1e10, 1e10], [4, 1e10], [4, -1e10]]
    with pytest.raises(SourceError, match=r"reaches 1e\+10 px away, and 1e\+09 px can be drawn; cut it"):
        read(geojson(tmp_path / "a.geojson", far))
    with pytest.raises(SourceError, match="cut it to the image"):
        read(geojson(tmp_path / "b.geojson", SQUARE), area=str(tmp_path / "a.geojson"))


@pytest.mark.parametrize("all_touched", [False, True])
def test_corners_beyond_a_cell_change_nothing_in_it(all_touched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_labels, "CELL", 32)
    draw = np.random.default_rng(5)
    for _ in range(20):
        walk = np.cumsum(draw.normal(0, 9, (300, 2)), axis=0) + 64
        ring = np.concatenate([walk, walk[:1]])
        feature = vector_labels.Feature(1, [[ring]])
        outlines = vector_labels.Outlines.of([(feature, 1)])

        def drawn(outlines: vector_labels.Outlines = outlines) -> NDArray[np.uint8]:
            return vector_labels.RasterisedCells(outlines, (128, 128), 0, all_touched).read(Window(0, 0, 128, 128))

        near = drawn()
        with monkeypatch.context() as patch:
            patch.setattr(vector_labels, "_near", lambda ring, place: ring)
            assert (drawn() == near).all()


def test_a_cell_draws_few_of_the_corners_of_a_large_outline() -> None:
    turn = np.linspace(0, 2 * np.pi, 100_001)
    ring = 10_000 + 9_000 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    assert len(vector_labels._near(ring, Window(10_000, 18_500, 1024, 1024))) < 3_000
    assert len(vector_labels._near(ring, Window(10_000, 10_000, 1024, 1024))) < 20
