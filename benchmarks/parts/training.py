"""What the training loop adds to a step, over the same network and the same batch in memory.

The bare step computes and nothing else; the training loop also seeds, averages, logs and counts. A step of either comes
after one of the other, in one process, so that both see the same machine. Run it as
`python -m benchmarks.parts.training --steps 40 --threads 2`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from tilesseg.events import Event, StepDone
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.training.losses import loss_function
from tilesseg.training.moving_average import MovingAverage
from tilesseg.training.optimiser import make_optimiser
from tilesseg.training.train_spec import TrainSpec, parse_train_spec
from tilesseg.training.training_directory import TrainingDirectory
from tilesseg.training.training_loop import Manner, TrainingLoop
from tilesseg.training.training_state import Trainee

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Memory:
    """A batch in memory, again and again."""

    values: Tensor
    labels: Tensor

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[Memory]:
        del rank, world
        for _ in range(first, last + 1):
            yield self


def make_batch(arguments: argparse.Namespace) -> Memory:
    shape = (arguments.batch, arguments.patch, arguments.patch)
    values = torch.randn(shape[0], 4, *shape[1:])
    return Memory(values, (values.mean(1) > 0).to(torch.uint8))


def make_network(arguments: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    network = UNet(4, 2, UNetShape(depth=arguments.depth, width=arguments.width))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def make_spec(arguments: argparse.Namespace, folder: Path) -> TrainSpec:
    classes = [{"name": "background", "colour": "black"}, {"name": "other", "colour": "white"}]
    data = {
        "name": "benchmark",
        "licence": "CC0-1.0",
        "classes": classes,
        "data": {"scenes": "none", "labels": "none"},
        "sampling": {"patch": arguments.patch, "batch": arguments.batch},
        "optimise": {"steps": arguments.steps},
        "stop": {"every": 10**9},
        "output": {"dir": str(folder)},
    }
    return parse_train_spec(data, where="benchmark")


class Bare:
    """A loop that only computes."""

    def __init__(self, arguments: argparse.Namespace, batch: Memory) -> None:
        self._network, self._loss = make_network(arguments), loss_function(make_spec(arguments, Path("none")).loss)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=1e-3)
        self._values, self._labels = batch.values.to(memory_format=torch.channels_last), batch.labels

    def step(self) -> None:
        """Learn from the batch."""
        loss = self._loss(self._network(self._values), self._labels)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()


class Clock:
    """Listener that times the steps of a training, and a bare step between any two."""

    def __init__(self, bare: Bare) -> None:
        self._bare, self._start = bare, 0.0
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def __call__(self, event: Event) -> None:
        """Take the end of a step."""
        if isinstance(event, StepDone):
            now = time.perf_counter()
            self.ours.append(now - self._start)
            self._bare.step()
            self._start = time.perf_counter()
            self.theirs.append(self._start - now)


def measure(arguments: argparse.Namespace) -> Clock:
    """Seconds of the steps of both."""
    batch = make_batch(arguments)
    clock = Clock(Bare(arguments, batch))
    with tempfile.TemporaryDirectory() as folder:
        spec, network = make_spec(arguments, Path(folder)), make_network(arguments)
        trainee = Trainee(network, make_optimiser(network, spec.optimise), MovingAverage(network, spec.optimise.ema))
        manner, directory = Manner(loss_function(spec.loss), CPU, spec.optimise.clip), TrainingDirectory(Path(folder))
        TrainingLoop(spec, trainee, batch, manner, directory, None, tell=clock).carry_out()
    return clock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"steps": 40, "threads": 2, "depth": 3, "width": 16, "patch": 128, "batch": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = measure(arguments)
    ours, theirs = median(clock.ours[2:]), median(clock.theirs[2:])
    ratio = median(mine / bare for mine, bare in zip(clock.ours[2:], clock.theirs[2:], strict=True))
    print(f"bare step {1000 * theirs:.1f} ms, step of the training loop {1000 * ours:.1f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
