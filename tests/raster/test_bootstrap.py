"""Intervals by bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tilesseg.raster import bootstrap
from tilesseg.raster.bootstrap import intervals, paired_intervals
from tilesseg.raster.metrics import dice


def units(count: int, seed: int, shift: int = 0) -> NDArray[np.int64]:
    draw = np.random.default_rng(seed)
    return np.stack([[[50, draw.integers(1, 9) + shift, 0], [draw.integers(1, 9), 30, 0]] for _ in range(count)])


def test_an_interval_holds_the_figure_of_all_units_and_narrows_with_their_number() -> None:
    few, many = intervals(units(8, 0), dice)[1], intervals(units(80, 0), dice)[1]
    assert few is not None and many is not None
    assert few.low < dice(units(8, 0).sum(0))[1] < few.high
    assert many.high - many.low < few.high - few.low
    assert intervals(units(8, 0), dice) == intervals(units(8, 0), dice)


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(100, 10, 400).astype(np.int64)
    both = np.stack([values, np.ones(400, np.int64)], axis=1)
    found = intervals(both, lambda sums: sums[..., :1] / sums[..., 1:])[0]
    assert found is not None
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_too_few_units_and_undefined_figures_have_no_interval() -> None:
    assert intervals(units(4, 0), dice) == [None, None]
    assert intervals(np.zeros((9, 2, 3), np.int64), dice) == [None, None]


def test_a_paired_interval_is_narrower_than_the_units_differ() -> None:
    draw = np.random.default_rng(1)
    first = np.stack([[[500, n, 0], [n, 30 + n, 0]] for n in draw.integers(1, 200, 30)])
    second = first + np.array([[0, -1, 0], [-1, 2, 0]])
    own = intervals(first, dice)[1]
    paired = paired_intervals(first, second, dice)[1]
    assert own is not None and paired is not None
    assert paired.low > 0 and paired.high - paired.low < (own.high - own.low) / 5


def test_draws_in_parts_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals(units(9, 0), dice)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 7 * 9)
    assert intervals(units(9, 0), dice) == whole
