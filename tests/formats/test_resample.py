"""Resampling: one virtual grid, whichever window asks."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesseg.formats.reading.resample import output_shape, resample, source_window
from tilesseg.raster.window import Window

Enlarge = Literal["smooth", "nearest"]

scales = st.one_of(
    st.sampled_from([1 / 6, 0.5, 1.0, 2.0, 3.0, 6.0, 1.5, 10 / 3]),
    st.floats(0.15, 7, allow_nan=False, allow_infinity=False),
)
offsets = st.one_of(st.just(0.0), st.floats(-0.9, 0.9))


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    values = (rng.random((draw(st.integers(1, 3)), *shape)) * 250).astype(dtype)
    return {
        "values": values,
        "valid": rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0])),
        "scale": (draw(scales), draw(scales)),
        "offset": (draw(offsets), draw(offsets)),
        "method": draw(st.sampled_from(["smooth", "nearest"])),
    }


def ask(case: dict[str, Any], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Resample a window from exactly the source pixels that it needs."""
    shape = case["valid"].shape
    how = {"scale": case["scale"], "offset": case["offset"], "method": case["method"]}
    source = source_window(window, case["scale"], shape, offset=case["offset"], method=case["method"])
    assert Window(0, 0, *shape).contains(source)
    rows, columns = source.slices()
    return resample(
        case["values"][:, rows, columns], case["valid"][rows, columns], window, source=source, shape=shape, **how
    )


def whole(case: dict[str, Any]) -> Window:
    return Window(0, 0, *output_shape(case["valid"].shape, case["scale"]))


@settings(max_examples=150)
@given(cases(), st.data())
def test_pixels_do_not_depend_on_the_window_that_asks(case: dict[str, Any], data: st.DataObject) -> None:
    everything = whole(case)
    y = sorted(data.draw(st.integers(0, everything.height)) for _ in range(2))
    x = sorted(data.draw(st.integers(0, everything.width)) for _ in range(2))
    part = Window.from_bounds(y[0], x[0], max(y[1], y[0] + 1), max(x[1], x[0] + 1)).intersect(everything)
    if part.empty:
        return
    values, valid = ask(case, everything)
    part_values, part_valid = ask(case, part)
    assert part_values.tobytes() == np.ascontiguousarray(values[:, *part.slices()]).tobytes()
    assert np.array_equal(part_valid, valid[part.slices()])


@settings(max_examples=150)
@given(cases())
def test_a_pixel_is_valid_iff_the_source_pixel_under_its_centre_is(case: dict[str, Any]) -> None:
    _, valid = ask(case, whole(case))
    shape = case["valid"].shape
    for y, x in np.ndindex(*valid.shape):
        under = [
            min(max(int(np.floor((i + 0.5) * s + o)), 0), n - 1)
            for i, s, o, n in zip((y, x), case["scale"], case["offset"], shape, strict=True)
        ]
        assert valid[y, x] == case["valid"][under[0], under[1]]


@settings(max_examples=100)
@given(cases())
def test_results_stay_within_the_valid_values_and_a_constant_stays_constant(case: dict[str, Any]) -> None:
    values, valid = ask(case, whole(case))
    for channel, source in zip(values, case["values"], strict=True):
        if valid.any():
            seen = source[case["valid"]].astype(np.float32)
            assert channel[valid].min() >= np.nextafter(seen.min(), np.float32(-np.inf))
            assert channel[valid].max() <= np.nextafter(seen.max(), np.float32(np.inf))
        assert not channel[~valid].any()
    constant, _ = ask({**case, "values": np.full_like(case["values"], 37)}, whole(case))
    assert np.array_equal(constant, np.broadcast_to(np.where(valid, np.float32(37), 0), constant.shape))


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_shrinking_by_a_whole_number_is_the_mean_of_the_valid_pixels(factor: int) -> None:
    rng = np.random.default_rng(factor)
    values, valid = rng.integers(0, 4000, (2, 40, 33)).astype(np.uint16), rng.random((40, 33)) < 0.8
    case = {"values": values, "valid": valid, "scale": (factor, factor), "offset": (0.0, 0.0), "method": "smooth"}
    got, got_valid = ask(case, whole(case))
    for y, x in zip(*np.nonzero(got_valid), strict=True):
        cell = np.s_[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        for channel in range(2):
            assert got[channel, y, x] == pytest.approx(values[channel][cell][valid[cell]].mean(), rel=1e-6)


@pytest.mark.parametrize("scale", [1.5, 2.7])
def test_shrinking_keeps_the_sum_of_the_image(scale: float) -> None:
    rng = np.random.default_rng(1)
    size = int(scale * 20)  # a whole number of output pixels
    values = rng.random((1, size, size))
    case = {"values": values, "valid": np.ones((size, size), bool), "scale": (scale, scale), "offset": (0.0, 0.0)}
    got, _ = ask({**case, "method": "smooth"}, Window(0, 0, 20, 20))
    assert got.sum(dtype=np.float64) * scale**2 == pytest.approx(values.sum(), rel=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_enlarging_a_ramp_gives_the_ramp_at_pixel_centres(factor: int) -> None:
    ramp = np.arange(12.0)[None, None].repeat(5, axis=1)
    case = {"values": ramp, "valid": np.ones((5, 12), bool), "scale": (1 / factor, 1 / factor), "offset": (0.0, 0.0)}
    got, _ = ask({**case, "method": "smooth"}, Window(0, 0, 5 * factor, 12 * factor))
    expected = np.clip((np.arange(12 * factor) + 0.5) / factor - 0.5, 0, 11)
    assert np.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 6])
def test_nearest_enlarging_repeats_pixels(factor: int) -> None:
    values = np.random.default_rng(2).integers(0, 9, (1, 7, 5)).astype(np.uint8)
    case = {"values": values, "valid": np.ones((7, 5), bool), "scale": (1 / factor, 1 / factor), "offset": (0.0, 0.0)}
    got, _ = ask({**case, "method": "nearest"}, Window(0, 0, 7 * factor, 5 * factor))
    assert np.array_equal(got, values.repeat(factor, 1).repeat(factor, 2))


def test_scale_one_leaves_every_pixel_alone() -> None:
    values = np.random.default_rng(3).random((2, 9, 8)).astype(np.float32)
    case = {"values": values, "valid": np.ones((9, 8), bool), "scale": (1.0, 1.0), "offset": (0.0, 0.0)}
    got, _ = ask({**case, "method": "smooth"}, Window(0, 0, 9, 8))
    assert np.array_equal(got, values)


def test_invalid_pixels_do_not_contribute_whatever_they_hold() -> None:
    values = np.ones((1, 8, 8), np.float32)
    valid = np.ones((8, 8), bool)
    values[0, ::2, ::2], valid[::2, ::2] = np.nan, False
    for scale in (2.0, 0.5):
        case = {"values": values, "valid": valid, "scale": (scale, scale), "offset": (0.0, 0.0), "method": "smooth"}
        got, got_valid = ask(case, whole(case))
        assert (got[0][got_valid] == 1).all()
        assert (got[0][~got_valid] == 0).all()
