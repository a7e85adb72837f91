"""Networks of PyTorch from their files: our U-Net from safetensors, and TorchScript. Nothing here unpickles."""

from __future__ import annotations

import struct
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tilesseg.errors import ModelError, cannot, one_line
from tilesseg.models.foreign_files import EXPORT, foreign_problem
from tilesseg.models.spec import ModelSpec, UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import crop_of
from tilesseg.models.unet.unet_weights import read_tensors

TOGETHER = {torch.float32: 256, torch.bfloat16: 512}
"""Number of input channels that oneDNN sums in one order whatever the size of the input; of more, the size decides."""


def read_unet(spec: ModelSpec, weights: Path) -> UNet:
    """Our U-Net of the shape `spec.unet` in evaluation mode, batch normalisation folded into its convolutions.

    Raises:
        ModelError: the file is not safetensors, or its tensors do not fit the shape.
    """
    assert spec.unet is not None  # the spec refuses anything else
    network = UNet(len(spec.bands), spec.score_channels, spec.unet)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in read_tensors(spec, weights).items()})
    return folded(network.eval())


def folded(network: UNet) -> UNet:
    """Fold each batch normalisation into the convolution before it: the same function, up to rounding."""
    for level in (*network.down, *network.up):
        assert isinstance(level, nn.Sequential)
        for place in reversed(range(len(level))):
            layer, before = level[place], level[place - 1]
            if isinstance(layer, nn.BatchNorm2d):
                assert isinstance(before, nn.Conv2d)
                level[place - 1] = fuse_conv_bn_eval(before, layer)
                del level[place]
    return network.requires_grad_(False)


def without_padding(network: UNet, shape: UNetShape) -> UNet:
    """The network of this shape with unpadded convolutions; shares its parameters."""
    shape = shape.model_copy(update={"convolutions": "valid"})
    bare = deepcopy(network, {id(values): values for values in network.parameters()})
    bare.crops = tuple(crop_of(shape, level) for level in range(shape.depth))
    for layer in bare.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding = (0, 0)
    return bare


class _Convolution(nn.Conv2d):
    """A convolution on a processor whose every pixel is summed in one order; see `steady`."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; arguments and result are those of `nn.Conv2d`."""
        inputs, weight, bias = _computable(self, x)
        together = TOGETHER[inputs.dtype]
        total: Tensor | None = None
        for part, weight_part in zip(torch.split(inputs, together, 1), torch.split(weight, together, 1), strict=True):
            partial = torch.mkldnn_convolution(
                part, weight_part, None if total is not None else bias,
                self.padding, self.stride, self.dilation, self.groups,  # type: ignore[arg-type]
            )  # fmt: skip
            total = partial if total is None else total.add_(partial)
        assert total is not None  # there are channels
        return total.to(x.dtype)


class _Transposed(nn.ConvTranspose2d):
    """A transposed convolution on a processor whose every pixel is summed in one order; see `steady`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve; arguments and result are those of `nn.ConvTranspose2d`."""
        result: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            *_computable(self, x), self.padding, self.output_padding, self.stride, self.dilation, self.groups,
            "none", [], "",
        )  # fmt: skip
        return result.to(x.dtype)


def steady(network: UNet) -> UNet:
    """Let oneDNN alone compute the convolutions of a network on a processor; changes the network and returns it.

    For each convolution PyTorch chooses between oneDNN and a matrix product of MKL, by the size of the input and the
    number of threads (MKL for 1 × 1 in one thread, and for small inputs), and their sums differ in the last bits. A
    PyTorch without oneDNN has no choice to make, and the network stays as it is.
    """
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for layer in network.modules():
            if type(layer) is nn.Conv2d:
                layer.__class__ = _Convolution
            elif type(layer) is nn.ConvTranspose2d:
                layer.__class__ = _Transposed
    return network


def _computable(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias: in float32 where the input is in bf16 and oneDNN knows none on this processor."""
    if x.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float()
    return x, layer.weight, layer.bias


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript archive to the CPU. Its own reader builds tensors and code of torch, never Python objects.

    Raises:
        ModelError: the file is of another kind.
    """
    if not _is_script(path):
        raise ModelError(foreign_problem(path) or f"{path} is not TorchScript; {EXPORT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load is deprecated and still works
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call,no-any-return]
    except Exception as error:  # of any class: a changed byte may be a length, a name, or code
        raise ModelError(f"{path} is damaged TorchScript: {one_line(error)}; save it again") from None


def _is_script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "get it again")) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        if path.read_bytes()[:4] == b"PK\x03\x04":
            raise ModelError(f"{path} is a damaged archive: {one_line(error)}; get it again") from None
        return False
