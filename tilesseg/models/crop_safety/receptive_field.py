"""Receptive field of a network, measured: the distance from which an input changes a score, so the margin of `crop`.

A network with stride multiple m treats the m × m pixels of a cell differently (phases), and its patches lie on
multiples of m. The margin is the largest reach beyond the cell over all phases: max over p of `before(p) − p` and
`after(p) − (m − 1 − p)`. This is the reach of the cell as a whole, so a single measurement of the cell gives it.
Rounded up to m: 96 for the U-Net of depth 4 with transposed convolutions, 112 with bilinear interpolation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tilesseg.errors import ModelError
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.exported.export_program import Program
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import patch_rule

LARGEST = 2048
"""Side of the largest patch on which the reach is measured; a field beyond it counts as unbounded."""


@dataclass(frozen=True, slots=True)
class Receptive:
    """Properties of a network's structure that matter for tiling."""

    margin: int | None
    """Measured margin, a multiple of the stride multiple; None if unbounded or not measurable."""
    hazards: tuple[str, ...]
    """Layers whose output depends on the whole patch (see `tiling_hazards`): with such a layer `crop` is refused."""


def receptive_field(spec: ModelSpec, weights: Path | None) -> Receptive:
    """Margin and hazards of a bundle's network.

    Our U-Net is measured from its shape, a program of torch.export from its graph; of other networks only the layers
    are read.

    Raises:
        ModelError: the weights file cannot be read.
    """
    if spec.unet is not None:
        module = UNet(len(spec.bands), spec.score_channels, spec.unet).eval()
        offset, multiple = patch_rule(spec.unet)
        return Receptive(receptive_margin(module, len(spec.bands), multiple, offset=offset), tiling_hazards(module))
    if weights is None or spec.engine not in ("onnx", "torchscript", "exported"):
        return Receptive(None, ())
    if spec.engine == "exported":
        program = read_program(weights)
        hazards = tiling_hazards(program)
        return Receptive(None if hazards else _program_margin(program, spec), hazards)
    return Receptive(None, tiling_hazards(weights))


def _program_margin(program: Program, spec: ModelSpec) -> int | None:
    """Margin of a program of torch.export; None if it takes a single size or cannot be measured."""
    sizes = spec.patch
    if sizes.fixed or sizes.multiple != sizes.stride_multiple or program.shape[0].fixed not in (None, 1):
        return None
    try:
        return receptive_margin(program, len(spec.bands), sizes.stride_multiple, offset=sizes.offset)
    except (ModelError, RuntimeError):  # the structure is valid only for the numbers that it was exported with
        return None


def receptive_margin(module: torch.nn.Module, channels: int, multiple: int, *, offset: int = 0) -> int | None:
    """Margin that makes `crop` exact, measured on the structure of a torch module, not on its numbers.

    On a copy in double precision all parameters become positive, rectifiers pass everything and pooling averages:
    then no gradient vanishes or cancels, and the inputs with a gradient of an output cell are the field of the cell.

    Args:
        module: network for `(1, channels, y, x)`, not changed. Not TorchScript, whose calls cannot be exchanged:
            see `crop_safety.perturbed_margin`.
        channels: bands of its input.
        multiple: its stride multiple.
        offset: sides of `offset + k · multiple` must be legal.

    Returns:
        A multiple of `multiple`, in pixels of the input; for valid convolutions counted from the predicted pixel, so
        at least half the shrink. None if the field is unbounded, or larger than `LARGEST`.

    Raises:
        ModelError: the module does not take these sizes.
    """
    network = _structure(module)
    reaches = []
    for turned in (False, True):
        size = 16 * multiple + offset
        while (reach := _reach(network, channels, multiple, offset, size, turned)) is None:
            size = 2 * (size - offset) + offset
            if size > max(LARGEST, 64 * multiple):
                return None
        reaches.append(reach)
    return -(-max(reaches) // multiple) * multiple


def _structure(module: torch.nn.Module) -> torch.nn.Module:
    """Copy of a module with its connections and without its numbers. Batch normalisation keeps its mode."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError("the structure of TorchScript cannot be measured; measure it by perturbed_margin")
    network = copy.deepcopy(module).to("cpu").double().requires_grad_(False)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.ndim > 1:
            tensor.fill_(1.0 / tensor[0].numel())  # about the mean of its inputs: nothing grows or fades
        elif tensor.is_floating_point():
            tensor.fill_(0.0 if name.endswith(("bias", "mean")) else 1.0)
    return network


def _reach(network: torch.nn.Module, channels: int, multiple: int, offset: int, size: int, turned: bool) -> int | None:
    """Pixels by which the gradient of a cell reaches beyond it along a strip; None if it meets the strip's end."""
    width = _width(network, channels, multiple, offset)
    axis, sides = (1, (width, size)) if turned else (0, (size, width))
    pixels = torch.ones((1, channels, *sides), dtype=torch.float64, requires_grad=True)
    with _Passing():
        scores = network(pixels)
    starts = [side // 2 // multiple * multiple for side in sides]
    lost = [(side - left) // 2 for side, left in zip(sides, scores.shape[-2:], strict=True)]
    y, x = (slice(start - cut, start - cut + multiple) for start, cut in zip(starts, lost, strict=True))
    (gradient,) = torch.autograd.grad(scores[..., y, x].sum(), pixels)
    touched = torch.nonzero(gradient[0].abs().sum(dim=(0, 2 - axis))).flatten()
    first, last = int(touched[0]), int(touched[-1])
    if first == 0 or last == size - 1:
        return None
    return max(starts[axis] - first, last - starts[axis] - multiple + 1, 0)


def _width(network: torch.nn.Module, channels: int, multiple: int, offset: int) -> int:
    """Smallest side of which at least two cells are predicted."""
    problem = ""
    for cells in (2, 4, 8, 16, 32):
        width = cells * multiple + offset
        try:
            with torch.no_grad(), _Passing():
                scores = network(torch.ones((1, channels, width, width), dtype=torch.float64))
        except RuntimeError as error:
            problem = f": {str(error).splitlines()[0]}"
            continue
        if scores.shape[-1] >= 2 * multiple:
            return width
    raise ModelError(f"the network takes no patch of {offset} + k·{multiple} px{problem}; correct its patch sizes")


class _Passing(TorchFunctionMode):
    """Mode in which rectifiers and gates pass everything, and a maximum over pixels is their mean."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").partition(".")[0]  # an operator of aten has its overload behind a dot
        if name in _RECTIFIERS:
            return args[0]
        if "max_pool2d" in name and "adaptive" not in name:
            pooled = _mean_pool(*args, **(kwargs or {}))
            return (pooled, pooled) if name.startswith("max_pool2d_with_indices") else pooled
        return func(*args, **(kwargs or {}))


_RECTIFIERS = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "celu", "gelu", "silu", "mish",
    "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "sigmoid", "tanh", "threshold", "clamp", "clamp_", "prelu",
}  # fmt: skip


def _mean_pool(
    pixels: torch.Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, *_: Any, **__: Any
) -> torch.Tensor:
    ky, kx = (kernel_size, kernel_size) if isinstance(kernel_size, int) else (kernel_size[0], kernel_size[-1])
    channels = pixels.shape[1]
    kernel = pixels.new_full((channels, 1, ky, kx), 1 / (ky * kx))
    return functional.conv2d(
        pixels, kernel, stride=stride or (ky, kx), padding=padding, dilation=dilation, groups=channels
    )
