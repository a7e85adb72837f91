"""What the training loop adds to a step, over the same network: with one batch in memory, and with patches from files.

The bare step computes and nothing else, on the batch in memory; the training loop also seeds, averages, logs, counts
and reads. Steps of the two come in turns, `--block` at a time, in one process, so that both see the same machine. Run
it as `python -m benchmarks.parts.training --steps 40 --threads 2`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import rasterio
import torch
from torch import Tensor, nn

from tilesseg.events import Event, StepDone
from tilesseg.training.losses import loss_function
from tilesseg.training.networks import build_network
from tilesseg.training.optimiser import make_optimiser
from tilesseg.training.synthetic_landscape import landscape
from tilesseg.training.train_job import materials_of
from tilesseg.training.train_network import Materials
from tilesseg.training.train_spec import TrainSpec, parse_train_spec
from tilesseg.training.training_data import gather
from tilesseg.training.training_directory import TrainingDirectory
from tilesseg.training.training_loop import Loader, Manner, TrainingLoop
from tilesseg.training.training_state import MovingAverage, Trainee

CPU = torch.device("cpu")
CLASSES = ("open", "water", "field", "forest")


@dataclass(frozen=True)
class Memory:
    """A batch in memory, again and again."""

    values: Tensor
    labels: Tensor

    def batches(self, first: int, last: int, *, rank: int = 0, world: int = 1) -> Iterator[Memory]:
        del rank, world
        for _ in range(first, last + 1):
            yield self


def make_scenes(folder: Path, side: int) -> None:
    """Two made-up landscapes of four bands, uint16, in tiled GeoTIFFs, with their labels."""
    for seed in (100, 101):
        made = landscape((side, side), seed=seed)
        for name, values in ((f"{seed}", made.bands), (f"{seed}_labels", made.labels[None])):
            shape = {"count": len(values), "height": side, "width": side, "dtype": values.dtype}
            how = {"driver": "GTiff", "tiled": True, "compress": "deflate", "crs": "EPSG:32633"}
            place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
            with rasterio.open(folder / f"{name}.tif", "w", transform=place, **shape, **how) as file:
                file.write(values)


def make_spec(arguments: argparse.Namespace, folder: Path) -> TrainSpec:
    colours = ("tan", "blue", "orange", "green")
    data = {
        "name": "benchmark",
        "licence": "CC0-1.0",
        "classes": [{"name": name, "colour": colour} for name, colour in zip(CLASSES, colours, strict=True)],
        "data": {
            "scenes": [str(folder / f"{seed}.tif") for seed in (100, 101)],
            "labels": f"{folder}/{{scene}}_labels.tif",
        },
        "split": {"validate": 0.5},
        "network": {"depth": arguments.depth, "width": arguments.width},
        "sampling": {"patch": arguments.patch, "batch": arguments.batch, "readers": arguments.readers},
        "optimise": {"steps": arguments.steps},
        "stop": {"every": 10**9},
        "output": {"dir": str(folder / "run")},
    }
    return parse_train_spec(data, where="benchmark")


class Bare:
    """A loop that only computes."""

    def __init__(self, spec: TrainSpec, materials: Materials, batch: Memory) -> None:
        network = build_network(materials.spec, spec.network, spec.seed)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss = loss_function(spec.loss)
        self._optimiser = torch.optim.AdamW(self._network.parameters(), lr=1e-3)
        self._values, self._labels = batch.values.to(memory_format=torch.channels_last), batch.labels

    def step(self) -> None:
        """Learn from the batch."""
        loss = self._loss(self._network(self._values), self._labels)
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()


class Clock:
    """Listener that times blocks of steps of a training, and as many bare steps after each of them."""

    def __init__(self, bare: Bare, block: int) -> None:
        self._bare, self._block, self._start = bare, block, time.perf_counter()
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def __call__(self, event: Event) -> None:
        """Take the end of a step."""
        if isinstance(event, StepDone) and event.step % self._block == 0:
            now = time.perf_counter()
            self.ours.append((now - self._start) / self._block)
            for _ in range(self._block):
                self._bare.step()
            self._start = time.perf_counter()
            self.theirs.append((self._start - now) / self._block)


def measure(name: str, spec: TrainSpec, materials: Materials, loader: Loader, *, batch: Memory, block: int) -> None:
    """Time the steps of both, and print."""
    clock = Clock(Bare(spec, materials, batch), block)
    network = build_network(materials.spec, spec.network, spec.seed)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainee = Trainee(network, make_optimiser(network, spec.optimise), MovingAverage(network, spec.optimise.ema))
    manner = Manner(loss_function(spec.loss), CPU, spec.optimise.clip)
    with tempfile.TemporaryDirectory() as folder:
        TrainingLoop(spec, trainee, loader, manner, TrainingDirectory(Path(folder)), None, tell=clock).carry_out()
    ours, theirs = clock.ours[1:], clock.theirs[1:]  # the first block also warms up
    ratio = median(mine / bare for mine, bare in zip(ours, theirs, strict=True))
    print(f"{name}: bare step {1000 * median(theirs):.1f} ms, training {1000 * median(ours):.1f} ms, ratio {ratio:.3f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"steps": 40, "block": 5, "threads": 2, "readers": 2, "depth": 3, "width": 16, "patch": 128, "batch": 8}
    for name, value in {**defaults, "side": 2048}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        make_scenes(Path(name), arguments.side)
        spec = make_spec(arguments, Path(name))
        materials = materials_of(spec, gather(spec))
        first = next(iter(materials.loader.batches(1, 1)))
        batch = Memory(first.values, first.labels)
        measure("a batch in memory", spec, materials, batch, batch=batch, block=1)
        measure("patches from files", spec, materials, materials.loader, batch=batch, block=arguments.block)


if __name__ == "__main__":
    main()
