"""Networks run by PyTorch: our U-Net from safetensors, and TorchScript files. Nothing here unpickles.

Computing is float32 on the CPU as on the GPU (TF32 is off), by deterministic kernels, so that a tile computed
twice is the same. The CUDA branches have not been run on a GPU.
"""

from __future__ import annotations

import os
import threading
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from tilesseg.errors import ModelError
from tilesseg.models.activation import activate
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet import UNet

# The kernel hands out a network's large arrays anew for every batch, and page by page that takes as long as computing.
# PyTorch asks for huge pages where this says so, looks at it when it first allocates, and takes no more memory for it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_COMPUTING = threading.Lock()
# ^ one round the device, whichever model: reading and writing threads go on while one computes


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """A torch module in evaluation mode on its device."""

    spec: ModelSpec
    module: torch.nn.Module
    place: torch.device
    threads: int
    layout: torch.memory_format = torch.channels_last
    """How patches lie in memory."""

    @property
    def device(self) -> str:
        return str(self.place)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(n, score, y, x)` of `patches (n, channel, y, x)`, activated, float32.

        Raises:
            ModelError: the module gives no single tensor, refuses this shape, or the device's memory is full.
        """
        with _COMPUTING, torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            torch.set_num_threads(self.threads)  # here, because OpenMP keeps the number per calling thread
            try:
                return self._forward(patches)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                raise ModelError(
                    f"model {self.spec.name}: {self.place} has no memory for patches {patches.shape}; "
                    "take a smaller batch or patch"
                ) from None
            except RuntimeError as error:
                where = f"model {self.spec.name} fails on patches {patches.shape}"
                raise ModelError(f"{where}: {_one_line(error)}") from error

    def _forward(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        # torch warns of arrays that it could write to but must not
        owned = patches if patches.flags.writeable and patches.flags.c_contiguous else patches.copy()
        scores = self.module(torch.from_numpy(owned).to(self.place, memory_format=self.layout))
        if not isinstance(scores, torch.Tensor) or scores.ndim != 4:
            found = f"a tensor {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ModelError(f"model {self.spec.name} gives {found}, not one tensor (n, class, y, x); export it so")
        return self._activate(scores.float())

    def _activate(self, scores: torch.Tensor) -> NDArray[np.float32]:
        if self.place.type == "cpu" or self.spec.activation == "none":
            return activate(scores.cpu().numpy(), self.spec.activation)
        on_device = torch.softmax(scores, dim=1) if self.spec.activation == "softmax" else torch.sigmoid(scores)
        return activate(on_device.cpu().numpy(), "none")


def open_unet(spec: ModelSpec, weights: Path | None, *, device: str, threads: int) -> TorchEngine:
    """Our U-Net of the shape `spec.unet`, its parameters from a safetensors file.

    Raises:
        ModelError: the file is not safetensors, or its tensors do not fit the shape.
    """
    assert spec.unet is not None and weights is not None  # the spec and load_model have seen to it
    module = UNet(len(spec.bands), spec.score_channels, spec.unet)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is not a safetensors file: {_one_line(error)}") from None
    _compare(module.state_dict(), tensors, weights)
    module.load_state_dict(tensors)
    return _placed(spec, module, device, threads)


def open_torchscript(spec: ModelSpec, weights: Path | None, *, device: str, threads: int) -> TorchEngine:
    """A module saved with `torch.jit.save`.

    Raises:
        ModelError: the file is no TorchScript archive; a pickled checkpoint is never opened.
    """
    assert weights is not None  # load_model has seen to it
    return _placed(spec, load_script(weights), device, threads)


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript archive to the CPU. Its own reader builds tensors and code of torch, never Python objects.

    Raises:
        ModelError: it is something else.
    """
    if not _is_script(path):
        raise ModelError(
            f"{path} is not TorchScript but a pickled checkpoint or another file, and tilesseg never unpickles; "
            "save it with torch.jit.save, or its state_dict with safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load is deprecated and still works
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call,no-any-return]
    except RuntimeError as error:
        raise ModelError(f"{path} is damaged TorchScript: {_one_line(error)}; save it again") from None


def pick_device(wanted: str) -> torch.device:
    """`auto` becomes cuda where there is one, else cpu; anything else must exist.

    Raises:
        ModelError: no such device here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda:0" if count else "cpu")
    try:
        place = torch.device(wanted)
    except RuntimeError:
        raise ModelError(f"device {wanted!r} is unknown; write auto, cpu, cuda or cuda:1") from None
    if place.type not in ("cpu", "cuda") or (place.type == "cuda" and (place.index or 0) >= count):
        raise ModelError(f"device {wanted} is not here, this machine has cpu and {count} cuda; write auto or cpu")
    return place


def _placed(spec: ModelSpec, module: torch.nn.Module, device: str, threads: int) -> TorchEngine:
    place = pick_device(device)
    module = module.eval().to(place)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 3 to 5 times as fast
    return TorchEngine(spec, module, place, threads)


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def _compare(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor], path: Path) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            who = "lacks" if name not in found else "has, beyond the network,"
            raise ModelError(f"{path} {who} the tensor {name}; correct the section `unet` or bands of its spec")
        if found[name].shape != wanted[name].shape:
            raise ModelError(
                f"{path} has {name} of shape {tuple(found[name].shape)}, the spec makes it "
                f"{tuple(wanted[name].shape)}; correct bands, classes or the section `unet` of its spec"
            )


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
