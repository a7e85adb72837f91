"""Optimiser and the schedule of its learning rate.

AdamW or SGD with Nesterov's momentum; the weights of convolutions decay, biases and norms do not. The rate rises,
stays, and falls over the last steps, a pure function of the step. Patience or minutes may be over early: then the fall
begins at once and is as long as the same share of the shorter training. The step at which it began is all that a
resumed training needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tilesseg.training.train_spec import Optimise

RATES = {"adam": 2e-3, "sgd": 1e-2}
"""Highest learning rate of `rate: auto`, by optimiser."""
MOMENTUM = 0.99
"""Momentum of `sgd`, as Ronneberger et al. (2015) train their U-Net."""


def make_optimiser(network: nn.Module, options: Optimise) -> torch.optim.Optimizer:
    """Optimiser of a network; its learning rate is set at each step, see `set_rate`."""
    decayed = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if options.kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rates of the steps, which are numbered from 1."""

    steps: int
    """Number of steps, unless the fall begins early."""
    rate: float
    """Highest learning rate."""
    rise: int
    """Number of steps of a lower rate at the start."""
    share: float
    """Share of the steps in which the rate falls."""

    @classmethod
    def of(cls, options: Optimise) -> Schedule:
        """Schedule of the section `optimise`."""
        rate = RATES[options.kind] if options.rate == "auto" else options.rate
        return cls(options.steps, rate, round(options.warmup * options.steps), options.decay)

    @property
    def planned_fall(self) -> int:
        """Number of the last step before the planned fall."""
        return self.steps - round(self.share * self.steps)

    def fall(self, start: int | None = None) -> int:
        """Number of steps of a fall that follows the step `start`; None for the planned one."""
        if start is None or start >= self.planned_fall:
            return self.steps - self.planned_fall
        return min(round(start * self.share / (1 - self.share)), self.steps - self.planned_fall)

    def last(self, start: int | None = None) -> int:
        """Number of the last step, where the fall follows the step `start`."""
        return self._start(start) + self.fall(start)

    def rate_at(self, step: int, start: int | None = None) -> float:
        """Learning rate of a step.

        Args:
            step: number of the step, from 1.
            start: step after which the rate began to fall early; None where it falls as planned.
        """
        up = step / (self.rise + 1)
        down = (self.last(start) - step + 1) / (self.fall(start) + 1) if step > self._start(start) else 1.0
        return self.rate * max(0.0, min(1.0, up, down))

    def _start(self, start: int | None) -> int:
        return self.planned_fall if start is None else min(start, self.planned_fall)
