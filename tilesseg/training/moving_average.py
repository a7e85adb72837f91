"""Moving average of a network's parameters: it validates and is shipped, for it is better than any single step.

The average is short at the start: the decay of step s is at most (1 + s) ÷ (10 + s). Buffers, the statistics of batch
normalisation, are averaged too; whole numbers are copied. Source: Polyak and Juditsky (1992); the start as in
TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Average of a network's state over the steps of a training."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the state of `network`; `decay` is the largest, 0 keeps the state itself."""
        self.decay = decay
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def decay_at(self, step: int) -> float:
        """Decay of a step, from 1."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the state of `network` after a step, from 1."""
        state = network.state_dict()
        averaged = [name for name, value in self.state.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.state[name] for name in averaged], [state[name] for name in averaged], 1 - self.decay_at(step)
        )
        for name in self.state.keys() - set(averaged):
            self.state[name].copy_(state[name])

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a stored average."""
        for name, value in self.state.items():
            value.copy_(state[name])
