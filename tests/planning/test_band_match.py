"""Does this image fit this model? What is only worth a word is said, not refused."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import spec_data

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.models.spec import parse_spec
from tilesseg.planning.band_match import contract_resolution, resolution_note
from tilesseg.raster.grid import Grid


def note(pixel: float, *, trained: float | None = 30.0, metres_per_unit: float | None = 1.0) -> str | None:
    grid = Grid(9, 9, (pixel, 0.0, 0.0, 0.0, -pixel, 0.0), "a CRS", "metre", metres_per_unit)
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
    assert said is not None and "pixels are 9.144 m" in said and "input.resolution: 98.4252" in said


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
        (Grid(9, 9, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "a CRS", "metre", 1.0), r"in metre as input\.resolution"),
    ],
)
def test_a_pixel_size_that_nobody_states_is_refused_with_what_can_be_given(grid: Grid, remedy: str) -> None:
    with pytest.raises(SourceError, match=rf"a\.svs has .* and .* needs 0\.5 µm; give .*{remedy}"):
        contract(grid, 0.5)
    assert contract(grid, None) is None
