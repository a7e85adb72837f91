"""The network of a bundle as a plain module of torch, for tools that take one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet


def load(bundle: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """The network before softmax, and mean and deviation `(channel, 1, 1)` of what it takes."""
    spec = yaml.safe_load((bundle / "model.yaml").read_text())
    network = UNet(len(spec["bands"]), len(spec["classes"]), UNetShape(**spec["unet"]))
    network.load_state_dict(load_file(bundle / spec["weights"]["file"]))
    mean, std = (torch.tensor(spec["normalise"][key]).view(-1, 1, 1) for key in ("mean", "std"))
    return network.eval(), mean, std
