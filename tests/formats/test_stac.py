"""STAC: items, item collections, collections and catalogs. Made small; rasterio and pystac judge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_bundle
from hypothesis import given
from hypothesis import strategies as st
from raster_files import RNG, SIDE, band_of, held, numbers, write

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, SourceError
from tilesseg.events import TileDone
from tilesseg.formats.open import open_source
from tilesseg.formats.stac import stac_items as stac_json
from tilesseg.formats.stac.stac_items import outline, read_item, scene_name
from tilesseg.planning.band_choice import choose_bands
from tilesseg.planning.job import parse_job
from tilesseg.planning.scene_list import Scene, find_scenes
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job


def old_item(folder: Path, **changes: Any) -> dict[str, Any]:
    """An item of version 1.0 in the manner of Earth Search, and its files."""
    raster = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
    tiff = "image/tiff; application=geotiff; profile=cloud-optimized"
    assets: dict[str, Any] = {}
    bands = {
        "red": ("B04", 10, 0.665),
        "nir": ("B08", 10, 0.842),
        "rededge1": ("B05", 20, 0.704),
        "rededge2": ("B06", 20, 0.74),
    }
    for key, (number, size, centre) in bands.items():
        write(folder / f"{number}.tif", numbers(SIDE // size), size)
        write(folder / f"{number}.jp2", numbers(SIDE // size), size)
        named = {"name": key, "common_name": key.rstrip("12"), "center_wavelength": centre}
        common = {"eo:bands": [named], "raster:bands": raster, "roles": ["data", "reflectance"]}
        assets[key] = {"href": f"./{number}.tif", "type": tiff, **common}
        assets[f"{key}-jp2"] = {"href": f"{number}.jp2", "type": "image/jp2", **common}
    three = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    assets["visual"] = {"href": "TCI.tif", "type": tiff, "eo:bands": three, "roles": ["visual"]}
    assets["scl"] = {"href": "SCL.tif", "type": tiff, "raster:bands": [{"nodata": 0}], "roles": ["data", "reflectance"]}
    assets["thumbnail"] = {"href": "preview.jpg", "type": "image/jpeg", "roles": ["thumbnail"]}
    assets["tileinfo"] = {"href": "tileInfo.json", "type": "application/json", "roles": ["metadata"]}
    name = "S2B_33UVU_20230611_0_L2A"
    links = [{"rel": "self", "href": f"https://stac.example/{name}.json"}]
    item = {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": {}, "geometry": None, "links": links}
    return {**item, "assets": assets, **changes}


def new_item(folder: Path) -> dict[str, Any]:
    """An item of version 1.1: `bands`, one asset of several, numbers said once for all."""
    values = RNG.integers(1, 9000, (3, 12, 12)).astype(np.int16)
    values[:, :3] = -999
    write(folder / "image.tif", values, 10)
    bands = [{"name": f"b{k}", "eo:common_name": name} for k, name in enumerate(("green", "red", "nir08"))]
    bands[2]["raster:offset"] = "0.5"
    image = {"href": "image.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], "bands": bands}
    image |= {"raster:scale": 0.001, "nodata": -999}
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": "a/scene", "properties": {}, "geometry": None, "links": [],
        "assets": {"image": image},
    }  # fmt: skip


def save(folder: Path, item: Any) -> str:
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return str(path)


def test_a_stac_item_of_version_1_0_gives_its_bands_once_each(tmp_path: Path) -> None:
    path = save(tmp_path, old_item(tmp_path))
    source = open_source(path)
    assert source.bands == ("red", "nir", "rededge071", "rededge075")
    raw, got = held(tmp_path / "B04.tif"), band_of(source, "red")
    assert np.array_equal(got.valid, raw != 0)
    assert np.allclose(got.values[0][got.valid], raw[raw != 0] * 0.0001 - 0.1, atol=1e-7)
    assert path in source.identity()
    assert any("B04.jp2 is left out" in note for note in source.describe()["notes"])


def test_a_stac_item_of_version_1_1_names_the_bands_of_one_asset(tmp_path: Path) -> None:
    source = open_source(save(tmp_path, new_item(tmp_path)))
    assert source.bands == ("green", "red", "nir")
    with rasterio.open(tmp_path / "image.tif") as file:
        raw = file.read()
    whole = source.read(Window(0, 0, 12, 12))
    assert np.array_equal(whole.valid, (raw != -999).any(axis=0))
    expected = raw * 0.001 + np.array([0, 0, 0.5])[:, None, None]
    assert np.allclose(whole.values[:, whole.valid], expected[:, whole.valid], atol=1e-6)


def test_a_stac_item_is_named_by_its_id(tmp_path: Path) -> None:
    assert find_scenes(save(tmp_path, old_item(tmp_path)))[0].name == "S2B_33UVU_20230611_0_L2A"
    assert scene_name(save(tmp_path, new_item(tmp_path))) == "a_scene"
    assert scene_name("https://stac.example/v1/collections/s2/items/S2B_33UVU") == "S2B_33UVU"
    assert scene_name("https://stac.example/S2B_33UVU/item.json?token=1") == "S2B_33UVU"
    assert scene_name("/data/LC08_X_B4.TIF") == "LC08_X_B4"


def test_files_of_an_item_are_beside_it_or_where_it_says_that_it_is(tmp_path: Path) -> None:
    from tilesseg.formats.geotiff.deliveries.stac_item import find_stac

    item = old_item(tmp_path)
    (tmp_path / "B08.tif").unlink()
    found = find_stac(save(tmp_path, item))
    assert found is not None
    places = {file.names[0]: file.path for file in found.files}
    assert places["nir"] == "https://stac.example/B08.tif" and places["red"] == str(tmp_path / "B04.tif")


def test_missing_files_of_an_item_are_left_out_and_said(tmp_path: Path) -> None:
    item = old_item(tmp_path, links=[])
    (tmp_path / "B08.tif").unlink()
    source = open_source(save(tmp_path, item))
    assert source.bands == ("red", "rededge071", "rededge075")
    assert any("the files of nir are not there" in note for note in source.describe()["notes"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot read .* as a STAC item"),
        ("[1]", "nor a STAC item, but list"),
        ('{"type": "FeatureCollection", "features": []}', "nor a STAC item, but FeatureCollection"),
        ('{"type": "Feature", "assets": {}}', "no asset of it holds measured bands"),
    ],
)
def test_json_that_is_no_item_with_bands_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "item.json").write_text(content)
    with pytest.raises(SourceError, match=words) as refused:
        open_source(str(tmp_path / "item.json"))
    assert "\n" not in str(refused.value)


def test_an_item_is_read_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item comes from a server, its assets relative to its address."""
    from tilesseg.formats.geotiff.deliveries import stac_item as stac
    from tilesseg.formats.stac import stac_items as stac_json

    item = json.dumps(old_item(tmp_path)).encode()
    asked: list[str] = []
    monkeypatch.setattr(stac_json, "_fetched", lambda url: asked.append(url) or item)
    found = stac.find_stac("https://stac.example/collections/s2/items/S2B_33UVU")
    assert found is not None and asked == ["https://stac.example/collections/s2/items/S2B_33UVU"]
    assert found.files[0].path == "https://stac.example/collections/s2/items/B04.tif"


def asset(href: str, name: str, **more: Any) -> dict[str, Any]:
    kind = {"type": "image/tiff; application=geotiff", "roles": ["data"]}
    return {"href": href, **kind, "bands": [{"name": name, "eo:common_name": name}], **more}


def small_item(identity: str, assets: Any, *, links: Any = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": identity, "geometry": None, "links": list(links),
        "properties": {"datetime": "2023-06-11T10:10:31Z", **properties}, "assets": assets,
    }  # fmt: skip


def two_reds(folder: Path, **of_the_second: Any) -> str:
    for name, size in (("R20", 20), ("R10", 10), ("N10", 10)):
        write(folder / f"{name}.tif", numbers(SIDE // size), size)
    assets = {
        "B04_20m": asset("R20.tif", "red", gsd=20), "B04": asset("R10.tif", "red", **of_the_second),
        "B08": asset("N10.tif", "nir"),
    }  # fmt: skip
    return save(folder, small_item("s", assets))


@pytest.mark.parametrize(
    "told", [{"gsd": 10}, {"proj:transform": [10, 0, 0, 0, -10, 0]}, {"raster:spatial_resolution": 10}]
)
def test_of_two_files_of_one_band_the_finer_one_is_taken(tmp_path: Path, told: dict[str, Any]) -> None:
    source = open_source(two_reds(tmp_path, **told))
    assert source.bands == ("red", "nir")
    assert np.array_equal(band_of(source, "red").values[0], held(tmp_path / "R10.tif"))
    assert any("R20.tif is left out: red also come" in note for note in source.describe()["notes"])


def test_two_files_of_one_band_that_cannot_be_told_apart_keep_their_keys(tmp_path: Path) -> None:
    path = two_reds(tmp_path)
    source = open_source(path)
    assert source.bands == ("B04_20m.red", "B04.red", "nir")
    chosen, _ = choose_bands(source, ["red", "nir"], ["B04.red", "nir"], image=path)
    assert chosen == (1, 2)
    with pytest.raises(SourceError, match=r"0 bands named red, its bands are B04_20m\.red, B04\.red, nir") as refused:
        choose_bands(source, ["red", "nir"], ["red", "nir"], image=path)
    assert "\n" not in str(refused.value)


def test_one_file_under_two_keys_is_one_file(tmp_path: Path) -> None:
    write(tmp_path / "R.tif", numbers(6), 10)
    path = save(tmp_path, small_item("s", {"B04": asset("R.tif", "red"), "red": asset("./R.tif", "red")}))
    assert open_source(path).bands == ("red",)


@pytest.mark.parametrize(
    "assets",
    [
        {"red": 3},
        {"red": {**asset("R.tif", "red"), "bands": "red"}},
        {"red": {**asset("R.tif", "red"), "raster:scale": "much"}},
        {"red": {**asset("R.tif", "red"), "roles": 7}},
        {"red": asset("R.tif", "red", gsd=[])},
    ],
)
def test_an_item_that_is_not_valid_is_refused_in_one_line(tmp_path: Path, assets: Any) -> None:
    write(tmp_path / "R.tif", numbers(6), 10)
    with pytest.raises(SourceError, match="cannot open the STAC item") as refused:
        open_source(save(tmp_path, small_item("s", assets)))
    assert "\n" not in str(refused.value)


def collected(folder: Path, *identities: str) -> str:
    """An item collection, the bands of each item in its own folder beside it."""
    features = []
    for identity in identities:
        write(folder / identity / "red.tif", numbers(6), 10)
        features.append(
            small_item(identity, {"red": asset(f"./{identity}/red.tif", "red")}, title='größer, 東京 {[\\"]}')
        )
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False), "utf-8")
    return str(path)


def test_each_item_of_an_item_collection_is_a_scene_that_opens_from_its_path(tmp_path: Path) -> None:
    path = collected(tmp_path, "S2A_1", "S2B.2", "Würzburg #3")
    scenes = find_scenes(path)
    assert [scene.name for scene in scenes] == ["S2A_1", "S2B.2", "Würzburg__3"]
    assert [scene.paths for scene in scenes] == [(f"{path}#{name}",) for name in ("S2A_1", "S2B.2", "Würzburg #3")]
    for scene, folder in zip(scenes, ("S2A_1", "S2B.2", "Würzburg #3"), strict=True):
        source = open_source(scene.paths)
        assert source.bands == ("red",)
        assert np.array_equal(source.read(source.grid.window).values[0], held(tmp_path / folder / "red.tif"))
        assert scene_name(scene.paths[0]) == scene.name


def test_items_are_found_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collected(tmp_path, "a")
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "links": [{"rel": "item", "href": "i/i.json"}]}')
    monkeypatch.chdir(tmp_path)
    assert find_scenes(("items.json", "catalog.json")) == (
        Scene("a", (f"{tmp_path}/items.json#a",)),
        Scene("i", (f"{tmp_path}/i/i.json",)),
    )


def test_real_bands_are_read_by_common_name_through_an_item(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "satellite" / "landsat8_iceland_greenland"
    files = {name: folder / f"LC80030172015001LGN00_B{k}.tif" for k, name in ((2, "blue"), (3, "green"), (4, "red"))}
    assets = {f"SR_{path.stem[-2:]}": asset(str(path), name, **{"raster:scale": 2e-5}) for name, path in files.items()}
    assets["SR_B5"] = asset(str(folder / "LC80030172015001LGN00_B5.tif"), "nir08", **{"raster:scale": 2e-5})
    document = {"type": "FeatureCollection", "features": [small_item("LC80030172015001LGN00", assets)]}
    (tmp_path / "items.json").write_text(json.dumps(document))
    (scene,) = find_scenes(str(tmp_path / "items.json"))
    source = open_source(scene.paths)
    assert source.bands == ("blue", "green", "red", "nir") and source.grid.shape == (1093, 1310)
    window = Window(500, 600, 64, 96)
    with rasterio.open(files["red"]) as file:
        raw = file.read(1, window=((500, 564), (600, 696)))
        assert source.grid.transform == tuple(file.transform)[:6]
    got = source.select([2]).read(window).values[0]
    assert np.allclose(got, raw * 2e-5, atol=1e-7) and raw.std() > 0


def test_the_identity_of_an_item_of_a_collection_does_not_depend_on_the_others(tmp_path: Path) -> None:
    path = f"{collected(tmp_path, 'a', 'b')}#b"
    before = open_source(path).identity()
    assert set(before) == {path, str(tmp_path / "b" / "red.tif")} and None not in before.values()
    values = json.loads((tmp_path / "items.json").read_bytes())
    values["features"] = [{"type": "Feature", "id": "new"}, *values["features"]]
    (tmp_path / "items.json").write_text(json.dumps(values, ensure_ascii=False), "utf-8")
    assert open_source(path).identity() == before
    values["features"][2]["assets"]["red"]["raster:scale"] = 2
    (tmp_path / "items.json").write_text(json.dumps(values, ensure_ascii=False), "utf-8")
    assert open_source(path).identity() != before


def test_bytes_of_items_are_found_however_the_json_is_written(tmp_path: Path) -> None:
    values = json.loads(Path(collected(tmp_path, "a", "ü")).read_bytes())
    values = {"features": values["features"], "type": "FeatureCollection", "links": [], "n": {"features": [1]}}
    for text in (json.dumps(values), json.dumps(values, indent=3, ensure_ascii=False), json.dumps(values, indent="\t")):
        for mark in (b"", b"\xef\xbb\xbf"):
            (tmp_path / "items.json").write_bytes(mark + text.encode())
            told, members = outline(mark + text.encode())
            assert told == {key: value for key, value in values.items() if key != "features"}
            assert [member.identity for member in members] == ["a", "ü"]
            assert read_item(str(tmp_path / "items.json#ü")) == values["features"][1]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
ANYTHING = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


@given(
    others=st.dictionaries(TEXT, ANYTHING, max_size=4),
    features=st.lists(ANYTHING, max_size=4),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    cut=st.integers(1, 60),
)
def test_every_feature_is_found_in_any_json(
    others: dict[str, Any], features: list[Any], indent: int | None, ascii_only: bool, cut: int
) -> None:
    values = {**others, "features": features, "type": "FeatureCollection"}
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    told, members = outline(data)
    assert told == {key: value for key, value in values.items() if key != "features"}
    assert [json.loads(data[one.start : one.stop]) for one in members] == features
    with pytest.raises(ValueError):
        outline(data[:-cut])


def test_an_item_that_is_no_longer_in_its_collection_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = collected(tmp_path, "a")
    with pytest.raises(SourceError, match=r"items\.json#b as a STAC item: no item with the id b among its 1"):
        open_source(f"{path}#b")


def test_a_bad_item_of_a_collection_costs_one_scene(tmp_path: Path) -> None:
    path = collected(tmp_path, "good", "gone")
    (tmp_path / "gone" / "red.tif").unlink()
    values = json.loads(Path(path).read_bytes())
    values["features"] += [small_item("empty", {}), {"type": "Feature"}, 3]
    Path(path).write_text(json.dumps(values))
    good, *bad = find_scenes(path)
    assert open_source(good.paths).bands == ("red",)
    assert [scene.name for scene in bad] == ["gone", "empty", "item-4", "item-5"]
    for scene in bad:
        with pytest.raises(SourceError) as refused:
            open_source(scene.paths)
        assert scene.paths[0] in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "FeatureCollection", "features": []}, "a STAC FeatureCollection without items"),
        ({"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]}, "a Feature with assets"),
        ({"type": "Collection", "links": [{"rel": "root", "href": "./c.json"}]}, "a STAC Collection without items"),
        ({"type": "Catalog", "links": None}, "a STAC Catalog without items"),
        (
            {"type": "Catalog", "links": [{"rel": "child", "href": "gone.json"}]},
            r"cannot read .*gone\.json as STAC, to which .*c\.json links",
        ),
        (
            {"type": "FeatureCollection", "features": [small_item("a", {}), small_item("a", {})]},
            "two items have the id a",
        ),
    ],
)
def test_a_collection_without_scenes_refuses_the_job_in_one_line(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(JobError, match=words) as refused:
        find_scenes(str(tmp_path / "c.json"))
    assert "\n" not in str(refused.value)


def catalogued(folder: Path) -> Any:
    """A catalog of two collections by pystac, an item in the catalog itself and two in each collection."""
    pystac = pytest.importorskip("pystac")
    when = datetime(2023, 6, 11, tzinfo=UTC)
    extent = pystac.Extent(pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[when, None]]))
    catalog = pystac.Catalog("all", "made by a test")
    collections = [pystac.Collection(name, "one year", extent) for name in ("y2023", "y2024")]
    catalog.add_children(collections)
    for parent, identity in ((catalog, "top"), *((c, f"{c.id}.{k}") for c in collections for k in "ab")):
        item = pystac.Item(identity, None, None, when, {})
        file = write(folder / "files" / f"{identity}.tif", numbers(6), 10)
        common = {"bands": [{"name": "B4", "eo:common_name": "red"}], "raster:scale": 0.5}
        item.add_asset(
            "image", pystac.Asset(str(file), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=common)
        )
        parent.add_item(item)
    catalog.normalize_hrefs(str(folder))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    return catalog


def test_a_catalog_of_collections_names_the_items_that_pystac_finds(tmp_path: Path) -> None:
    catalog = catalogued(tmp_path)
    scenes = find_scenes(str(tmp_path / "catalog.json"))
    assert [scene.name for scene in scenes] == [item.id for item in catalog.get_items(recursive=True)]
    assert [scene.paths[0] for scene in scenes] == [item.get_self_href() for item in catalog.get_items(recursive=True)]
    for scene in scenes:
        source = open_source(scene.paths)
        expected = held(tmp_path / "files" / f"{scene.name}.tif") * 0.5
        assert source.bands == ("red",) and np.array_equal(source.read(source.grid.window).values[0], expected)
    assert [scene.name for scene in find_scenes(str(tmp_path / "y2024" / "collection.json"))] == ["y2024.a", "y2024.b"]


def test_links_in_a_circle_end_and_each_item_comes_once(tmp_path: Path) -> None:
    catalogued(tmp_path)
    path = tmp_path / "y2023" / "collection.json"
    values = json.loads(path.read_bytes())
    values["links"] += [
        {"rel": "child", "href": "../catalog.json"}, {"rel": "child", "href": "./collection.json"},
        {"rel": "item", "href": "../y2024/y2024.a/y2024.a.json"},
    ]  # fmt: skip
    path.write_text(json.dumps(values))
    found = [scene.name for scene in find_scenes(str(tmp_path / "catalog.json"))]
    assert found == ["top", "y2023.a", "y2023.b", "y2024.a", "y2024.b"]


def test_an_item_that_a_catalog_lists_and_that_is_not_there_costs_one_scene(tmp_path: Path) -> None:
    links = [{"rel": "item", "href": f"./{name}/item.json"} for name in ("a", "b")]
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    scenes = find_scenes(str(tmp_path / "catalog.json"))
    assert [scene.name for scene in scenes] == ["a", "b"]
    with pytest.raises(SourceError, match=r"a/item\.json: no such file"):
        open_source(scenes[0].paths)


def test_bands_that_an_item_does_not_name_are_called_as_their_file_or_asset_is(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", numbers(6), 10)
    write(tmp_path / "b.tif", numbers(6), 10)
    plain = {"type": "image/tiff", "roles": ["data"]}
    assets: dict[str, Any] = {
        "B04": {"href": "a.tif", "raster:bands": [{"scale": 0.5, "nodata": 0}], **plain},
        "B08": {"href": "b.tif", **plain},
        "mask": {"href": "a.tif", **plain, "roles": ["cloud-mask"]},
    }
    source = open_source(save(tmp_path, small_item("s", assets)))
    assert source.bands == ("B04", "B08")
    raw, got = held(tmp_path / "a.tif"), band_of(source, "B04")
    assert np.array_equal(got.values[0], raw * 0.5) and np.array_equal(got.valid, raw != 0)
    write(tmp_path / "a.tif", RNG.integers(1, 99, (3, 6, 6)).astype(np.uint8), 10, photometric="RGB")
    assert open_source(save(tmp_path, small_item("s", {"image": assets["B04"]}))).bands == ("red", "green", "blue")


def test_a_collection_given_as_one_image_says_what_it_is(tmp_path: Path) -> None:
    catalogued(tmp_path)
    for path, kind in ((collected(tmp_path, "a"), "FeatureCollection"), (str(tmp_path / "catalog.json"), "Catalog")):
        with pytest.raises(SourceError, match=f"a STAC {kind} of many items is no image"):
            open_source(path)


def test_the_items_of_a_collection_are_segmented_and_only_a_broken_one_is_left(tmp_path: Path) -> None:
    path = collected(tmp_path, "good", "gone", "fine")
    (tmp_path / "gone" / "red.tif").rename(tmp_path / "red.tif")
    bundle = write_bundle(tmp_path / "model", "Constant", bands=1)
    asked = {"image": path, "input": {"bands": ["red"]}}
    job = parse_job(job_data([asked], bundle, tmp_path / "run", input={"check_range": False}), where="test")
    report = run_job(job, executor=SerialExecutor())
    assert report.exit_code == 3
    assert [(one.scene, one.state) for one in report.scenes] == [
        ("good", "complete"), ("gone", "refused"), ("fine", "complete"),
    ]  # fmt: skip
    assert "none of its 1 files is there" in str(report.scenes[1].refused)
    (tmp_path / "red.tif").rename(tmp_path / "gone" / "red.tif")
    events: list[Any] = []
    report = run_job(job, executor=SerialExecutor(), listeners=[events.append])
    assert report.exit_code == 0
    assert {event.scene for event in events if isinstance(event, TileDone)} == {"gone"}
    with rasterio.open(tmp_path / "good" / "red.tif") as red:
        for one in report.scenes:
            with rasterio.open(tmp_path / "run" / "scenes" / one.scene / f"{one.scene}.tif") as mask:
                assert (mask.crs, mask.transform, mask.shape) == (red.crs, red.transform, red.shape)


class Site:
    """Pages of a made-up server, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pages: dict[str, Any]) -> None:
        self.asked: list[str] = []

        def fetched(url: str) -> bytes:
            self.asked.append(url)
            if url not in pages:
                raise HTTPError(url, 404, "Not Found", Message(), None)
            return json.dumps(pages[url]).encode()

        monkeypatch.setattr(stac_json, "_fetched", fetched)


API = "https://stac.example/v1/collections/s2"


def test_the_pages_of_an_api_are_followed_and_items_are_had_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def page(*identities: str, **further: str) -> dict[str, Any]:
        own = {name: [{"rel": "self", "href": f"{API}/items/{name}"}] for name in identities}
        links = [{"rel": rel, "href": href} for rel, href in further.items()]
        return {"type": "FeatureCollection", "features": [small_item(n, {}, links=own[n]) for n in own], "links": links}

    pages = {
        API: {"type": "Collection", "id": "s2", "links": [{"rel": "items", "href": f"{API}/items"}]},
        f"{API}/items": page("S2A.1", "S2A.2", next="items?page=2"),
        f"{API}/items?page=2": page("S2A.3", next=f"{API}/items?page=2"),
    }
    pages[f"{API}/items"]["links"][0]["href"] = f"{API}/items?page=2"
    site = Site(monkeypatch, pages)
    for start in (API, f"{API}/items"):
        scenes = find_scenes(start)
        assert [scene.paths for scene in scenes] == [(f"{API}/items/S2A.{k}",) for k in (1, 2, 3)]
        assert [scene.name for scene in scenes] == ["S2A.1", "S2A.2", "S2A.3"]
    assert not any("S2A" in url for url in site.asked)


def test_a_remote_catalog_does_not_have_its_items_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [{"rel": "item", "href": f"./S2A.{k}/S2A.{k}.json"} for k in (1, 2)]
    site = Site(monkeypatch, {"https://host/c/catalog.json?key=1": {"type": "Catalog", "links": links}})
    scenes = find_scenes("https://host/c/catalog.json?key=1")
    assert [(scene.name, scene.paths[0]) for scene in scenes] == [
        (f"S2A.{k}", f"https://host/c/S2A.{k}/S2A.{k}.json") for k in (1, 2)
    ]
    assert site.asked == ["https://host/c/catalog.json?key=1"]


def test_what_a_server_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Site(monkeypatch, {})
    (scene,) = find_scenes("https://host/S2A/item.json")  # it may be an item: refused when it is opened
    assert scene.name == "S2A"
    with pytest.raises(SourceError, match=r"as a STAC item: HTTP Error 404"):
        open_source(scene.paths)
    with pytest.raises(JobError, match=r"collections/s2/items as STAC: HTTP Error 404"):
        find_scenes(f"{API}/items")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ({"rel": "next", "href": "https://host/search", "method": "POST"}, "save all items as one file"),
        ({"rel": "next", "href": "file:///etc/items.json"}, "no address that begins with http"),
        (
            {"rel": "next", "href": "https://host/gone"},
            "cannot read https://host/gone as STAC, .* 404",
        ),
    ],
)
def test_a_page_that_leads_nowhere_refuses_the_job(
    monkeypatch: pytest.MonkeyPatch, link: dict[str, str], words: str
) -> None:
    first = {"type": "FeatureCollection", "features": [small_item("a", {})], "links": [link]}
    Site(monkeypatch, {"https://host/search": first})
    with pytest.raises(JobError, match=words):
        find_scenes("https://host/search")


def test_a_catalog_and_its_bands_are_read_from_a_server(url: str, tmp_path: Path) -> None:
    catalogued(tmp_path)
    collected(tmp_path, "one", "two")
    first, *_ = find_scenes(f"{url}/catalog.json")
    source = open_source(first.paths)
    assert np.array_equal(source.read(source.grid.window).values[0], held(tmp_path / "files" / "top.tif") * 0.5)
    _, two = find_scenes(f"{url}/items.json")
    assert two == Scene("two", (f"{url}/items.json#two",))
    source = open_source(two.paths)
    assert np.array_equal(source.read(source.grid.window).values[0], held(tmp_path / "two" / "red.tif"))
    (gone,) = find_scenes(f"{url}/gone.json")
    with pytest.raises(SourceError, match=r"gone\.json as a STAC item: HTTP Error 404"):
        open_source(gone.paths)


def test_an_image_at_an_address_is_not_fetched_to_see_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch, {})
    urls = ("https://host/collections/image.tif", "https://host/a.svs", f"{API}/items/S2A.1", "https://host/a.json#b")
    assert [scene.name for scene in find_scenes(urls)] == ["image", "a", "S2A.1", "b"]
    assert site.asked == []
