"""Does this image fit this model? What is only worth a word is said, not refused."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import spec_data
from rasterio.crs import CRS

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.models.spec import parse_spec
from tilesseg.planning.job import TilingOptions
from tilesseg.planning.pixel_contract import (
    contract_resolution,
    refuse_enlarging,
    refuse_shrinking,
    resolution_note,
)
from tilesseg.raster.grid import Grid

PLANE = 'LOCAL_CS["building site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
WGS84 = CRS.from_epsg(4326).to_wkt()


def note(pixel: float, *, trained: float | None = 30.0, metres_per_unit: float | None = 1.0) -> str | None:
    grid = Grid(9, 9, (pixel, 0.0, 0.0, 0.0, -pixel, 0.0), PLANE, "metre", metres_per_unit)
    return resolution_note(grid, parse_spec(spec_data(resolution=trained), where="here"))


@pytest.mark.parametrize("pixel", [20.0, 30.0, 45.0])
def test_pixels_of_about_the_size_that_the_model_knows_are_not_worth_a_word(pixel: float) -> None:
    assert note(pixel) is None


@pytest.mark.parametrize("pixel", [10.0, 19.0, 46.0, 300.0])
def test_pixels_much_finer_or_coarser_are_said_with_what_to_do(pixel: float) -> None:
    said = note(pixel)
    assert said is not None
    assert f"pixels are {pixel:.4g} m" in said and "trained on 30 m" in said and "input.resolution: 30" in said


def test_the_advice_is_in_the_unit_of_the_crs() -> None:
    said = note(30.0, metres_per_unit=0.3048)
    assert said is not None and "pixels are 9.144 m" in said and "input.resolution: 98.4 " in said


def test_nothing_is_said_where_sizes_cannot_be_compared() -> None:
    assert note(10.0, trained=None) is None
    assert note(0.0001, metres_per_unit=None) is None


def slide(mpp: float | None = 0.25) -> Grid:
    if mpp is None:
        return Grid(9, 9)
    return Grid(9, 9, (mpp, 0.0, 0.0, 0.0, mpp, 0.0), None, "micrometre", 1e-6)


def contract(grid: Grid, mpp: float | None, **asked: Any) -> float | None:
    return contract_resolution(grid, parse_spec(spec_data(mpp=mpp), where="here"), Opening(**asked), image="a.svs")


def test_a_slide_is_read_at_the_pixel_size_that_the_model_states() -> None:
    assert contract(slide(0.25), 0.5) == 0.5
    assert contract(slide(0.25), None) is None


def test_what_the_job_asks_for_comes_before_what_the_model_states() -> None:
    assert contract(slide(0.25), 0.5, resolution=1.0) == 1.0
    assert contract(slide(0.25), 0.5, level=2) is None


def test_a_level_that_is_not_what_the_model_states_is_said() -> None:
    spec = parse_spec(spec_data(mpp=0.5), where="here")
    assert "input.resolution: 0.5" in (resolution_note(slide(2.0), spec) or "")
    assert resolution_note(slide(0.5), spec) is None


@pytest.mark.parametrize(
    ("grid", "remedy"),
    [
        (slide(None), r"input\.mpp \(--mpp\)"),
        (Grid(9, 9, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), PLANE, "metre", 1.0), r"in metre as input\.resolution"),
    ],
)
def test_a_pixel_size_that_nobody_states_is_refused_with_what_can_be_given(grid: Grid, remedy: str) -> None:
    with pytest.raises(SourceError, match=rf"a\.svs has .* and .* needs 0\.5 µm; give .*{remedy}"):
        contract(grid, 0.5)
    assert contract(grid, None) is None


def test_a_size_that_is_not_taken_is_named_in_the_refusal() -> None:
    spec = parse_spec(spec_data(mpp=0.5), where="here")
    with pytest.raises(SourceError, match=r"no micrometres per pixel \(ImageJ says 352\.8 µm\), and"):
        contract_resolution(Grid(9, 9), spec, Opening(), image="a.tif", refused="ImageJ says 352.8 µm")


# degrees


def degrees(side: float, *, latitude: float = 60.0, shape: tuple[int, int] = (1000, 1000)) -> Grid:
    top = latitude + side * shape[0] / 2
    return Grid(*shape, (side, 0.0, 10.0, 0.0, -side, top), WGS84, "degree", None)


def test_pixels_in_degrees_are_compared_by_their_area_on_the_ground() -> None:
    spec = parse_spec(spec_data(resolution=10.0), where="here")
    # at 60 degrees north a degree is 111 412 m from north to south and 55 800 m from west to east
    side = 10 / (111412 * 55800) ** 0.5
    assert resolution_note(degrees(side), spec) is None
    said = resolution_note(degrees(4 * side), spec)
    assert said is not None and "pixels are 40 m" in said and f"input.resolution: {side:.3g} " in said
    assert "degrees" in said


# resampling


def test_enlarging_more_than_4_times_is_refused_with_both_sizes() -> None:
    own = Grid(300, 400, (352.8, 0.0, 0.0, 0.0, 352.8, 0.0), None, "micrometre", 1e-6)
    wanted = Grid(211680, 282240, (0.5, 0.0, 0.0, 0.0, 0.5, 0.0), None, "micrometre", 1e-6)
    with pytest.raises(SourceError, match=r"pixels of 0\.5 µm .* own are 352\.8 µm, .* 705\.6 times .*input\.mpp"):
        refuse_enlarging(own, wanted, image="a.tif")
    for side in (0.25, 1.0, 2.0):
        refuse_enlarging(slide(1.0), slide(side), image="a.tif")
    with pytest.raises(SourceError, match=r"pixels of 0\.24 µm"):
        refuse_enlarging(slide(1.0), slide(0.24), image="a.tif")


def shrunk(own: int, left: int, **spec: Any) -> None:
    """An image of `own` pixels of which resampling leaves `left`."""
    one = Grid(own, own, (0.1, 0.0, 0.0, 0.0, 0.1, 0.0), None, "micrometre", 1e-6)
    side = 0.1 * own / left
    two = Grid(left, left, (side, 0.0, 0.0, 0.0, side, 0.0), None, "micrometre", 1e-6)
    options = TilingOptions(patch=spec.pop("stated", "auto"))
    refuse_shrinking(one, two, parse_spec(spec_data(**spec), where="here"), options, image="a.tif")


@pytest.mark.parametrize(
    ("own", "left", "spec"),
    [
        (1000, 100, {"patch": {"fixed": 128}}),
        (128, 127, {"patch": {"fixed": 128}}),
        (1000, 100, {"patch": {"preferred": 128}}),
        (1000, 100, {"stated": 128}),
        (1000, 1, {}),
        (1000, 63, {}),
    ],
)
def test_what_resampling_made_smaller_than_a_patch_is_refused_with_both_sizes(
    own: int, left: int, spec: dict[str, Any]
) -> None:
    with pytest.raises(SourceError, match=rf"own are 0\.1 µm, .* {left} × {left} of its {own} "):
        shrunk(own, left, **spec)


@pytest.mark.parametrize(
    ("own", "left", "spec"),
    [
        (100, 50, {"patch": {"fixed": 128}}),
        (100, 10, {"patch": {"preferred": 128}}),
        (1000, 128, {"patch": {"fixed": 128}}),
        (1000, 64, {}),
        (60, 1, {}),
    ],
)
def test_an_image_that_is_small_by_itself_is_segmented(own: int, left: int, spec: dict[str, Any]) -> None:
    shrunk(own, left, **spec)


def test_metres_for_a_scene_in_degrees_are_refused_with_the_degrees_that_they_are() -> None:
    own = degrees(0.0001)
    coarse = Grid(1, 1, (10.0, 0.0, 10.0, 0.0, -10.0, own.transform[5]), WGS84, "degree", None)
    spec = parse_spec(spec_data(), where="here")
    with pytest.raises(SourceError, match=r"in degrees here: 10 m are 8\.976e-05 degrees .* 0\.0001792 from west"):
        refuse_shrinking(own, coarse, spec, TilingOptions(), image="a.tif")
    with pytest.raises(SourceError, match=r"own are 10 degrees \(.* m\)"):
        refuse_enlarging(coarse, own, image="a.tif")
