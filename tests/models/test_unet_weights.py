"""The U-Net's weights as arrays are those of PyTorch, and OpenVINO computes them without it."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_unet_bundle
from safetensors.torch import save_file

from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.engines.torch_weights import folded as folded_by_torch
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import layers_of, tensors_of
from tilesseg.models.unet.unet_weights import folded, read_tensors

SHAPES = [
    UNetShape(depth=depth, width=3, batch_norm=norm, up=up, convolutions=kind)
    for depth, norm, up, kind in product((1, 3), (True, False), ("transposed", "bilinear"), ("same", "valid"))
] + [UNetShape(depth=3, width=3, skips="add")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_names_and_shapes_are_those_of_the_network(shape: UNetShape) -> None:
    state = UNet(2, 5, shape).state_dict()
    assert tensors_of(2, 5, shape) == {name: tuple(one.shape) for name, one in state.items()}


@pytest.mark.parametrize("norm", [True, False])
def test_folding_is_pytorchs_up_to_rounding(norm: bool) -> None:
    shape = UNetShape(depth=1, width=4, batch_norm=norm)
    network = UNet(2, 3, shape)
    for one in network.state_dict().values():
        if one.is_floating_point():
            one.uniform_(0.5, 2.0)  # in place: statistics of a trained network
    tensors = {name: one.numpy().copy() for name, one in network.state_dict().items()}
    expected = folded_by_torch(network.eval())
    for level in ("down.0", "down.1", "up.0"):
        convolutions = [one for one in expected.get_submodule(level) if isinstance(one, torch.nn.Conv2d)]
        for one, names in zip(convolutions, layers_of(level, shape), strict=True):
            mine = folded(tensors, *names)
            assert mine.weight.dtype == mine.bias.dtype == np.float32
            np.testing.assert_allclose(mine.weight, one.weight.numpy(), rtol=1e-6)
            np.testing.assert_allclose(mine.bias, one.bias.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_type_of_number_is_read_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    bundle = find_bundle(str(write_unet_bundle(tmp_path / "unet")))
    assert bundle.spec.unet is not None and bundle.weights_path is not None
    state = UNet(len(bundle.spec.bands), bundle.spec.score_channels, bundle.spec.unet).state_dict()
    state = {name: one.to(dtype) if one.is_floating_point() else one for name, one in state.items()}
    save_file(state, tmp_path / "other.safetensors")
    found = read_tensors(bundle.spec, tmp_path / "other.safetensors")
    assert found.keys() == state.keys()
    for name, one in state.items():
        assert (found[name].astype(np.float64) == one.double().numpy()).all(), name


def test_a_type_that_nobody_expects_is_refused(tmp_path: Path) -> None:
    bundle = find_bundle(str(write_unet_bundle(tmp_path / "unet")))
    save_file({"head.bias": torch.ones(3).to(torch.float8_e4m3fn)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="tensors of type 'F8_E4M3', not F64, F32"):
        read_tensors(bundle.spec, tmp_path / "odd.safetensors")


def test_openvino_computes_a_unet_without_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = write_unet_bundle(tmp_path / "unet")
    program = f"""
import sys
import numpy as np
from tilesseg.models.load import load_model
from tilesseg.models.network import Call
model = load_model({str(model)!r}, device="cpu", threads=1, engine="openvino", precision="fp32")
patches = np.zeros((1, len(model.spec.bands), 64, 64), np.uint8)
labels = model.network(Call(patches.dtype, model.spec.normalisation(), labels=True))(patches)
print(labels.shape, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 64, 64) False"
