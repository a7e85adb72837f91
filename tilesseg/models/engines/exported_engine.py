"""Programs of `torch.export` as an engine, read by `exported` and computed by `torch_engine`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.engines.batches import BatchSlots, compare_input, parts
from tilesseg.models.engines.torch_engine import TorchEngine, compile_module, half_of, pick_device
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.exported.export_program import Program, Size
from tilesseg.models.network import Call, Network
from tilesseg.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class ExportedEngine:
    """A program on its device."""

    torch: TorchEngine
    sides: tuple[Size, Size]
    batch: int | None
    """Batch size that the file fixes; None if any."""

    @property
    def device(self) -> str:
        return self.torch.device

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(n, score, y, x)` of `patches (n, channel, y, x)`, activated, float32.

        Raises:
            ModelError: the program was exported for other sides, or refuses this shape.
        """
        return self._divided(self.torch.predict, patches)

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.raw`."""
        return self._divided(self.torch.raw, patches)

    def network(self, call: Call) -> Network:
        """See `Model.network`."""
        return partial(self._divided, self.torch.network(call))

    def _divided(self, network: Network, patches: NDArray[Any]) -> NDArray[Any]:
        """Predict a batch in parts of the size that the file fixes."""
        for size, given in zip(self.sides, patches.shape[-2:], strict=True):
            if given < size.low or (size.high is not None and given > size.high):
                raise ModelError(
                    f"model {self.torch.spec.name} was exported for sides of {size.low} to {size.high or 'any'} px, "
                    f"and patches are {given}; change tiling.patch, or export it for more"
                )
        if self.batch is None:
            return network(patches)
        return np.concatenate([network(part) for part in parts(patches, self.batch)])[: len(patches)]


def open_exported(
    spec: ModelSpec, weights: Path | None, *, device: str, batch_slots: BatchSlots, precision: str, compiled: bool
) -> ExportedEngine:
    """Open a `.pt2` file, and compare the shape that it fixes with its spec. Nothing in it is unpickled or evaluated.

    Raises:
        ModelError: the file is of another kind, needs more than operators of torch's `aten`, or its input does not fit
            the spec.
    """
    assert weights is not None  # load_model refuses a bundle without
    program = read_program(weights)
    batch = compare_input([size.fixed for size in program.shape], spec, weights)
    place = pick_device(device)
    layout, sides = _layout(program), (program.shape[2], program.shape[3])
    module = compile_module(program.to(place), compiled)
    engine = TorchEngine(spec, module, place, batch_slots, layout=layout, autocast=half_of(precision))
    return ExportedEngine(engine, sides, batch)


def _layout(program: Program) -> torch.memory_format:
    """Memory layout of the input: channels last is 3 to 5 times as fast, if the graph does not rely on rows."""
    if program.needs_rows:
        return torch.contiguous_format
    program.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.channels_last
