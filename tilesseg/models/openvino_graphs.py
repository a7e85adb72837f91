"""Networks as graphs of OpenVINO: our U-Net layer by layer, TorchScript by conversion, ONNX by its own reader.

The U-Net is written out because tracing it takes seconds in every process, and writing it a few milliseconds.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as ops
from torch import nn

from tilesseg.errors import ModelError
from tilesseg.models.choice import KINDS
from tilesseg.models.failures import one_line
from tilesseg.models.spec import ModelSpec
from tilesseg.models.torch_weights import load_script, read_unet
from tilesseg.models.unet import UNet


def read_graph(spec: ModelSpec, weights: Path) -> openvino.Model:
    """The network of a weights file, its raw scores being its output. Not to be changed: it is kept for the next.

    Raises:
        ModelError: the file is not what its spec says, or OpenVINO cannot convert it.
    """
    assert spec.weights is not None  # whoever loads has seen to it
    if spec.engine == "unet":
        return unet_graph(read_unet(spec, weights))
    return _converted(spec.engine, weights, spec.weights.sha256, len(spec.bands))


@lru_cache(maxsize=2)
def _converted(kind: str, weights: Path, sha256: str, bands: int) -> openvino.Model:
    script = load_script(weights).eval() if kind == "torchscript" else None
    try:
        return openvino.Core().read_model(weights) if script is None else _script_graph(script, bands)
    except Exception as error:  # of any class: frontends raise their own and those of what they read
        native = KINDS[kind][0]
        raise ModelError(f"OpenVINO cannot convert {weights}: {one_line(error)}; write engine: {native}") from error


def _script_graph(script: torch.jit.ScriptModule, bands: int) -> openvino.Model:
    """By the frontend itself: `openvino.convert_model` does the same, and reports its use to its makers."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch deprecates, OpenVINO uses
        frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(script)
        graph = frontend.convert(frontend.load(decoder))
    for taken in graph.get_parameters():  # unknown to a network that only passes it on
        taken.set_element_type(openvino.Type.f32)
    graph.reshape([-1, bands, -1, -1])
    return graph


def unet_graph(network: UNet) -> openvino.Model:
    """The graph of `network.forward`, its batch normalisation being folded."""
    patches = ops.parameter([-1, _channels(network), -1, -1], np.float32, name="patches")
    skips: list[Any] = []
    x: Any = patches
    for level in network.down[:-1]:
        skips.append(_chain(level, x))
        x = ops.max_pool(skips[-1], [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    x = _chain(network.down[-1], x)
    for depth in reversed(range(len(skips))):
        skip = _centre(skips[depth], network.crops[depth])
        x = _chain(network.up[depth], ops.concat([skip, _chain(network.rise[depth], x)], 1))
    return openvino.Model([_layer(network.head, x)], [patches])


def _channels(network: UNet) -> int:
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return first.in_channels


def _chain(layers: nn.Module, x: Any) -> Any:
    for layer in layers.children():
        x = _layer(layer, x)
    return x


def _layer(layer: nn.Module, x: Any) -> Any:
    match layer:
        case nn.Conv2d():
            assert not isinstance(layer.padding, str)
            pad = list(layer.padding)
            assert layer.bias is not None
            x = ops.convolution(x, _constant(layer.weight), list(layer.stride), pad, pad, [1, 1])
            return ops.add(x, _per_channel(layer.bias))
        case nn.ConvTranspose2d():
            assert layer.bias is not None
            x = ops.convolution_backprop_data(
                x, _constant(layer.weight), list(layer.stride), pads_begin=[0, 0], pads_end=[0, 0]
            )
            return ops.add(x, _per_channel(layer.bias))
        case nn.Upsample():
            twice = ops.constant(np.array([2, 2], np.float32)), ops.constant(np.array([2, 3], np.int64))
            return ops.interpolate(
                x, twice[0], "linear_onnx", "scales", axes=twice[1], coordinate_transformation_mode="half_pixel"
            )
    assert isinstance(layer, nn.ReLU), layer
    return ops.relu(x)


def _centre(x: Any, crop: int) -> Any:
    """Without `crop` pixels on each side of y and x."""
    if not crop:
        return x
    start, stop, step, axes = ([crop] * 2, [-crop] * 2, [1, 1], [2, 3])
    return ops.slice(x, *(ops.constant(np.array(one, np.int64)) for one in (start, stop, step, axes)))


def _constant(values: Any) -> Any:
    return ops.constant(values.detach().numpy())


def _per_channel(values: torch.Tensor) -> Any:
    return ops.constant(values.detach().numpy().reshape(1, -1, 1, 1))
