"""Networks computed by PyTorch: our U-Net from safetensors, and TorchScript files.

`fp32` is float32 on the CPU as on the GPU (TF32 is off), by deterministic kernels, so that a tile computed twice is the
same. In bf16 and fp16 the U-Net's parameters have that type, except its last convolution, which is float32; foreign
networks are computed under autocast. The CUDA branches have not been run on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tilesseg.errors import ModelError, OutOfDeviceMemory
from tilesseg.models.engines.batches import BatchSlots
from tilesseg.models.engines.out_of_memory import refusal
from tilesseg.models.engines.torch_io import Streams, as_tensor, decide, leaves, normalise, refuse_infinite
from tilesseg.models.engines.torch_weights import folded, load_script, read_unet, steady, without_padding
from tilesseg.models.network import Call, Network, activate, centre, plain, refuse_other_shape
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import unpadded

# Without huge pages, page faults for the activations cost as much time as the convolutions. PyTorch reads this variable
# at its first allocation, and takes no more memory with it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_ON_GPU = BatchSlots(1)
# ^ a single batch on the device at a time, of any model


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A torch module in evaluation mode on its device."""

    spec: ModelSpec
    module: nn.Module
    place: torch.device
    batch_slots: BatchSlots
    layout: torch.memory_format = torch.channels_last
    """Memory layout of patches."""
    takes: torch.dtype = torch.float32
    """Data type of the module's input."""
    autocast: torch.dtype | None = None
    """Data type of autocast, for a foreign module; None computes all of it in float32."""
    bare: nn.Module | None = None
    """Our U-Net without padding, which computes less if a margin is wide enough."""

    @property
    def device(self) -> str:
        return str(self.place)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(n, score, y, x)` of `patches (n, channel, y, x)`, activated, float32.

        Raises:
            OutOfDeviceMemory: the device has no memory for such a batch.
            DeviceLost: this process cannot use the device any more.
            ModelError: the module gives no single tensor, or refuses this shape.
        """
        with self._refusing(patches.shape), self._computing():
            scores = self._forward(self.module, as_tensor(patches).to(self.place, memory_format=self.layout))
            return self._activated(scores).cpu().numpy()

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.raw`."""
        with self._refusing(patches.shape), self._computing():
            return (
                self._forward(self.module, as_tensor(patches).to(self.place, memory_format=self.layout)).cpu().numpy()
            )

    def network(self, call: Call) -> Network:
        """See `Model.network`. PyTorch computes normalisation and decision, on the device."""
        if (
            self.place.type == "cpu" and call.normalisation.sigmoid
        ):  # NumPy's sigmoid does not depend on the place of a value
            return plain(self.predict, call, self.spec)
        streams = Streams(self.place) if self.place.type == "cuda" else None

        def network(patches: NDArray[Any]) -> NDArray[Any]:
            with self._refusing(patches.shape), torch.inference_mode():
                if streams is not None:
                    return streams.run(as_tensor(patches), lambda given: self._between(given, call))
                return self._between(as_tensor(patches), call).numpy()

        return network

    def _between(self, raw: torch.Tensor, call: Call) -> torch.Tensor:
        """Labels or activated scores of raw patches, all on the device."""
        with self._computing():
            scores = self._scores(raw, call)
            refuse_other_shape(self.spec, tuple(raw.shape), tuple(scores.shape), margin=call.margin)
            if not (call.labels and self.spec.activation == "softmax"):  # which keeps the order of scores
                scores = self._activated(scores)
            refuse_infinite(scores)
            return decide(scores, self.spec.decision.threshold) if call.labels else scores

    def _scores(self, raw: torch.Tensor, call: Call) -> torch.Tensor:
        """Raw scores without the call's margin."""
        module, edge, lost = self.module, 0, 0
        if self.bare is not None and self.spec.unet and (less := unpadded(self.spec.unet, call.margin)):
            module, edge, lost = self.bare, less.edge, less.lost
        given = normalise(centre(raw, edge), call.normalisation, self.layout)
        return centre(self._forward(module, given), call.margin - lost)

    def _forward(self, module: nn.Module, patches: torch.Tensor) -> torch.Tensor:
        """Raw scores, float32."""
        half = self.autocast
        with torch.autocast(self.place.type, half or torch.bfloat16, enabled=half is not None):
            given = leaves(module(patches.to(self.takes)))
        (name, scores), *others = given.items() or [("nothing", None)]
        if others or not isinstance(scores, torch.Tensor):
            kind = f"{len(given)} outputs ({', '.join(given)})" if others else name or type(scores).__name__
            raise ModelError(f"model {self.spec.name} gives {kind}, not one tensor; export it with one output")
        return scores.float()

    def _activated(self, scores: torch.Tensor) -> torch.Tensor:
        if self.place.type == "cpu":
            return torch.from_numpy(activate(scores.numpy(), self.spec.activation))
        if self.spec.activation == "none":
            return scores.contiguous()
        on_device = torch.softmax(scores, dim=1) if self.spec.activation == "softmax" else torch.sigmoid(scores)
        return on_device.contiguous()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Context of a computation: a limited number at a time, exact, without gradients."""
        on_gpu = self.place.type == "cuda"
        # The flags belong to the process: two threads would undo each other's; a CPU does not need them.
        flags = torch.backends.cudnn.flags(deterministic=True, allow_tf32=False) if on_gpu else nullcontext()
        with _ON_GPU if on_gpu else self.batch_slots, torch.inference_mode(), flags:
            torch.set_num_threads(self.batch_slots.threads)  # here, because OpenMP keeps the number per calling thread
            yield

    @contextmanager
    def _refusing(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Context that turns an error of torch into a refusal of a single line."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            refused = refusal(error, name=self.spec.name, device=self.device, shape=shape)
            if self.place.type == "cuda" and isinstance(refused, OutOfDeviceMemory):  # a lost device would fail here
                torch.cuda.empty_cache()
            raise refused from error


def open_unet(
    spec: ModelSpec, weights: Path | None, *, device: str, batch_slots: BatchSlots, precision: str, compiled: bool
) -> TorchEngine:
    """Open our U-Net of the shape `spec.unet`, with parameters from a safetensors file.

    Raises:
        ModelError: the file is not safetensors, or its tensors do not fit the shape.
    """
    assert weights is not None  # load_model refuses a bundle without
    return _serve_unet(
        read_unet(spec, weights),
        spec,
        device=device,
        batch_slots=batch_slots,
        precision=precision,
        compiled=compiled,
    )


def open_module(
    spec: ModelSpec, network: nn.Module, *, device: str, batch_slots: BatchSlots, precision: str
) -> TorchEngine:
    """Engine of a network in training, which is copied: it computes what the bundle of the network will compute.

    Args:
        spec: spec of the network.
        network: our U-Net, or a network of a library, on any device.
        device: see `pick_device`.
        batch_slots: threads of a processor.
        precision: `fp32`, `bf16` or `fp16`.
    """
    module = deepcopy(network).eval().requires_grad_(False)
    if isinstance(module, UNet):
        unet = folded(module.cpu().to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
        return _serve_unet(unet, spec, device=device, batch_slots=batch_slots, precision=precision, compiled=False)
    place = pick_device(device)
    module = module.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEngine(spec, module, place, batch_slots, autocast=half_of(precision))


def _serve_unet(
    network: UNet, spec: ModelSpec, *, device: str, batch_slots: BatchSlots, precision: str, compiled: bool
) -> TorchEngine:
    """Engine of our U-Net, in evaluation mode, batch normalisation folded; changes the network."""
    assert spec.unet is not None  # the spec refuses anything else
    place = pick_device(device)
    _narrow(network, DTYPES[precision])
    if place.type == "cpu" and not compiled:  # one compiled computes one batch at a time, and writes its own kernels
        steady(network)
    module = network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]  # 3 to 5 times as fast
    bare = compile_module(without_padding(module, spec.unet), compiled)
    return TorchEngine(spec, compile_module(module, compiled), place, batch_slots, takes=DTYPES[precision], bare=bare)


def open_torchscript(
    spec: ModelSpec, weights: Path | None, *, device: str, batch_slots: BatchSlots, precision: str, compiled: bool
) -> TorchEngine:
    """Open a module that was saved with `torch.jit.save`.

    Raises:
        ModelError: the file is no TorchScript archive; a pickled checkpoint is never opened.
    """
    assert weights is not None  # load_model refuses a bundle without
    if compiled:
        raise ModelError(f"model {spec.name} is TorchScript, which torch.compile leaves as it is; write compile: false")
    place, module = pick_device(device), load_script(weights).eval()
    module = module.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEngine(spec, module, place, batch_slots, autocast=half_of(precision))


def half_of(precision: str) -> torch.dtype | None:
    """Data type to cast to; None for fp32."""
    return None if precision == "fp32" else DTYPES[precision]


def compile_module(module: nn.Module, compiled: bool) -> nn.Module:
    """Module, compiled at the first batch of each shape if `compiled`; compiling takes minutes."""
    return torch.compile(module, dynamic=False) if compiled else module  # type: ignore[return-value]


def pick_device(wanted: str) -> torch.device:
    """Device of PyTorch: `auto` is cuda if there is a GPU, else cpu; any other must exist.

    Raises:
        ModelError: this machine has no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda:0" if count else "cpu")
    try:
        place = torch.device(wanted)
    except RuntimeError:
        raise ModelError(f"device {wanted!r} is unknown; write auto, cpu, cuda or cuda:1") from None
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and (place.index or 0) >= count):
        raise ModelError(f"device {wanted} does not exist, this machine has cpu and {count} cuda; write auto or cpu")
    return place


def _narrow(network: UNet, dtype: torch.dtype) -> None:
    """Convert parameters to `dtype`, but not in the last convolution: scores of 8 bits would make ties."""
    if dtype == torch.float32:
        return
    network.to(dtype)
    network.head = nn.Sequential(_Wide(), network.head.float())  # type: ignore[assignment]


class _Wide(nn.Module):
    """Layer that converts to float32."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.float()
