"""Products as they are delivered: Sentinel-2 SAFE, Landsat Collection 2. Made small; rasterio judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_bundle
from raster_files import SIDE, band_of, held, numbers, write

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.doubts import code_of, codes_of
from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.stac.stac_items import scene_name
from tilesseg.planning.band_choice import choose_bands
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

TILE, TAKEN = "T33UVU", "20230611T101031"
SAFE = f"S2B_MSIL2A_{TAKEN}_N0509_R022_{TILE}_20230611T133010.SAFE"
SENTINEL = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
    "B10": 60, "B11": 20, "B12": 20,
}  # fmt: skip
PRODUCT = "LC09_L2SP_193028_20220822_20230401_02_T1"


def sentinel_metadata(level: str, *, offset: int | None) -> str:
    what, tag = ("BOA", "BOA_QUANTIFICATION_VALUE") if level == "2A" else ("RADIO", "QUANTIFICATION_VALUE")
    physical = [name.replace("B0", "B") for name in SENTINEL]
    offsets = "".join(f'<{what}_ADD_OFFSET band_id="{k}">{offset}</{what}_ADD_OFFSET>' for k in range(13))
    listed = "".join(f'<Spectral_Information bandId="{k}" physicalBand="{name}"/>' for k, name in enumerate(physical))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><n1:Level-{level}_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa'
        f'.int/PSD/User_Product_Level-{level}.xsd"><n1:General_Info><Product_Image_Characteristics><Special_Values>'
        "<SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>"
        "<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535"
        f'</SPECIAL_VALUE_INDEX></Special_Values><{tag} unit="none">10000</{tag}>'
        f"{'' if offset is None else f'<{what}_Offset_List>{offsets}</{what}_Offset_List>'}"
        f"<Spectral_Information_List>{listed}</Spectral_Information_List></Product_Image_Characteristics>"
        f"</n1:General_Info></n1:Level-{level}_User_Product>"
    )


def sentinel(
    folder: Path, level: str = "2A", *, offset: int | None = -1000, baseline: str = "N0509"
) -> tuple[Path, dict[str, Path]]:
    """A SAFE folder and the finest file of each band."""
    product = folder / SAFE.replace("2A_", f"{level}_").replace("N0509", baseline)
    data = product / "GRANULE" / f"L{level}_{TILE}_A032711_{TAKEN}" / "IMG_DATA"
    finest = {}
    for band, size in SENTINEL.items():
        if level == "1C":
            finest[band] = write(data / f"{TILE}_{TAKEN}_{band}.jp2", numbers(SIDE // size), size)
            continue
        for coarse in (size, 20, 60):
            if coarse >= size and band != "B10":
                path = data / f"R{coarse}m" / f"{TILE}_{TAKEN}_{band}_{coarse}m.jp2"
                write(path, numbers(SIDE // coarse), coarse)
                finest.setdefault(band, path)
    for other in ("SCL_20m", "AOT_20m", "TCI_10m") if level == "2A" else ("TCI",):
        write(data / (f"R{other[-3:]}" if level == "2A" else "") / f"{TILE}_{TAKEN}_{other}.jp2", numbers(6), 20)
    write(data.parent / "QI_DATA" / f"{TILE}_{TAKEN}_PVI.jp2", numbers(6), 20)
    write(data.parent / "QI_DATA" / "MSK_DETFOO_B02.jp2", numbers(12), 10)
    (product / f"MTD_MSIL{level}.xml").write_text(sentinel_metadata(level, offset=offset), encoding="utf-8")
    return product, finest


@pytest.mark.parametrize(("level", "offset"), [("2A", -1000), ("2A", None), ("1C", -1000), ("1C", None)])
def test_a_safe_folder_gives_reflectance_by_common_name(tmp_path: Path, level: str, offset: int | None) -> None:
    product, finest = sentinel(tmp_path, level, offset=offset, baseline="N0509" if offset else "N0214")
    source = open_source(str(product))
    assert codes_of(source.describe()["notes"]) == ()
    names = ["coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09"]
    assert list(source.bands) == [*names, *(["cirrus"] if level == "1C" else []), "swir16", "swir22"]
    assert source.grid.shape == (12, 12) and source.grid.resolution == (10, 10) and source.dtype == np.float32
    for name, number in (("red", "B04"), ("nir", "B08")):
        raw, got = held(finest[number]), band_of(source, name)
        assert np.array_equal(got.valid, raw != 0)  # the metadata says that 0 is nodata
        expected = (raw.astype(np.float64) + (offset or 0)) / 10_000
        assert np.allclose(got.values[0][got.valid], expected[got.valid], atol=1e-7)
    coarse, got = held(finest["B11"]), band_of(source, "swir16")
    assert np.array_equal(got.valid, (coarse != 0).repeat(2, 0).repeat(2, 1))
    assert any("reflectance" in note and f"MTD_MSIL{level}.xml" in note for note in source.describe()["notes"])


@pytest.mark.parametrize(
    ("baseline", "element", "listed", "taken"),
    [
        ("N0509", "", None, -1000),  # the list is gone: the baseline says what the numbers mean
        ("N0214", "04.00", None, -1000),  # what the metadata say of the baseline counts before the name
        ("N0509", "", 0, 0),
        ("N0214", "", -1000, -1000),
    ],
)
def test_an_offset_that_the_baseline_contradicts_is_a_doubt_with_its_size(
    tmp_path: Path, baseline: str, element: str, listed: int | None, taken: int
) -> None:
    product, finest = sentinel(tmp_path, offset=listed, baseline=baseline)
    metadata = product / "MTD_MSIL2A.xml"
    text = f"<n1:General_Info><PROCESSING_BASELINE>{element}</PROCESSING_BASELINE>"
    metadata.write_text(metadata.read_text().replace("<n1:General_Info>", text if element else "<n1:General_Info>"))
    source = open_source(str(product))
    raw, got = held(finest["B04"]).astype(np.float64), band_of(source, "red")
    assert np.allclose(got.values[0][got.valid], ((raw + taken) / 10_000)[got.valid], atol=1e-7)
    notes = [note for note in source.describe()["notes"] if code_of(note)]
    assert codes_of(notes) == ("scale-contradiction",) and len(notes) == 1 and "by 0.1 [" in notes[0]
    settled = open_source(str(product), Opening(scale=1e-4, offset=-0.1))
    assert codes_of(settled.describe()["notes"]) == ()


@pytest.mark.parametrize("baseline", ["N9999", "N0301"])
def test_sen2cor_on_ones_own_machine_says_nothing_of_an_offset(tmp_path: Path, baseline: str) -> None:
    product, _ = sentinel(tmp_path, offset=None, baseline=baseline)
    source = open_source(str(product))
    assert codes_of(source.describe()["notes"]) == () and source.scaling[3] == (1e-4, 0.0)


def test_what_says_how_a_product_is_read_belongs_to_its_identity(tmp_path: Path) -> None:
    product, finest = sentinel(tmp_path)
    told = open_source(str(product)).identity()
    assert str(product / "MTD_MSIL2A.xml") in told and all(str(path) in told for path in finest.values())
    assert not any("SCL" in name or "TCI" in name or "QI_DATA" in name for name in told)


def test_inspect_shows_the_bands_of_a_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    product, finest = sentinel(tmp_path)
    assert run(["inspect", str(product), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    red = next(band for band in told["bands"] if band["name"] == "red")
    assert red == {"name": "red", "dtype": "uint16", "scale": 1e-4, "offset": -0.1, "file": str(finest["B04"])}
    assert any("MTD_MSIL2A.xml" in note for note in told["notes"])
    assert run(["inspect", str(product)]) == 0 and "rededge071" in capsys.readouterr().out


def test_scale_and_offset_of_the_job_replace_those_of_a_product(tmp_path: Path) -> None:
    product, finest = sentinel(tmp_path)
    source = open_source(str(product), Opening(scale=1.0, offset=0.0))
    assert np.array_equal(band_of(source, "green").values[0], held(finest["B03"]))


def test_a_safe_folder_is_segmented_by_name_and_named_after_itself(tmp_path: Path) -> None:
    product, finest = sentinel(tmp_path)
    bundle = write_bundle(tmp_path / "model", "Constant", bands=2, input_range=[0, 1])
    job = job_data(product, bundle, tmp_path / "run", input={"bands": ["nir08", "red"], "check_range": False})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    assert report.exit_code == 0 and report.scenes[0].scene == SAFE.removesuffix(".SAFE")
    with rasterio.open(report.products[0]) as mask, rasterio.open(finest["B04"]) as red:
        assert (mask.crs, mask.transform, mask.shape) == (red.crs, red.transform, red.shape)
        nothing = (held(finest["B04"]) == 0) & (held(finest["B8A"]) == 0).repeat(2, 0).repeat(2, 1)
        assert np.array_equal(mask.read(1) == 255, nothing)


def test_a_band_is_also_found_by_the_sensors_own_name(tmp_path: Path) -> None:
    product, _ = sentinel(tmp_path)
    source = open_source(str(product))
    asked, _ = choose_bands(source, ["a", "b", "c"], ["B8A", "b04", "swir16"], image="scene")
    assert [source.bands[i] for i in asked] == ["nir08", "red", "swir16"]
    with pytest.raises(SourceError, match="0 bands named B10, its bands are coastal, blue"):
        choose_bands(source, ["a"], ["B10"], image="scene")
    folder, _ = landsat(tmp_path)
    source = open_source(str(folder))
    asked, _ = choose_bands(source, ["a"], ["B5"], image="scene")
    assert source.bands[asked[0]] == "nir"


def no_metadata(product: Path) -> None:
    (product / "MTD_MSIL2A.xml").unlink()


def half_metadata(product: Path) -> None:
    path = product / "MTD_MSIL2A.xml"
    path.write_text(path.read_text()[:300])


def no_bands(product: Path) -> None:
    for path in product.glob("GRANULE/*/IMG_DATA/**/*.jp2"):
        path.unlink()


def two_tiles(product: Path) -> None:
    (product / "GRANULE" / "L2A_T33UVV_A032711_X" / "IMG_DATA").mkdir(parents=True)


def cut_band(product: Path) -> None:
    path = next(product.glob("GRANULE/*/IMG_DATA/R10m/*_B02_10m.jp2"))
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_metadata, "neither MTD_MSIL1C.xml nor MTD_MSIL2A.xml is there"),
        (half_metadata, "cannot read .*MTD_MSIL2A.xml: ParseError"),
        (no_bands, "no band is in GRANULE"),
        (two_tiles, "a product of 2 tiles, not of 1"),
        (cut_band, "B02_10m.jp2: not an image that GDAL can open"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoilt_safe_folder_is_refused_in_one_line(tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    product, _ = sentinel(tmp_path)
    spoil(product)
    with pytest.raises(SourceError, match=words) as refused:
        open_source(str(product))
    assert "\n" not in str(refused.value)


def landsat(
    folder: Path, product: str = PRODUCT, *, text: bool = False, pan: bool = True
) -> tuple[Path, dict[str, Path]]:
    """A Landsat 8/9 folder and its files by band; Level 1 with a panchromatic band half a pixel smaller."""
    level1 = "_L1" in product
    place, files = folder / product, {}
    listed = range(1, 10) if level1 else range(1, 8)
    for number in listed:
        name = f"{product}_{'' if level1 else 'SR_'}B{number}.TIF"
        if number == 8:
            if pan:
                files["8"] = write(place / name, numbers(19), 15, x=399_967.5, y=5_699_992.5)
            continue
        files[str(number)] = write(place / name, numbers(10), 30)
    for other in ("QA_PIXEL", "QA_RADSAT", "ST_B10", "B10", "SR_QA_AEROSOL"):
        write(place / f"{product}_{other}.TIF", numbers(10), 30)
    (place / f"{product}_ANG.txt").write_text("GROUP = FILE_HEADER\nEND_GROUP = FILE_HEADER\nEND\n")
    contents = {"LANDSAT_PRODUCT_ID": product, **{f"FILE_NAME_BAND_{k}": path.name for k, path in files.items()}}
    contents["FILE_NAME_QUALITY_L1_PIXEL"] = f"{product}_QA_PIXEL.TIF"
    factors = {f"REFLECTANCE_MULT_BAND_{k}": "2.0000E-05" if level1 else "2.75e-05" for k in listed}
    factors |= {f"REFLECTANCE_ADD_BAND_{k}": "-0.100000" if level1 else "-0.2" for k in listed}
    least = "QUANTIZE_CAL_MIN_BAND" if level1 else "QUANTIZE_CAL_MINIMUM_BAND"
    parameters = {f"{least}_{k}": "1" for k in listed}
    groups: dict[str, Mapping[str, str]] = {
        "PRODUCT_CONTENTS": contents,
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_9", "SUN_ELEVATION": "30.0"},
    }
    if level1:
        groups |= {"LEVEL1_MIN_MAX_PIXEL_VALUE": parameters, "LEVEL1_RADIOMETRIC_RESCALING": factors}
    else:  # the record of the Level 1 product repeats its keys with other values
        groups |= {"LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {**parameters, **factors}}
        groups |= {"LEVEL1_RADIOMETRIC_RESCALING": dict.fromkeys(factors, "9")}
        groups |= {"LEVEL1_PROCESSING_RECORD": {"FILE_NAME_BAND_4": "other_B4.TIF"}}
    if text:
        lines = ["GROUP = LANDSAT_METADATA_FILE"]
        for group, pairs in groups.items():
            lines += [f"  GROUP = {group}", *(f'    {key} = "{value}"' for key, value in pairs.items())]
            lines += [f"  END_GROUP = {group}"]
        (place / f"{product}_MTL.txt").write_text("\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""]))
    else:
        (place / f"{product}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": groups}))
    return place, files


@pytest.mark.parametrize("text", [False, True], ids=["json", "txt"])
def test_a_landsat_folder_gives_surface_reflectance_by_common_name(tmp_path: Path, text: bool) -> None:
    folder, files = landsat(tmp_path, text=text)
    source = open_source(str(folder))
    assert source.bands == ("coastal", "blue", "green", "red", "nir", "swir16", "swir22")
    raw, got = held(files["5"]), band_of(source, "nir")
    assert np.array_equal(got.valid, raw != 0)
    assert np.allclose(got.values[0][got.valid], raw[raw != 0] * 2.75e-05 - 0.2, atol=1e-7)
    assert scene_name(str(folder)) == PRODUCT
    assert any(name.endswith(("_MTL.txt", "_MTL.json")) for name in source.identity())


def test_landsat_factors_of_another_collection_are_a_doubt(tmp_path: Path) -> None:
    folder, _ = landsat(tmp_path)
    metadata = next(folder.glob("*_MTL.json"))
    metadata.write_text(metadata.read_text().replace("2.75e-05", "0.0001").replace('"-0.2"', '"0"'))
    source = open_source(str(folder))
    assert codes_of(source.describe()["notes"]) == ("scale-contradiction",)
    assert source.scaling[3] == (1e-4, 0.0)  # the product's own metadata count
    assert codes_of(open_source(str(landsat(tmp_path / "right")[0])).describe()["notes"]) == ()


def test_landsat_level_1_is_corrected_for_the_sun_and_its_pan_band_fits(tmp_path: Path) -> None:
    folder, files = landsat(tmp_path, "LC09_L1TP_193028_20220822_20230401_02_T1")
    source = open_source(str(folder))
    assert source.bands == ("coastal", "blue", "green", "red", "nir", "swir16", "swir22", "pan", "cirrus")
    assert source.grid.resolution == (30, 30) and source.grid.shape == (10, 10)  # not the 15 m of pan
    raw, got = held(files["4"]), band_of(source, "red")
    assert np.allclose(got.values[0][got.valid], (raw[raw != 0] * 2e-05 - 0.1) / 0.5, atol=1e-6)
    pan = band_of(source, "pan")
    assert pan.values.shape == (1, 10, 10) and pan.valid.any()
    finer = open_source(str(folder), Opening(resolution=15))
    assert finer.grid.shape == (20, 20) and band_of(finer, "pan").valid.any()


def test_a_band_that_lies_elsewhere_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder, files = landsat(tmp_path)
    write(files["7"], numbers(9), 30, x=400_200)
    source = open_source(str(folder))
    assert source.bands == ("coastal", "blue", "green", "red", "nir", "swir16")
    assert any("swir22 is left out" in note and "different extents" in note for note in source.describe()["notes"])


def test_landsat_bands_that_were_not_downloaded_are_missing_by_name(tmp_path: Path) -> None:
    folder, files = landsat(tmp_path)
    for number in ("1", "2", "7"):
        files[number].unlink()
    source = open_source(str(folder))
    assert source.bands == ("green", "red", "nir", "swir16")
    assert any("also lists coastal, blue, swir22" in note for note in source.describe()["notes"])


def test_landsat_metadata_without_factors_is_refused(tmp_path: Path) -> None:
    folder, _ = landsat(tmp_path)
    metadata = next(folder.glob("*_MTL.json"))
    metadata.write_text(metadata.read_text().replace("REFLECTANCE_MULT_BAND_4", "X"))
    with pytest.raises(SourceError, match="cannot compute reflectance of band 4"):
        open_source(str(folder))


def test_a_folder_of_landsat_files_without_metadata_stays_as_it_was(tmp_path: Path) -> None:
    folder, _ = landsat(tmp_path)
    next(folder.glob("*_MTL.json")).unlink()
    source = open_source(str(folder))
    assert {"red", "nir"} <= set(source.bands) and source.dtype == np.uint16
