"""State of a training: the network, its optimiser, its average, and how far it has come; all that a checkpoint holds.

A state that is stored and restored goes on bit for bit: tensors keep their strides, so that the same kernels compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tilesseg.errors import StoreError
from tilesseg.training.checkpoint import Checkpoint

NETWORK, AVERAGE, OPTIMISER, BEST = "network", "average", "optimiser", "best"
"""First parts of the names of a checkpoint's tensors."""


@dataclass(slots=True)
class Progress:
    """Progress of a training, as plain data."""

    step: int = 0
    """Number of steps that are done."""
    validated: int = 0
    """Step of the last validation."""
    seconds: float = 0.0
    """Seconds of all executions together."""
    fall: int | None = None
    """Step after which the learning rate began to fall early, or None."""
    best_step: int | None = None
    """Step of the best validation, or None before the first."""
    best_score: float = 0.0
    threshold: float | None = None
    """Threshold that a validation chose for the parameters that become the bundle, for a network of one score."""
    fruitless: int = 0
    """Number of validations since the best."""
    losses: float = 0.0
    """Sum of the losses since the last validation."""
    patch_counts: list[list[int]] = field(default_factory=list)
    """Confusion matrix of the patches since the last validation."""
    worst: list[list[float]] = field(default_factory=list)
    """Loss, step and number of the patches of the worst loss since the last validation, see `worst_patches`."""


class MovingAverage:
    """Moving average of a network's state: it validates and is shipped, for it is better than any single step.

    The average is short at the start: the decay of step s is at most (1 + s) ÷ (10 + s). Buffers, the statistics of
    batch normalisation, are averaged too; whole numbers are copied. Source: Polyak and Juditsky (1992); the start as in
    TensorFlow's ExponentialMovingAverage.
    """

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


@dataclass(slots=True)
class Trainee:
    """A network in training."""

    network: nn.Module
    """Network on its device."""
    optimiser: torch.optim.Optimizer
    average: MovingAverage
    progress: Progress = field(default_factory=Progress)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Average of the best validation; empty before the first."""

    def keep_best(self) -> None:
        """Keep the average of now as the best."""
        self.best = {name: value.clone() for name, value in self.average.state.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name."""
        parts = {NETWORK: self.network.state_dict(), AVERAGE: self.average.state, BEST: self.best}
        named = {f"{part}/{name}": value for part, state in parts.items() for name, value in state.items()}
        return {**named, **{f"{OPTIMISER}/{name}": value for name, value in self._moments()}}

    def facts(self) -> dict[str, Any]:
        """Plain data of the state."""
        return asdict(self.progress)

    @torch.no_grad()
    def restore(self, stored: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            StoreError: it is of another network.
        """
        try:
            parts = {part: _part(stored.tensors, part) for part in (NETWORK, AVERAGE, OPTIMISER, BEST)}
            for name, value in self.network.state_dict().items():
                value.copy_(parts[NETWORK][name])
            self.average.restore(parts[AVERAGE])
            self.best = {name: _like(self.average.state[name], value) for name, value in parts[BEST].items()}
            self._restore_moments(parts[OPTIMISER])
            self.progress = Progress(**stored.facts)
        except (KeyError, TypeError, RuntimeError) as error:
            raise StoreError(
                f"the checkpoint of step {stored.step:,} is of another network or version ({error}); start in a new "
                "directory"
            ) from None

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for number, parameter in enumerate(self._parameters()):
            for name, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield f"{number}/{name}", value

    def _restore_moments(self, moments: Mapping[str, Tensor]) -> None:
        parameters = self._parameters()
        for key, value in moments.items():
            number, _, name = key.partition("/")
            parameter = parameters[int(number)]
            own = _like(parameter, value) if value.shape == parameter.shape else value.clone()
            self.optimiser.state[parameter][name] = own


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}/"): value for name, value in tensors.items() if name.startswith(f"{part}/")}


def _like(own: Tensor, value: Tensor) -> Tensor:
    """Copy of a tensor with device and strides of another."""
    return torch.empty_like(own, requires_grad=False).copy_(value)
