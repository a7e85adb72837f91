"""Laws of polygons on disk. Oracles: GDAL's tracing of the whole mask, shapely, geopandas, pyogrio, pyarrow, pyproj."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tilesseg.errors import FormatError, StoreError
from tilesseg.formats.reading.ground_area import pixel_areas
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.vector import check_polygons, tile_polygons, write_geojson, write_geopackage, write_tile_polygons
from tilesseg.formats.vector.merge_polygons import joined_polygons
from tilesseg.formats.writer import Mask, MaskClass
from tilesseg.inference.class_counts import ClassCounts
from tilesseg.raster.grid import IDENTITY, Grid, Transform
from tilesseg.raster.window import Window

Labels = NDArray[np.uint8]
UTM = rasterio.CRS.from_epsg(32633).to_wkt()
LOCAL = 'LOCAL_CS["assembly hall",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
NORTH_UP: Transform = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
ROTATED: Transform = (8.0, 6.0, 500_000.0, 6.0, -8.0, 5_200_000.0)
CLASSES = (
    MaskClass("background", (0, 0, 0)),
    MaskClass('"nuclei" <é>', (10, 200, 30)),
    MaskClass("stroma", (255, 0, 9)),
)
PROVENANCE = {"source": "scene.tif", "plan_fingerprint": "ff", "model": 'a "net"'}
TABLES = ("gpkg", "flatgeobuf", "geoparquet")
ALL = ("geojson", *TABLES)


def spiral(size: int) -> Labels:
    """One line of a pixel's width, wound from the corner to the middle."""
    labels, y, x, dy, dx = np.zeros((size, size), np.uint8), 0, 0, 0, 1
    for _ in range(size * size):
        labels[y, x] = 1
        for _ in range(2):
            ahead = [(y + k * dy, x + k * dx) for k in (1, 2)]
            free = [0 <= p < size and 0 <= q < size for p, q in ahead]
            if free[0] and not labels[ahead[0]] and not (free[1] and labels[ahead[1]]):
                break
            dy, dx = dx, -dy
        else:
            return labels
        y, x = y + dy, x + dx
    return labels


def rings(size: int) -> Labels:
    """Rings of pixels in one another, with diagonal gaps."""
    y, x = np.mgrid[0:size, 0:size]
    labels = (np.maximum(abs(y - size // 2), abs(x - size // 2)) // 2 % 2).astype(np.uint8)
    labels[y == x] = 2
    return labels


def noise(size: int, share: float = 0.6) -> Labels:
    rng = np.random.default_rng(int(share * 100))
    return rng.choice(
        np.array([0, 1, 2, 254, 255], np.uint8), (size, size), p=[(1 - share) / 4, share, *[(1 - share) / 4] * 3]
    )


SHAPES: dict[str, Labels] = {
    "spiral": spiral(37),
    "rings": rings(41),
    "checkerboard": (np.indices((24, 24)).sum(axis=0) % 2).astype(np.uint8),
    "diagonals": (np.indices((32, 32)).sum(axis=0) % 5 == 0).astype(np.uint8),
    "one pixel wide": noise(64)[:1],
    "one pixel": np.ones((1, 1), np.uint8),
    "all one": np.ones((40, 40), np.uint8),
    "all nodata": np.full((40, 40), 255, np.uint8),
    "sponge": noise(48),
    "net": noise(64, 0.75),
    "a frame with all else inside": np.pad(noise(30), 5, constant_values=1),
}


def whole(labels: Labels) -> list[tuple[int, bytes]]:
    """The oracle: GDAL traces everything at once."""
    found = rasterio.features.shapes(labels, mask=labels < 254, connectivity=4)
    return sorted((int(value), shapely.geometry.shape(shape).normalize().wkb) for shape, value in found)


def tiled(labels: Labels, folder: Path, height: int, width: int) -> tuple[Path, ...]:
    paths = []
    for y in range(0, labels.shape[0], height):
        for x in range(0, labels.shape[1], width):
            core = Window(y, x, height, width).intersect(Window(0, 0, *labels.shape))
            paths.append(folder / f"r{y}-c{x}.npz")
            write_tile_polygons(lambda window: labels[window.slices()], core, paths[-1])
    return tuple(paths)


def joined(labels: Labels, folder: Path, height: int, width: int) -> list[tuple[int, Any]]:
    made = []
    for batch in joined_polygons(tiled(labels, folder, height, width), frozenset(range(254))):
        for number in range(len(batch)):
            shell, *holes = (ring[:, ::-1] for ring in batch.rings_of(number))
            made.append((int(batch.labels[number]), shapely.Polygon(shell, holes)))
    return made


def assert_equal_to_whole(labels: Labels, made: Sequence[tuple[int, Any]]) -> None:
    assert all(shape.is_valid for _, shape in made)
    assert sorted((label, shape.normalize().wkb) for label, shape in made) == whole(labels)
    for label in range(3):
        assert sum(shape.area for own, shape in made if own == label) == (labels == label).sum()


def as_mask(labels: Labels, *, paths: tuple[Path, ...] = (), image: Grid | None = None, **grid: Any) -> Mask:
    place = {"transform": NORTH_UP, "crs": UTM, "unit": "metre", "metres_per_unit": 1.0} | grid
    return Mask(
        Grid(*labels.shape, **place),
        lambda window: labels[window.slices()],
        CLASSES,
        PROVENANCE,
        image,
        tile_polygons=paths,
    )


def slide(labels: Labels, mpp: float = 1.0, native: float = 0.5, **rest: Any) -> Mask:
    def grid(size: float) -> dict[str, Any]:
        return {
            "transform": (size, 0.0, 100.0, 0.0, size, 50.0),
            "crs": None,
            "unit": "micrometre",
            "metres_per_unit": 1e-6,
        }

    shape = [round(n * mpp / native) for n in labels.shape]
    return as_mask(labels, image=Grid(*shape, **grid(native)), **grid(mpp), **rest)


def write(name: str, mask: Mask, folder: Path, **options: Any) -> Path:
    path = folder / f"polygons{FORMATS[name].suffixes[0]}"
    writer: Callable[..., Any] = resolve(str(FORMATS[name].writes))
    assert writer(mask, path, **options) == (path,)
    assert not list(folder.glob(".*"))
    return path


def table(path: Path) -> geopandas.GeoDataFrame:
    """The oracle: geopandas."""
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


def features(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["features"])


# ---- seams


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("tiles", [1, 2, 8])
def test_joined_polygons_are_those_of_the_whole_mask(name: str, tiles: int, tmp_path: Path) -> None:
    """With 1, 4 and 64 tiles."""
    labels = SHAPES[name]
    height, width = (-(-n // tiles) for n in labels.shape)
    assert_equal_to_whole(labels, joined(labels, tmp_path, height, width))


@given(
    labels=arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 1, 2, 254, 255])
    ),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tiling_never_changes_the_polygons(labels: Labels, height: int, width: int, tmp_path: Path) -> None:
    assert_equal_to_whole(labels, joined(labels, tmp_path, height, width))


def test_parts_of_a_large_core_are_joined_like_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_polygons, "PART", 16)
    labels = SHAPES["sponge"]
    assert_equal_to_whole(labels, joined(labels, tmp_path, 33, 40))


def test_a_piece_written_twice_is_the_same_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    labels = SHAPES["rings"]
    first = tiled(labels, tmp_path, 20, 20)
    before = [path.read_bytes() for path in first]
    assert [path.read_bytes() for path in tiled(labels, tmp_path, 20, 20)] == before
    assert sorted(tmp_path.iterdir()) == sorted(first)


def test_a_damaged_piece_is_refused_by_name(tmp_path: Path) -> None:
    labels = SHAPES["rings"]
    paths = tiled(labels, tmp_path, 20, 20)
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    for name in ALL:
        with pytest.raises(FormatError, match=rf"{paths[1].name}.*run the job again") as caught:
            write(name, as_mask(labels, paths=paths), tmp_path)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


# ---- what all formats share


@pytest.mark.parametrize("name", ALL)
def test_other_peoples_readers_find_valid_polygons_of_the_mask(name: str, tmp_path: Path) -> None:
    labels = noise(60)
    read = table(write(name, as_mask(labels, paths=tiled(labels, tmp_path, 32, 17)), tmp_path))
    assert read.crs == ("EPSG:4326" if name == "geojson" else "EPSG:32633")
    assert read.is_valid.all() and (read.geom_type == "Polygon").all()
    assert read["area_grid"].sum() == 100 * ((labels == 1) | (labels == 2)).sum()
    assert read["area_m2"].sum() == pytest.approx(1.0008 * read["area_grid"].sum(), rel=1e-5)  # UTM's scale is 0.9996
    assert set(zip(read["label"], read["class"], read["colour"], strict=True)) == {
        (1, '"nuclei" <é>', "#0ac81e"),
        (2, "stroma", "#ff0009"),
    }
    for label in (1, 2):
        own = read[read["label"] == label].to_crs(32633)
        tolerance = 1.0 if name == "geojson" else 0  # m², of lines that longitude and latitude bend and round
        assert own.area.sum() == pytest.approx(100 * (labels == label).sum(), abs=tolerance)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, (10.0, 0.0, 500_000.0, 0.0, 10.0, 5_200_000.0)])
def test_polygons_lie_where_the_pixels_do(name: str, transform: Transform, tmp_path: Path) -> None:
    labels = noise(20)
    read = table(write(name, as_mask(labels, transform=transform), tmp_path))
    affine = rasterio.Affine(*transform)
    expected = rasterio.features.shapes(labels, mask=np.isin(labels, (1, 2)), connectivity=4, transform=affine)
    oracle = {(int(value), shapely.geometry.shape(shape).normalize().wkb) for shape, value in expected}
    assert {(label, shape.normalize().wkb) for label, shape in zip(read["label"], read.geometry, strict=True)} == oracle
    assert shapely.is_ccw(shapely.get_exterior_ring(read.geometry.values)).all()


@pytest.mark.parametrize("name", ALL)
def test_a_mask_without_polygons_gives_a_file_without_features(name: str, tmp_path: Path) -> None:
    path = write(name, as_mask(np.full((9, 9), 255, np.uint8)), tmp_path)
    assert len(features(path) if name == "geojson" else table(path)) == 0


@pytest.mark.parametrize("name", ALL)
def test_small_polygons_are_left_out_and_classes_chosen(name: str, tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:4, 2:4], labels[8:11, 8:11], labels[0, 19] = 1, 1, 2
    mask = as_mask(labels)
    large = table(write(name, mask, tmp_path, min_area=900.7))
    assert large["area_grid"].tolist() == [900.0] and large["area_m2"].tolist() == pytest.approx([900.72], abs=0.01)
    assert table(write(name, mask, tmp_path, min_area=901)).empty
    assert set(table(write(name, mask, tmp_path, classes=["stroma", "background"]))["label"]) == {0, 2}


def test_the_first_class_is_left_out_only_where_it_is_called_background(tmp_path: Path) -> None:
    labels = SHAPES["rings"]
    mask = as_mask(labels)
    other = Mask(mask.grid, mask.read, (MaskClass("clear", (1, 1, 1)), *CLASSES[1:]), PROVENANCE)
    assert {one["properties"]["label"] for one in features(write("geojson", mask, tmp_path))} == {1, 2}
    assert {one["properties"]["label"] for one in features(write("geojson", other, tmp_path))} == {0, 1, 2}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0, 50.0])
def test_simplified_polygons_are_valid_fewer_points_and_none_vanishes(
    name: str, tolerance: float, tmp_path: Path
) -> None:
    labels = np.concatenate([SHAPES["net"], np.kron(noise(16), np.ones((4, 4), np.uint8))])
    plain, simple = (table(write(name, as_mask(labels), tmp_path, simplify=by)) for by in (0.0, tolerance))
    assert len(plain) == len(simple)
    assert simple.is_valid.all() and not simple.is_empty.any()
    assert simple.count_coordinates().sum() < plain.count_coordinates().sum()
    assert simple["area_m2"].sum() == plain["area_m2"].sum()  # of the pixels


def test_areas_in_degrees_are_those_of_the_ellipsoid(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[3:11, 4:25], labels[5:8, 6:9] = 1, 0
    geographic = {"crs": rasterio.CRS.from_epsg(4326).to_wkt(), "transform": (0.01, 0.0, 10.0, 0.0, -0.01, 60.0)}
    read = table(write("gpkg", as_mask(labels, **geographic, unit="degree", metres_per_unit=None), tmp_path))
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(read.geometry[0], 0.01))
    assert read["area_m2"][0] == pytest.approx(abs(area), rel=1e-6)
    assert "area_grid" not in read


@pytest.mark.parametrize("name", ALL)
def test_areas_of_polygons_are_of_the_ground_and_add_up_to_those_of_the_pixels(name: str, tmp_path: Path) -> None:
    """Web Mercator at 60° north: the plane is four times the ground. Oracle: pyproj's geodesics."""
    labels = noise(64)
    labels[:20, :20] = 1
    mercator = {"crs": rasterio.CRS.from_epsg(3857).to_wkt(), "transform": (10.0, 0.0, 1e6, 0.0, -10.0, 8_400_000.0)}
    mask = as_mask(labels, paths=tiled(labels, tmp_path, 17, 23), **mercator)
    read = table(write(name, mask, tmp_path))
    counted = ClassCounts(pixel_areas(mask.grid))
    counted.add(labels, 0)
    for label in (1, 2):
        own = read[read["label"] == label]
        assert own["area_m2"].sum() == pytest.approx(
            counted.areas[str(label)], rel=1e-12 if name != "geojson" else 1e-7
        )
    shapes = read.to_crs(4326).geometry
    for number in np.argsort(-read["area_m2"].to_numpy())[:5]:
        area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapes.iloc[number])
        assert read["area_m2"].iloc[number] == pytest.approx(abs(area), rel=1e-4)
        assert read["area_grid"].iloc[number] == pytest.approx(3.99 * abs(area), rel=1e-2)
    big = read["area_m2"].max()
    kept = table(write(name, mask, tmp_path, min_area=0.99 * big))
    assert len(kept) == 1 and kept["area_m2"].max() == big


# ---- each format


def test_slides_in_tables_keep_micrometres_without_a_crs(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3, 2:6] = 1
    for name in TABLES:
        path = write(name, slide(labels), tmp_path)
        read = table(path)
        assert read.crs is None or (name == "gpkg" and "Undefined Cartesian" in read.crs.to_wkt())
        assert read.total_bounds.tolist() == [102, 51, 106, 53]
        assert read["area_um2"].tolist() == [8.0]


def test_without_a_place_areas_and_coordinates_are_pixels(tmp_path: Path) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[1:3, 2:6] = 1
    mask = as_mask(labels, transform=IDENTITY, crs=None, unit="pixel", metres_per_unit=None)
    for name in TABLES:
        read = table(write(name, mask, tmp_path))
        assert (read["area_px"].tolist(), read.total_bounds.tolist()) == ([8.0], [2, 1, 6, 3])
    (one,) = features(write("geojson", mask, tmp_path))
    assert one["properties"]["measurements"]["Mask area px"] == 8
    assert shapely.geometry.shape(one["geometry"]).bounds == (2, 1, 6, 3)


def test_provenance_goes_into_each_format(tmp_path: Path) -> None:
    mask = as_mask(SHAPES["rings"])
    paths = {name: write(name, mask, tmp_path) for name in ALL}
    assert json.loads(paths["geojson"].read_text(encoding="utf-8"))["tilesseg"] == PROVENANCE
    assert pyogrio.read_info(paths["gpkg"])["layer_metadata"] == PROVENANCE
    assert json.loads(pyogrio.read_info(paths["flatgeobuf"])["layer_metadata"]["DESCRIPTION"]) == PROVENANCE
    assert json.loads(pyarrow.parquet.read_schema(paths["geoparquet"]).metadata[b"tilesseg"]) == PROVENANCE


def test_geoparquet_says_where_its_polygons_are(tmp_path: Path) -> None:
    path = write("geoparquet", as_mask(SHAPES["rings"]), tmp_path)
    geo = json.loads(pyarrow.parquet.read_schema(path).metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == ("1.1.0", "WKB", ["Polygon"])
    assert pyproj.CRS.from_json_dict(column["crs"]) == pyproj.CRS.from_epsg(32633)
    without = json.loads(
        pyarrow.parquet.read_schema(write("geoparquet", slide(SHAPES["rings"]), tmp_path)).metadata[b"geo"]
    )
    assert without["columns"]["geometry"]["crs"] is None


# ---- GeoJSON of slides


def test_qupath_finds_annotations_in_pixels_of_the_finest_level(tmp_path: Path) -> None:
    labels = np.zeros((12, 12), np.uint8)
    labels[2:9, 3:10], labels[4:6, 5:7] = 1, 0
    path = write("geojson", slide(labels, 1.0, 0.25), tmp_path)
    text = path.read_text(encoding="utf-8")
    (one,) = json.loads(text)["features"]
    assert json.loads(text)["type"] == "FeatureCollection" and text.count("\n") == 3  # one feature, one line
    assert one["type"] == "Feature" and uuid.UUID(one["id"]).version == 5
    assert one["properties"] == {
        "objectType": "annotation",
        "classification": {"name": '"nuclei" <é>', "color": [10, 200, 30]},
        "measurements": {"Mask area µm^2": 45.0, "Mask label": 1},
    }
    shell, hole = one["geometry"]["coordinates"]
    assert shell[0] == shell[-1] and hole[0] == hole[-1]
    expected = shapely.box(12, 8, 40, 36) - shapely.box(20, 16, 28, 24)
    assert shapely.geometry.shape(one["geometry"]).equals(expected)
    assert ".0" not in json.dumps(one["geometry"])


@pytest.mark.parametrize(("mpp", "native"), [(0.6, 0.2), (1.0, 0.499), (0.499, 0.499), (0.3, 0.9), (2.0, 0.2528)])
def test_coordinates_are_the_masks_times_the_ratio_of_pixel_sizes(mpp: float, native: float, tmp_path: Path) -> None:
    labels = np.zeros((900, 900), np.uint8)
    labels[300:600, 150:900] = 2
    (one,) = features(write("geojson", slide(labels, mpp, native), tmp_path))
    expected = [round(corner * mpp / native, 4) for corner in (150, 300, 900, 600)]
    assert list(shapely.geometry.shape(one["geometry"]).bounds) == expected


def test_the_full_canvas_counts_from_the_slides_origin(tmp_path: Path) -> None:
    labels = np.ones((4, 4), np.uint8)
    (one,) = features(write("geojson", slide(labels, 1.0, 0.5), tmp_path, canvas="full"))
    assert shapely.geometry.shape(one["geometry"]).bounds == (200, 100, 208, 108)


def test_ids_are_unique_and_do_not_depend_on_tiles(tmp_path: Path) -> None:
    labels = noise(40)
    one = features(write("geojson", slide(labels, paths=tiled(labels, tmp_path, 40, 40)), tmp_path))
    many = features(write("geojson", slide(labels, paths=tiled(labels, tmp_path, 7, 9)), tmp_path))
    assert len({each["id"] for each in one}) == len(one)
    assert {each["id"] for each in one} == {each["id"] for each in many}


# ---- GeoJSON on the Earth


def test_longitudes_and_latitudes_follow_the_right_hand_rule(tmp_path: Path) -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[20:290, 10:280], labels[50:100, 50:200] = 1, 0
    (one,) = features(write("geojson", as_mask(labels), tmp_path))
    shell, hole = (shapely.LinearRing(ring) for ring in one["geometry"]["coordinates"])
    assert shell.is_ccw and not hole.is_ccw
    to_lonlat = pyproj.Transformer.from_crs(32633, "OGC:CRS84", always_xy=True).transform
    corners = [to_lonlat(500_000 + 10 * x, 5_200_000 - 10 * y) for y, x in ((20, 10), (20, 280), (290, 280), (290, 10))]
    for corner in corners:
        assert shapely.distance(shell, shapely.Point(corner)) < 2e-9


def test_polygons_are_cut_at_the_antimeridian(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:35, 10:55], labels[10:20, 26:34], labels[12:15, 40:44] = 1, 0, 0
    utm = rasterio.CRS.from_epsg(32660).to_wkt()
    east, north = pyproj.Transformer.from_crs("OGC:CRS84", 32660, always_xy=True).transform(180.0, 50.0)
    mask = as_mask(labels, crs=utm, transform=(100.0, 0.0, east - 3000, 0.0, -100.0, north))
    read = table(write("geojson", mask, tmp_path))
    assert read.is_valid.all() and read.geom_type.tolist() == ["MultiPolygon"]
    west, _, right, _ = read.total_bounds
    assert (west, right) == (-180, 180)
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(read.geometry[0])
    scale = pyproj.Proj(32660).get_factors(179.9, 49.99).areal_scale
    assert abs(area) * scale == pytest.approx(read["area_m2"][0], rel=1e-3)
    assert shapely.get_num_interior_rings(shapely.get_parts(read.geometry.values)).sum() == 1  # the other one is cut


def test_a_grid_beyond_180_degrees_is_cut_as_well(tmp_path: Path) -> None:
    labels = np.ones((10, 36), np.uint8)
    geographic = {"crs": rasterio.CRS.from_epsg(4326).to_wkt(), "transform": (10.0, 0.0, 0.0, 0.0, -5.0, 25.0)}
    read = table(write("geojson", as_mask(labels, **geographic, unit="degree", metres_per_unit=None), tmp_path))
    assert read.total_bounds.tolist() == [-180, -25, 180, 25]
    assert read.is_valid.all() and read.geometry[0].area == 360 * 50


# ---- refusals


def test_unknown_classes_are_refused_with_those_there_are(tmp_path: Path) -> None:
    for name in ALL:
        with pytest.raises(
            FormatError, match=r"class tumour: the mask has the classes background, .*stroma; choose among"
        ):
            write(name, as_mask(SHAPES["rings"]), tmp_path, classes=["tumour"])
    assert not list(tmp_path.iterdir())


def test_what_geojson_cannot_say_is_refused_before_the_first_tile(tmp_path: Path) -> None:
    labels, path = SHAPES["rings"], tmp_path / "a.geojson"
    polar = rasterio.CRS.from_epsg(3413).to_wkt()
    with pytest.raises(FormatError, match="has a CRS; leave canvas out"):
        check_polygons(as_mask(labels), path, canvas="full")
    with pytest.raises(FormatError, match="north pole"):
        check_polygons(
            as_mask(labels, crs=polar, transform=(10.0, 0.0, -200.0, 0.0, -10.0, 200.0)), path, canvas="bounds"
        )
    with pytest.raises(FormatError, match=r"longitudes and latitudes, and the CRS .*assembly hall"):
        check_polygons(as_mask(labels, crs=LOCAL), path, canvas="bounds")
    with pytest.raises(FormatError, match="is rotated"):
        check_polygons(as_mask(labels, crs=None, transform=ROTATED), path, canvas="full")
    check_polygons(as_mask(labels, crs=LOCAL), tmp_path / "a.gpkg")
    check_polygons(as_mask(labels, crs=LOCAL), tmp_path / "a.parquet")


def test_a_missing_library_is_one_line_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tilesseg.formats.vector import vector_checks as checking

    monkeypatch.setattr(checking, "NEEDED", ("shapely", "no_such_module"))
    with pytest.raises(FormatError, match=r"no_such_module is not installed; install tilesseg\[vector\]"):
        check_polygons(as_mask(SHAPES["rings"]), tmp_path / "a.gpkg")


@pytest.mark.parametrize("name", ALL)
def test_a_failure_on_the_way_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    path = write(name, as_mask(SHAPES["rings"]), tmp_path)
    before = path.read_bytes()

    def read(window: Window) -> Labels:
        raise StoreError("the disk is gone")

    mask = as_mask(SHAPES["rings"])
    with pytest.raises(StoreError, match="the disk is gone"):
        write(name, Mask(mask.grid, read, CLASSES, PROVENANCE), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    writer: Callable[..., Any] = resolve(str(FORMATS[name].writes))
    suffix = FORMATS[name].suffixes[0]
    (tmp_path / f"folder{suffix}").mkdir()
    for path in (tmp_path / "missing" / f"a{suffix}", tmp_path / f"folder{suffix}"):
        with pytest.raises(FormatError, match="cannot write") as caught:
            writer(as_mask(SHAPES["rings"]), path)
        assert "\n" not in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == [f"folder{suffix}"]


@pytest.mark.parametrize("name", TABLES)
def test_a_product_replaces_an_older_one(name: str, tmp_path: Path) -> None:
    write(name, as_mask(SHAPES["net"]), tmp_path)
    assert len(table(write(name, as_mask(np.ones((5, 5), np.uint8)), tmp_path))) == 1


def test_writing_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_geojson(slide(SHAPES["net"]), tmp_path / "a.geojson")
        write_geopackage(slide(SHAPES["net"]), tmp_path / "a.gpkg")
