"""The size of a pixel that a file states: every source, one guard; the numbers of the files are the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import rasterio
import tifffile

from tilesseg.formats.open import open_source
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.stated_size import StatedSize, find_size, micrometres, number_above_0
from tilesseg.formats.slide.openslide_reader import openslide_size

PIXELS = np.arange(40 * 50, dtype=np.uint8).reshape(40, 50)
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def described(path: Path, **opening: Any) -> dict[str, Any]:
    return open_source(str(path), Opening(**opening)).describe()


def size(path: Path) -> tuple[float, float] | None:
    """Micrometres `(y, x)` of a pixel, None where the image is in pixels."""
    grid = open_source(str(path)).grid
    return grid.resolution if grid.unit == "micrometre" else None


def in_unit(side: float, unit: str) -> dict[str, Any]:
    """OME's entries of a square pixel."""
    return {f"PhysicalSize{axis}{what}": value for axis in "XY" for what, value in (("", side), ("Unit", unit))}


# the guard


@pytest.mark.parametrize("side", [1e-4, 0.25, 0.499, 9.9, 50.0, 100.0])
def test_a_size_that_a_microscope_has_is_taken(side: float) -> None:
    found = find_size([StatedSize((side, side), "the file")])
    assert (found.mpp, found.source, found.notes) == ((side, side), "the file", ())


@pytest.mark.parametrize("side", [25400 / 72, 25400 / 96, 25400 / 300, 25400 / 600, 352.8, 250.0, 1e7, 1e-6])
@pytest.mark.parametrize("printed", [False, True])
def test_a_size_that_no_microscope_has_is_refused_with_its_source(side: float, printed: bool) -> None:
    found = find_size([StatedSize((side, side), "the file", printed=printed)])
    assert found.mpp is None
    assert found.refused is not None and "the file says" in found.refused
    assert "not taken" in found.notes[0]


def test_dots_an_inch_count_up_to_10_micrometres() -> None:
    assert find_size([StatedSize((11.0, 11.0), "tags", printed=True)]).mpp is None
    assert find_size([StatedSize((11.0, 11.0), "tags")]).mpp == (11.0, 11.0)


def test_sides_of_two_units_are_refused() -> None:
    assert find_size([StatedSize((0.5, 500.0), "ImageJ")]).mpp is None


def test_the_next_entry_is_taken_where_the_first_is_refused_and_that_is_said() -> None:
    found = find_size([None, StatedSize((352.8, 352.8), "OME"), StatedSize((0.5, 0.5), "tags")])
    assert (found.mpp, found.source) == ((0.5, 0.5), "tags")
    assert "OME says 352.8 µm" in found.notes[0] and "tags is taken in its place" in found.notes[0]


def test_two_entries_that_differ_are_a_doubt_with_its_size() -> None:
    found = find_size([StatedSize((0.25, 0.25), "OME"), StatedSize((0.5, 0.5), "tags")])
    assert found.mpp == (0.25, 0.25)
    assert "2 times apart" in found.notes[0] and found.notes[0].endswith("[pixel-size-contradicted]")
    assert not find_size([StatedSize((0.5, 0.5), "OME"), StatedSize((0.52, 0.52), "tags")]).notes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0,4990", 0.499),
        (" 0.25 ", 0.25),
        (2, 2.0),
        ("", None),
        (None, None),
        ("nan", None),
        ("-1", None),
        ("1.2,3", None),
    ],
)
def test_numbers_have_a_point_or_a_comma(text: object, number: float | None) -> None:
    assert number_above_0(text) == number


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("µm", 1.0), ("micrometre", 1.0), ("Microns", 1.0), ("nanometers", 1e-3), ("mm", 1e3), ("Inches", 25400.0),
        ("\\u00B5m", 1.0), ("angstrom", 1e-4), ("Mm", None), ("pixel", None), ("", None), (None, None), ("unit", None),
    ],
)  # fmt: skip
def test_units_of_length_have_their_micrometres(unit: object, length: float | None) -> None:
    assert micrometres(unit) == length


# the sources


@pytest.mark.parametrize(
    ("metadata", "resolution", "expected"),
    [
        ({"unit": "inch"}, (72, 72), None),
        ({"unit": "cm"}, (28.346, 28.346), None),
        ({"unit": "um"}, (2, 4), (0.25, 0.5)),
        ({"unit": "um", "yunit": "nm"}, (2, 0.004), (0.25, 0.5)),
        ({"unit": "nm"}, (0.25, 0.25), (0.004, 0.004)),
        ({"unit": "pixel"}, (1, 1), None),
    ],
)
def test_imagej_has_a_unit_for_each_axis(
    tmp_path: Path, metadata: dict[str, str], resolution: tuple[float, float], expected: tuple[float, float] | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, imagej=True, resolution=resolution, metadata=metadata)
    assert size(tmp_path / "a.tif") == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize(
    ("unit", "dots", "side"), [("CENTIMETER", 20000, 0.5), ("INCH", 50800, 0.5), ("INCH", 72, None)]
)
def test_a_plain_tiff_has_the_size_of_its_tags(
    tmp_path: Path, tile: tuple[int, int] | None, unit: str, dots: int, side: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=tile, resolution=(dots, dots), resolutionunit=unit, metadata=None)
    assert size(path) == (None if side is None else pytest.approx((side, side)))
    if side is None:
        assert "72 dots an inch" in described(path)["mpp_refused"]
    else:
        assert described(path)["mpp_from"] == "the TIFF's resolution"
        np.testing.assert_array_equal(open_source(str(path)).read(open_source(str(path)).grid.window).values[0], PIXELS)


@pytest.mark.parametrize(
    ("ome", "tags", "expected"),
    [
        ({}, 20000, (0.5, 0.5)),
        ({"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.3}, None, (0.3, 0.25)),
        ({"PhysicalSizeX": 352.778, "PhysicalSizeY": 352.778}, None, None),
        ({"PhysicalSizeX": 352.778, "PhysicalSizeY": 352.778}, 20000, (0.5, 0.5)),
        (
            {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"},
            None,
            (0.25,) * 2,
        ),
        (
            {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "mm"},
            None,
            None,
        ),
    ],
)
def test_ome_tiff_has_the_size_of_its_xml_or_its_tags(
    tmp_path: Path, ome: dict[str, Any], tags: int | None, expected: tuple[float, float] | None
) -> None:
    place = {} if tags is None else {"resolution": (tags, tags), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.ome.tif", PIXELS, metadata={"axes": "YX", **ome}, **place)
    assert size(tmp_path / "a.ome.tif") == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("mpp", "side"), [("0,4990", 0.499), ("0.25", 0.25), ("352.8", None), ("", None)])
def test_an_aperio_slide_may_have_a_decimal_comma(tmp_path: Path, mpp: str, side: float | None) -> None:
    told = f"Aperio Image Library v11.2.1 \r\n40x50 [0,0 40x50] (16x16) JPEG/RGB Q=30|AppMag = 20|MPP = {mpp}"
    path = tmp_path / "a.svs"
    rgb = np.repeat(PIXELS[..., None], 3, axis=2)
    tifffile.imwrite(path, rgb, tile=(16, 16), photometric="rgb", description=told, metadata=None)
    assert size(path) == (None if side is None else (side, side))


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.3"}, (0.3, 0.25)),
        ({"openslide.mpp-x": "0,25", "openslide.mpp-y": "0,25"}, (0.25, 0.25)),
        ({"tiff.XResolution": "50800", "tiff.YResolution": "50800", "tiff.ResolutionUnit": "inch"}, (0.5, 0.5)),
        ({"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}, None),
        ({"openslide.mpp-x": "25400", "openslide.mpp-y": "25400"}, None),
        ({}, None),
    ],
)
def test_openslide_gives_a_size_or_the_tags(properties: dict[str, str], expected: tuple[float, float] | None) -> None:
    assert openslide_size(properties).mpp == expected


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [("micrometer", 0.25, 0.25), ("nanometer", 250, 0.25), ("millimeter", 0.5, None), ("micrometer", 352.778, None)],
)
def test_an_ome_zarr_has_the_size_of_its_scale(tmp_path: Path, unit: str, scale: float, expected: float | None) -> None:
    import zarr

    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="w", zarr_format=3)
    group.create_array("0", shape=(40, 50), chunks=(40, 50), dtype="uint8")[:] = PIXELS
    axes = [{"name": name, "type": "space", "unit": unit} for name in "yx"]
    place = [{"type": "scale", "scale": [scale, scale]}]
    levels = [{"path": "0", "coordinateTransformations": place}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    assert size(tmp_path / "a.ome.zarr") == (None if expected is None else pytest.approx((expected, expected)))


def test_what_the_user_states_counts_and_ends_the_doubt(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    told = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, PIXELS, metadata=told, resolution=(20000, 20000), resolutionunit="CENTIMETER")
    assert "[pixel-size-contradicted]" in " ".join(described(path)["notes"])
    given = described(path, mpp=0.5)
    assert (given["mpp"], given["mpp_from"]) == ({"y": 0.5, "x": 0.5}, "input.mpp")
    assert "[pixel-size-contradicted]" not in " ".join(given["notes"])
    json.dumps(given)


# on the Earth


@pytest.mark.parametrize(
    ("crs", "transform", "doubted"),
    [
        ("EPSG:32633", (10, 0, 5e5, 0, -10, 5e6), False),
        ("EPSG:32633", (0.001, 0, 5e5, 0, -0.001, 5e6), False),
        ("EPSG:32633", (1e-5, 0, 13.0, 0, -1e-5, 50.0), True),
        ("EPSG:32633", (1e6, 0, 0, 0, -1e6, 0), True),
        ("EPSG:4326", (1e-4, 0, 13.0, 0, -1e-4, 50.0), False),
        ("EPSG:4326", (2.5, 0, -180.0, 0, -2.5, 90.0), False),
        ("EPSG:4326", (10, 0, 5e5, 0, -10, 5e6), True),
        ("EPSG:4326", (0.5, 0, 5e5, 0, -0.5, 5e6), True),
    ],
)
def test_a_size_that_no_satellite_has_is_a_doubt_with_the_size(
    tmp_path: Path, crs: str, transform: tuple[float, ...], doubted: bool
) -> None:
    size = {"height": 40, "width": 50, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", crs=crs, transform=rasterio.Affine(*transform), **size) as file:
        file.write(PIXELS, 1)
    notes = [note for note in described(tmp_path / "a.tif")["notes"] if note.endswith("[pixel-size-implausible]")]
    assert bool(notes) == doubted
    assert all("pixels of" in note for note in notes)


# the cases


def test_the_sizes_of_the_cases(shared_cases: Path) -> None:
    micro = shared_cases / "micro"
    with openslide.OpenSlide(micro / "mpp-comma.svs") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == 0.499
    assert size(micro / "mpp-comma.svs") == (0.499, 0.499)
    assert size(micro / "ome-size-in-tags.ome.tif") == (0.5, 0.5)
    assert size(micro / "imagej-72dpi.tif") is None
    assert "ImageJ's unit says 352.8 µm a pixel" in described(micro / "imagej-72dpi.tif")["mpp_refused"]
