"""One metadata word against another: what the numbers of a product mean, by the rule of the product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from raster_files import band_of, write

from tilesseg.doubts import code_of, codes_of
from tilesseg.formats.geotiff.deliveries.product_rules import read_baseline, stac_rule
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening

NEW, OLD = "05.09", "02.14"
SHIFTED, PLAIN = (1e-4, -0.1), (1e-4, 0.0)


def item(
    folder: Path,
    properties: dict[str, Any],
    stated: dict[str, Any],
    *,
    identity: str = "S2B_33UVU_20230611_0_L2A",
    names: tuple[str, ...] = ("red", "nir"),
    dtype: str = "uint16",
    tags: tuple[float, float] | None = None,
) -> str:
    """An item of one file for each band; `stated` goes into `raster:bands`."""
    assets = {}
    for name in names:
        path = write(folder / f"{name}.tif", np.arange(1, 145).reshape(12, 12).astype(dtype) * 50, 10)
        if tags is not None:
            with rasterio.open(path, "r+") as file:
                file.scales, file.offsets = (tags[0],), (tags[1],)
        assets[name] = {
            "href": f"./{name}.tif",
            "type": "image/tiff",
            "roles": ["data"],
            "eo:bands": [{"name": name, "common_name": name}],
            "raster:bands": [{"nodata": 0, **stated}],
        }
    whole = {"type": "Feature", "stac_version": "1.0.0", "id": identity, "geometry": None, "links": []}
    path = folder / "item.json"
    path.write_text(json.dumps({**whole, "properties": properties, "assets": assets}))
    return str(path)


def sentinel(baseline: str | None, flag: bool | None = None, key: str = "earthsearch") -> dict[str, Any]:
    properties: dict[str, Any] = {"platform": "sentinel-2b"}
    if baseline is not None:
        properties["s2:processing_baseline"] = baseline
    if flag is not None:
        properties[f"{key}:boa_offset_applied"] = flag
    return properties


@pytest.mark.parametrize(
    ("properties", "stated", "expected", "doubted"),
    [
        (sentinel(NEW, True), SHIFTED, PLAIN, True),
        (sentinel(NEW, False), SHIFTED, SHIFTED, False),
        (sentinel(NEW, True), PLAIN, PLAIN, False),
        (sentinel(NEW, False), PLAIN, SHIFTED, True),
        (sentinel(OLD, False), SHIFTED, PLAIN, True),
        (sentinel(OLD, True), SHIFTED, PLAIN, True),
        (sentinel(NEW, True, "sentinel"), SHIFTED, PLAIN, True),
        (sentinel(None, True), SHIFTED, PLAIN, True),
        (sentinel(NEW), SHIFTED, SHIFTED, False),
        (sentinel(NEW), PLAIN, PLAIN, True),  # a catalogue may have subtracted it: its own number counts
        (sentinel(OLD), SHIFTED, PLAIN, True),
        (sentinel(OLD), PLAIN, PLAIN, False),
        (sentinel(NEW), None, SHIFTED, False),  # Planetary Computer states neither scale nor offset
        (sentinel(OLD), None, PLAIN, False),
        (sentinel(NEW, True), None, PLAIN, False),
        ({"s2:product_uri": "S2B_MSIL2A_20230611T101031_N0509_R022_T33UVU_X.SAFE"}, None, SHIFTED, False),
        ({"platform": "sentinel-2b"}, SHIFTED, SHIFTED, False),  # neither baseline nor flag: nothing contradicts
        ({"platform": "somesat"}, (0.5, 3.0), (0.5, 3.0), False),
    ],
)
def test_the_rule_of_the_product_says_what_the_numbers_of_an_item_mean(
    tmp_path: Path, properties: dict[str, Any], stated: tuple[float, float] | None, expected: Any, doubted: bool
) -> None:
    words = {} if stated is None else {"scale": stated[0], "offset": stated[1]}
    source = open_source(item(tmp_path, properties, words))
    assert source.scaling == (pytest.approx(expected),) * 2
    notes = source.describe()["notes"]
    doubts = [note for note in notes if code_of(note)]
    assert codes_of(notes) == (("scale-contradiction",) if doubted else ()) and len(doubts) == int(doubted)
    if doubted:  # both words, and the size of the doubt
        assert "0.1" in doubts[0] and "would differ by 0.1" in doubts[0]


def test_landsat_of_collection_2_has_its_factors_whatever_an_item_states(tmp_path: Path) -> None:
    properties = {"landsat:correction": "L2SP", "landsat:collection_number": "02"}
    names = ("red", "nir08", "lwir11")
    right = open_source(item(tmp_path / "a", properties, {}, identity="x", names=names))
    assert right.scaling == ((2.75e-05, -0.2), (2.75e-05, -0.2), (0.00341802, 149.0))
    assert codes_of(right.describe()["notes"]) == ()
    name = "LC08_L2SP_193028_20220822_20230401_02_T1"
    wrong = open_source(item(tmp_path / "b", {}, {"scale": 1e-4}, identity=name, names=("red",)))
    assert wrong.scaling == ((2.75e-05, -0.2),) and codes_of(wrong.describe()["notes"]) == ("scale-contradiction",)
    other = open_source(item(tmp_path / "c", {}, {"scale": 1e-4}, identity="LC08_L1TP_193028", names=("red",)))
    assert other.scaling == (PLAIN,) and codes_of(other.describe()["notes"]) == ()


def test_tags_of_a_file_that_the_item_contradicts_are_a_doubt(tmp_path: Path) -> None:
    stated = {"scale": 1e-4, "offset": -0.1}
    alike = open_source(item(tmp_path / "a", sentinel(NEW), stated, tags=SHIFTED))
    assert codes_of(alike.describe()["notes"]) == () and alike.scaling[0] == SHIFTED
    unlike = open_source(item(tmp_path / "b", {}, stated, identity="x", tags=PLAIN))
    assert codes_of(unlike.describe()["notes"]) == ("scale-contradiction",) and unlike.scaling[0] == SHIFTED
    tagged = open_source(item(tmp_path / "c", sentinel(NEW), {}, tags=SHIFTED))
    assert codes_of(tagged.describe()["notes"]) == () and tagged.scaling[0] == SHIFTED


def test_the_rule_speaks_of_integers_and_of_measured_bands_alone(tmp_path: Path) -> None:
    floats = open_source(item(tmp_path / "a", sentinel(NEW), {}, dtype="float32"))
    assert floats.scaling[0] == (1.0, 0.0)
    aerosol = open_source(item(tmp_path / "b", sentinel(NEW), {"scale": 0.001}, names=("red", "aot")))
    assert aerosol.scaling[1] == (0.001, 0.0)


def test_what_the_job_gives_settles_the_doubt(tmp_path: Path) -> None:
    path = item(tmp_path, sentinel(NEW, True), {"scale": 1e-4, "offset": -0.1})
    source = open_source(path, Opening(scale=1e-4, offset=0.0))
    assert source.scaling[0] == PLAIN and codes_of(source.describe()["notes"]) == ()


@pytest.mark.parametrize(
    ("text", "baseline"),
    [
        ("05.09", 5.09),
        ("04.00", 4.0),
        ("S2A_MSIL1C_20200615T060641_N0209_R134_T45WWS_X", 2.09),
        ("1.2.3", None),
        (None, None),
    ],
)
def test_baselines_are_read_from_numbers_and_names(text: str | None, baseline: float | None) -> None:
    assert read_baseline(text) == baseline


def test_the_flag_of_earth_search_is_not_of_esas_own_files() -> None:
    whole = {"id": "S2B_x", "properties": sentinel(NEW, True)}
    own, copied = stac_rule(whole, jp2=True), stac_rule(whole)
    assert own is not None and own.scaling("red") == SHIFTED
    assert copied is not None and copied.scaling("red") == PLAIN


def test_an_unknown_item_has_no_rule() -> None:
    assert stac_rule({"id": "x", "properties": {"processing:version": "05.09"}}) is None
    assert stac_rule({"id": "x", "properties": None}) is None


@pytest.mark.parametrize(("name", "offset"), [("applied.json", 0.0), ("not-applied.json", -0.1)])
def test_the_cases_of_earth_search_have_the_right_reflectance(shared_cases: Path, name: str, offset: float) -> None:
    folder = shared_cases / "geo" / "04-earth-search"
    source = open_source(str(folder / name))
    with rasterio.open(folder / "B04.tif") as file:
        raw = file.read(1).astype(np.float64)
    got = band_of(source, "red")
    assert np.allclose(got.values[0][got.valid], (raw * 1e-4 + offset)[got.valid], atol=1e-6)
    assert bool(codes_of(source.describe()["notes"])) == (name == "applied.json")
