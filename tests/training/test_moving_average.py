"""Laws of the moving average: it is what one computes by hand, buffers included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tilesseg.training.training_state import MovingAverage


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_the_average_equals_one_computed_by_hand() -> None:
    trained = network()
    average = MovingAverage(trained, 0.5)
    by_hand = {name: value.clone().double() for name, value in trained.state_dict().items()}
    for step in range(1, 12):
        trained(torch.randn(2, 1, 4, 4))
        with torch.no_grad():
            for value in trained.parameters():
                value += torch.randn_like(value)
        average.update(trained, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in trained.state_dict().items():
            by_hand[name] = decay * by_hand[name] + (1 - decay) * value.double()
    for name, value in average.state.items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), by_hand[name], rtol=1e-5), name
    assert average.state["1.num_batches_tracked"] == 11
    assert not torch.equal(average.state["1.running_mean"], trained.state_dict()["1.running_mean"])


@pytest.mark.parametrize(("step", "decay"), [(1, 2 / 11), (90, 91 / 100), (8990, 0.999), (10**6, 0.999)])
def test_the_decay_grows_to_its_largest(step: int, decay: float) -> None:
    assert MovingAverage(network(), 0.999).decay_at(step) == pytest.approx(decay)


def test_without_decay_the_average_is_the_network_itself() -> None:
    trained = network()
    average = MovingAverage(trained, 0.0)
    with torch.no_grad():
        for value in trained.parameters():
            value += 1.5
    average.update(trained, 1)
    assert all(torch.equal(average.state[name], value) for name, value in trained.state_dict().items())
