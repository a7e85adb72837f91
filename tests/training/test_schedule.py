"""Laws of the learning rate: it rises, stays and falls, and depends on the step alone."""

from __future__ import annotations

import pytest

from tilesseg.training.optimiser import Schedule
from tilesseg.training.train_spec import Optimise

SCHEDULE = Schedule.of(Optimise(steps=100, rate=1.0, warmup=0.1, decay=0.2))


def test_the_rate_at_its_corners() -> None:
    rates = {step: SCHEDULE.rate_at(step) for step in (1, 10, 11, 50, 80, 81, 100)}
    assert rates == pytest.approx({1: 1 / 11, 10: 10 / 11, 11: 1, 50: 1, 80: 1, 81: 20 / 21, 100: 1 / 21})


def test_no_step_is_without_a_rate_and_none_above_the_highest() -> None:
    for warmup, decay in ((0, 0), (0, 0.5), (0.9, 0.9), (0.1, 0.2)):
        schedule = Schedule.of(Optimise(steps=30, rate=0.5, warmup=warmup, decay=decay))
        assert schedule.last() == 30
        assert all(0 < schedule.rate_at(step) <= 0.5 for step in range(1, 31))


def test_a_fall_that_begins_early_is_the_same_share_of_a_shorter_training() -> None:
    assert [SCHEDULE.last(start) for start in (None, 80, 90, 40, 8)] == [100, 100, 100, 50, 10]
    rates = [SCHEDULE.rate_at(step, 40) for step in (40, 41, 50)]
    assert rates == pytest.approx([1, 10 / 11, 1 / 11])
    assert [SCHEDULE.rate_at(step, 40) for step in range(1, 41)] == [SCHEDULE.rate_at(step) for step in range(1, 41)]


def test_a_fall_that_begins_while_the_rate_rises_never_exceeds_it() -> None:
    rates = [SCHEDULE.rate_at(step, 8) for step in range(1, 11)]
    assert rates[:8] == [SCHEDULE.rate_at(step) for step in range(1, 9)]
    assert rates[8:] == pytest.approx([2 / 3, 1 / 3])


def test_rates_of_auto_differ_by_optimiser() -> None:
    assert Schedule.of(Optimise()).rate == 2e-3
    assert Schedule.of(Optimise(kind="sgd")).rate == 1e-2
