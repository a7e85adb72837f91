"""Networks of PyTorch from their files: our U-Net from safetensors, and TorchScript. Nothing here unpickles."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tilesseg.errors import ModelError
from tilesseg.models.failures import one_line
from tilesseg.models.spec import ModelSpec
from tilesseg.models.unet import UNet


def read_unet(spec: ModelSpec, weights: Path) -> UNet:
    """Our U-Net of the shape `spec.unet` in evaluation mode, batch normalisation folded into its convolutions.

    Raises:
        ModelError: the file is not safetensors, or its tensors do not fit the shape.
    """
    assert spec.unet is not None  # the spec has seen to it
    network = UNet(len(spec.bands), spec.score_channels, spec.unet)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{weights} is not a safetensors file: {one_line(error)}") from None
    _compare(network.state_dict(), tensors, weights)
    network.load_state_dict(tensors)
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
        raise ModelError(f"{path} is damaged TorchScript: {one_line(error)}; save it again") from None


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
        if found[name].is_floating_point() and not bool(torch.isfinite(found[name]).all()):
            raise ModelError(f"{path} has {name} with values that are not finite numbers; train it again")
