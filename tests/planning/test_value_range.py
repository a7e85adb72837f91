"""The range check judges the unit, not the content, and offers only scales that exist."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fakes import spec_data
from hypothesis import given
from hypothesis import strategies as st

from tilesseg.doubts import code_of
from tilesseg.errors import SourceError
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.planning.value_range import SceneValues, check_range, judge_unit

SHARES, BYTES, NUMBERS = (0.0, 1.0), (0.0, 255.0), (260.0, 3840.0)
EXISTING = {1.0, 1e-4, 2.75e-5, 1e4, *(f for n in (255, 4095, 65535) for f in (n, 1 / n, 255 / n))}
SENTINEL_2 = ("B1", "B2", "B8", "B8A", "B11", "B12")


def spec_of(expected: tuple[float, float], *, bands: tuple[str, ...] = ("b1",), dtype: str | None = None) -> ModelSpec:
    kind = dtype or ("uint16" if expected[1] > 255 else "uint8")
    return parse_spec({**spec_data(input_range=list(expected), dtype=kind), "bands": list(bands)}, where="test")


def values(low: float, high: float, most: float, dtype: str, **more: Any) -> SceneValues:
    whole = np.dtype(dtype).kind in "iu" and more.get("scaling", (1.0, 0.0)) == (1.0, 0.0)
    return SceneValues((low, high), low, most, (dtype,), **{"whole": whole} | more)


def offers(line: str) -> list[tuple[float, float]]:
    return [(float(one), float(two)) for one, two in re.findall(r"scale: ([^,\s]+), input\.offset: (\S+)", line)]


def refused(scene: SceneValues, spec: ModelSpec, **how: Any) -> str:
    with pytest.raises(SourceError) as error:
        check_range(scene, spec, image="scene.tif", **how)
    return str(error.value)


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (values(0, 5, 200, "uint8"), BYTES),  # fluorescence: cells on 1 % of the area
        (values(0, 0, 3, "uint8"), BYTES),
        (values(250, 255, 255, "uint8"), BYTES),
        (values(0, 0, 0, "uint8"), SHARES),
        (values(0, 0, 0, "uint16"), BYTES),
        (values(0, 0, 0, "float32", whole=True), NUMBERS),
        (values(0, 1, 1, "uint8"), SHARES),
        (values(0, 180, 240, "uint16"), BYTES),
        (values(0.001, 0.004, 0.02, "float32"), SHARES),
        (values(0.3, 1.1, 1.6, "uint16", scaling=(1e-4, 0.0)), SHARES),
        (values(-0.02, 0.4, 1.2, "float32"), SHARES),
        (values(0, 700, 2500, "uint16"), NUMBERS),
        (values(100, 11_000, 17_000, "uint16"), NUMBERS),
        (values(-3, 250.5, 270.5, "float32"), BYTES),
        (values(0.2, 3.7, 190.2, "float32"), BYTES),
    ],
)
def test_dark_bright_sparse_and_empty_scenes_of_the_right_unit_pass(
    scene: SceneValues, expected: tuple[float, float]
) -> None:
    assert check_range(scene, spec_of(expected), image="scene.tif") is None


@pytest.mark.parametrize(
    ("scene", "expected", "scales"),
    [
        (values(30, 700, 1600, "uint16", located=True), SHARES, [(1e-4, 0), (1 / 4095, 0)]),
        (values(30, 700, 1600, "uint16", names=SENTINEL_2), SHARES, [(1e-4, 0)]),
        (values(30, 700, 1600, "uint16"), SHARES, [(1 / 4095, 0)]),
        (values(30, 700, 9000, "uint16"), SHARES, [(1 / 65535, 0)]),
        (values(7300, 9000, 20_000, "uint16", names=("SR_B2", "SR_B3")), SHARES, [(2.75e-5, -0.2)]),
        (values(0, 3000, 9000, "float32", located=True), SHARES, [(1e-4, 0), (1 / 65535, 0)]),
        (values(0, 5, 200, "uint8", located=True), SHARES, [(1 / 255, 0)]),
        (values(0, 0.1, 0.4, "float32"), BYTES, [(255, 0)]),
        (values(90, 400, 4000, "uint16"), BYTES, [(255 / 4095, 0)]),
        (values(90, 400, 40_000, "uint16"), BYTES, [(255 / 65535, 0)]),
        (values(30, 700, 1600, "uint16", names=SENTINEL_2), BYTES, []),
        (values(0, 0.2, 0.6, "float32", located=True), NUMBERS, [(1e4, 0), (4095, 0), (65535, 0)]),
        (values(0, 0.2, 0.6, "uint16", scaling=(1e-4, 0.0), located=True), NUMBERS, [(1, 0)]),
        (values(20, 240, 255, "uint8"), NUMBERS, []),
        (values(-25, -3, 0, "float32"), SHARES, []),
        (values(200, 3000, 4000, "uint16", scaling=None), SHARES, []),
    ],
)
def test_another_unit_is_refused_with_the_scales_that_images_of_the_kind_have(
    scene: SceneValues, expected: tuple[float, float], scales: list[tuple[float, float]]
) -> None:
    line = refused(scene, spec_of(expected))
    assert offers(line) == [pytest.approx(pair, rel=1e-6) for pair in scales]
    assert "another unit" in line and "--no-check-range" in line


def test_a_model_of_infrared_takes_reflectance_for_the_unit() -> None:
    spec = spec_of(SHARES, bands=("red", "nir"))
    assert offers(refused(values(30, 700, 1600, "uint16"), spec))[0] == (1e-4, 0)


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (values(1, 40, 90, "uint16"), NUMBERS),
        (values(7300, 21_000, 30_000, "uint16"), NUMBERS),
        (values(0.01, 0.4, 900.0, "float32"), SHARES),
        (values(-5, 30, 40, "float32"), (250.0, 320.0)),
    ],
)
def test_where_the_type_does_not_tell_the_unit_a_note_says_both_ranges(
    scene: SceneValues, expected: tuple[float, float]
) -> None:
    note = check_range(scene, spec_of(expected, dtype="float32"), image="scene.tif")
    assert note is not None and code_of(note) == "value-range"
    assert f"{scene.span[0]:g} to {scene.span[1]:g}" in note and f"{expected[0]:g} to {expected[1]:g}" in note


@given(
    expected=st.sampled_from([SHARES, BYTES, NUMBERS, (0.0, 10_000.0), (0.0, 65535.0), (0.02, 0.4)]),
    numbers=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted),
    reach=st.sampled_from([1.0, 255.0, 4095.0, 10_000.0, 65535.0]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    located=st.booleans(),
)
def test_only_scales_that_exist_are_offered_and_each_is_accepted(
    expected: tuple[float, float], numbers: list[float], reach: float, dtype: str, located: bool
) -> None:
    most = 255.0 if dtype == "uint8" else reach
    low, high, top = (float(np.array(most * one).astype(dtype)) for one in numbers)
    scene, spec = values(low, high, top, dtype, located=located), spec_of(expected)
    if judge_unit(scene, spec) != "differs":
        return
    for scale, offset in offers(refused(scene, spec)):
        assert any(scale == pytest.approx(one, rel=1e-6) for one in EXISTING) and offset in (0, -0.2)
        assert check_range(scene.rescaled(scale, offset), spec, image="scene.tif") is None


def test_a_scale_that_the_job_gives_is_named_and_not_advised_away() -> None:
    scene = values(0.05, 40.0, 50.0, "uint16", scaling=(0.0002442, -1.221))
    line = refused(scene, spec_of(SHARES), given=True)
    assert "correct the scale 0.0002442 and offset -1.221 that you gave" in line and not offers(line)
