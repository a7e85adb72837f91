"""Which bands of an image are the model's: names count, and no order is made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, spec_data, write_scene, write_spec
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.doubts import codes_of
from tilesseg.errors import SourceError
from tilesseg.formats.open import open_source
from tilesseg.planning.band_choice import choose_bands
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

RGBN = ("red", "green", "blue", "nir")
CLOUDS = ("blue", "green", "red", "nir", "swir16", "swir22")
MSI = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")


def image(*names: str | None) -> Any:
    return SimpleNamespace(bands=names, describe=lambda: {"bands": [{"file": "a.tif"} for _ in names]})


def chosen(names: tuple[str | None, ...], wanted: tuple[str, ...] = RGBN, path: str = "a.tif") -> list[str | None]:
    bands, _ = choose_bands(image(*names), wanted, None, image=path)
    return [names[band] for band in bands]


def doubts(names: tuple[str | None, ...], wanted: tuple[str, ...] = RGBN, path: str = "a.tif") -> tuple[str, ...]:
    return codes_of(choose_bands(image(*names), wanted, None, image=path)[1])


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("Blue", "Green", "Red", "Near Infrared"), RGBN, "Red Green Blue Near-Infrared"),
        (("BLUE", "GREEN", "RED", "NIR-1"), RGBN, "RED GREEN BLUE NIR-1"),
        (("Coastal", "Blue", "Green", "Yellow", "Red", "Red Edge", "NIR1", "NIR2"), RGBN, "Red Green Blue NIR1"),
        (
            ("BAND_C", "BAND_B", "BAND_G", "BAND_Y", "BAND_R", "BAND_RE", "BAND_N", "BAND_N2"),
            RGBN,
            "BAND_R BAND_G BAND_B BAND_N",
        ),
        (
            ("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"),
            RGBN,
            "red green blue nir",
        ),
        (("B", "G", "R", "N"), RGBN, "R G B N"),
        (("sr_blue", "sr_green", "sr_red", "sr_nir"), RGBN, "sr_red sr_green sr_blue sr_nir"),
        (("Red (665 nm)", "Blue (490 nm)"), ("blue", "red"), "Blue-(490-nm) Red-(665-nm)"),
        (("Band 2 - Blue", "Band 3 - Green", "Band 4 - Red", "Band 5 - Near Infrared (NIR)"), ("red",), "Band-4---Red"),
        (MSI, CLOUDS, "B2 B3 B4 B8 B11 B12"),
        (tuple(f"B{n}" for n in (2, 3, 4, 8)), RGBN, "B4 B3 B2 B8"),
        (("B02", "B03", "B04", "B08"), RGBN, "B04 B03 B02 B08"),
        (("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"), CLOUDS, "SR_B2 SR_B3 SR_B4 SR_B5 SR_B6 SR_B7"),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"), ("swir22", "red"), None),
        (("sur_refl_b01", "sur_refl_b02"), ("nir", "red"), "sur_refl_b02 sur_refl_b01"),
        (("B4, central wavelength 665 nm", "B8A"), ("red",), "B4,-central-wavelength-665-nm"),
        (("blue", "green", "red", "nir"), ("B4", "B3", "B2", "B8"), "red green blue nir"),
        (("B02", "B03", "B04", "B08"), ("B4", "B3", "B2", "B8"), "B04 B03 B02 B08"),
        (("R", "G", "B"), ("red", "green", "blue"), "R G B"),
        (("red", "green", "blue"), ("R", "G", "B"), "red green blue"),
        (("swir1", "nir", "red"), ("red", "nir", "swir16"), "red nir swir1"),
        (("red", "green", "nir08"), ("nir", "red"), "nir08 red"),
    ],
)  # fmt: skip
def test_known_names_of_bands_are_used_whatever_their_order(
    names: tuple[str, ...], wanted: tuple[str, ...], expected: str | None
) -> None:
    if expected is None:
        with pytest.raises(SourceError, match=r"may be .*Landsat 8–9.* or .*Landsat 4–7.*; say which"):
            chosen(names, wanted)
        return
    found = [str(name).replace(" ", "-") for name in chosen(names, wanted)]
    assert found == expected.split()


@given(st.permutations(["Blue", "GREEN", "red", "Near Infrared"]), st.permutations(RGBN))
def test_the_order_in_the_file_never_matters_where_there_are_names(names: list[str], wanted: list[str]) -> None:
    alias = {"red": "red", "green": "GREEN", "blue": "Blue", "nir": "Near Infrared"}
    assert chosen(tuple(names), tuple(wanted)) == [alias[name] for name in wanted]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("swir22", "swir16", "qa", "date"), RGBN),
        (("Blue", "Green", "Red", "thing"), RGBN),
        (("red", "green", "blue"), ("nir", "red", "green")),
        (("B1", "B2", "B3", "B4"), RGBN),  # Landsat 5, or only places
        (("nbart_red", "nbart_swir_2", "nbart_swir_3"), ("red", "swir16", "swir22")),  # counted from 1.6 µm
        (("SWIR1", "SWIR2", "SWIR3", "SWIR4"), ("swir16", "swir22")),  # WorldView-3's first is at 1.2 µm
        (("GFP", "Hoechst"), ("nuclei", "membrane")),
        (("red", "rededge071", "rededge075"), ("red", "rededge")),
        (("red", "red (std)", "red mask"), ("red", "nir")),
        (("blue", "green", "red", "nir", "nir2"), ("red", "swir16")),
        (("swir22",), ("red",)),
    ],
)
def test_no_file_order_when_names_contradict(names: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match=r"; say which they are with --bands, or input\.bands: ") as refused:
        chosen(names, wanted)
    assert names[0] in str(refused.value) and wanted[0] in str(refused.value)


def test_advice_never_makes_up_an_order() -> None:
    for names in ((None,) * 6, ("a", "b", "c", "d", "e", "f"), MSI[:4]):
        with pytest.raises(SourceError) as refused:
            chosen(names)
        assert "1,2" not in str(refused.value) and "--bands 1" not in str(refused.value)


def test_the_order_of_the_file_serves_bands_without_names_and_is_a_doubt() -> None:
    assert doubts((None,) * 4) == ("bands-by-order",)
    bands, notes = choose_bands(image("red", "green", "blue", None), ("blue", "green", "red", "nir"), None, image="a")
    assert bands == (2, 1, 0, 3) and codes_of(notes) == ("bands-by-order",) and "1 of 4 bands" in notes[0]
    assert choose_bands(image("channel 0", "channel 1"), ("b1", "b2"), None, image="a")[0] == (0, 1)
    assert choose_bands(image("red", "green"), ("channel0", "channel1"), None, image="a")[0] == (0, 1)
    assert doubts((None,), ("nir",)) == () == doubts(("DAPI",), ("gray",))
    assert doubts(("DAPI",), ("nuclei",)) == ("bands-by-order",)


def test_numbers_whose_sensor_is_not_named_are_a_doubt_and_the_files_name_settles_it() -> None:
    assert doubts(("B2", "B3", "B4", "B8")) == ("bands-by-sensor",)
    assert doubts(MSI, CLOUDS) == () == doubts(("B2", "B3", "B4", "B8"), path="x/S2A_MSIL2A_20230611.tif")
    seven = tuple(f"B{n}" for n in range(1, 8))
    assert chosen(seven, path="LC08_L2SP_1.tif") == ["B4", "B3", "B2", "B5"]
    assert chosen(seven, path="LT05_L2SP_1/stack.tif") == ["B3", "B2", "B1", "B4"]
    assert chosen(seven[1:], path="HLS.L30.T10SEG.2020203.v2.0.tif") == ["B4", "B3", "B2", "B5"]
    with pytest.raises(SourceError, match="names that only count"):
        chosen(seven)


def test_selected_names_may_be_aliases_too() -> None:
    names = image("Coastal", "Blue", "Green", "Red", "NIR1")
    assert choose_bands(names, RGBN, ("red", "Green", "blue", "near infrared"), image="a")[0] == (3, 2, 1, 4)
    assert choose_bands(image("B02", "B04"), ("a",), ("B4",), image="a")[0] == (1,)
    with pytest.raises(SourceError, match="0 bands named swir"):
        choose_bands(names, ("a",), ("swir",), image="a")


def mask_of(path: Path, tmp_path: Path) -> NDArray[np.uint8]:
    """The mask of a model of red, green, blue and nir: the number of the channel with the largest value."""
    spec = {**spec_data("Largest", classes=4), "bands": list(RGBN)}
    job = job_data(path, write_spec(tmp_path / "model", spec), tmp_path / "run", input={"check_range": False})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    with rasterio.open(report.products[0]) as mask:
        return np.asarray(mask.read(1))


@pytest.mark.parametrize("names", [("Blue", "Green", "Red", "Near Infrared"), ("B2", "B3", "B4", "B8")])
def test_bands_that_are_spelt_otherwise_are_segmented_as_the_model_means_them(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    pixels = np.random.default_rng(3).permuted(np.arange(4 * 600).reshape(4, 600) % 251, axis=0)
    pixels = pixels.reshape(4, 20, 30).astype(np.uint8)
    path = write_scene(tmp_path / "a.tif", pixels, names=names, photometric="minisblack")
    assert np.array_equal(mask_of(path, tmp_path), pixels[[2, 1, 0, 3]].argmax(axis=0))


@pytest.mark.parametrize("name", ["03-bgrn-near-infrared.tif", "03-bgrn-s2.tif"])
def test_the_cases_of_swapped_colours_have_the_right_mask(shared_cases: Path, tmp_path: Path, name: str) -> None:
    path = shared_cases / "geo" / name
    with rasterio.open(path) as file:
        expected = file.read()[[2, 1, 0, 3]].argmax(axis=0)
    assert np.array_equal(mask_of(path, tmp_path), expected)


def test_the_case_of_13_bands_is_read_by_sentinels_numbers(shared_cases: Path) -> None:
    path = str(shared_cases / "geo" / "17-s2-13-bands.tif")
    bands, notes = choose_bands(open_source(path), CLOUDS, None, image=path)
    assert [MSI[band] for band in bands] == ["B2", "B3", "B4", "B8", "B11", "B12"] and notes == []
