"""Optimiser: AdamW or SGD with Nesterov's momentum; the weights of convolutions decay, biases and norms do not."""

from __future__ import annotations

import torch
from torch import nn

from tilesseg.training.train_spec import Optimise

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
