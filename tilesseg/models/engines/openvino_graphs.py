"""Networks as graphs of OpenVINO: our U-Net layer by layer, TorchScript by conversion, ONNX by its own reader.

The U-Net is written out because tracing it takes seconds in every process, and writing it a few milliseconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from tilesseg.errors import ModelError, one_line
from tilesseg.models.engines.openvino_io import cropped
from tilesseg.models.runtime_choice import KINDS
from tilesseg.models.spec import ModelSpec, UNetShape
from tilesseg.models.unet.unet_shapes import crop_of, layers_of, padding_of, unpadded
from tilesseg.models.unet.unet_weights import Arrays, Convolution, folded, read_tensors

if TYPE_CHECKING:
    import torch


class Graph(NamedTuple):
    """A network whose prediction lacks a margin."""

    model: openvino.Model
    """Graph from normalised patches to raw scores."""
    edge: int
    """Pixels by which its input is smaller than a patch, on each side."""


Graphs = Callable[[int], Graph]
"""Function from a margin to a new graph, which the caller may change."""


def read_graphs(spec: ModelSpec, weights: Path) -> Graphs:
    """Network of a weights file.

    Raises:
        ModelError: the file does not fit its spec, or OpenVINO cannot convert it.
    """
    assert spec.weights is not None  # load_model refuses a bundle without
    if spec.engine == "unet":
        assert spec.unet is not None
        return partial(_unet_without, spec.unet, read_tensors(spec, weights))
    converted = _converted(spec.engine, weights, spec.weights.sha256, len(spec.bands))
    return lambda margin: Graph(_without(converted.clone(), margin), 0)


def _unet_without(shape: UNetShape, tensors: Arrays, margin: int) -> Graph:
    bare = unpadded(shape, margin)
    if bare is None:
        return Graph(_without(unet_graph(shape, tensors), margin), 0)
    return Graph(_without(unet_graph(bare.shape, tensors), margin - bare.lost), bare.edge)


def _without(model: openvino.Model, margin: int) -> openvino.Model:
    """Graph whose scores lack a margin; made of `model`, which must not be used any more."""
    if not margin:
        return model
    scores = model.outputs[0].get_node().input_value(0)
    return openvino.Model([cropped(scores, margin).output(0)], model.get_parameters())


@lru_cache(maxsize=2)
def _converted(kind: str, weights: Path, sha256: str, bands: int) -> openvino.Model:
    script = _script(weights) if kind == "torchscript" else None
    try:
        return openvino.Core().read_model(weights) if script is None else _script_graph(script, bands)
    except (
        Exception
    ) as error:  # of any class: frontends raise their own errors, and errors of the libraries that they use
        native = KINDS[kind][0]
        raise ModelError(f"OpenVINO cannot convert {weights}: {one_line(error)}; write engine: {native}") from error


def _script(weights: Path) -> torch.jit.ScriptModule:
    from tilesseg.models.engines.torch_weights import load_script

    return load_script(weights).eval()


def _script_graph(script: torch.jit.ScriptModule, bands: int) -> openvino.Model:
    """Graph of TorchScript, by the frontend itself: `openvino.convert_model` also sends statistics of its use."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO uses functions that torch deprecates
        frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(script)
        graph = frontend.convert(frontend.load(decoder))
    for taken in graph.get_parameters():  # unknown to a network that only passes it on
        taken.set_element_type(openvino.Type.f32)
    graph.reshape([-1, bands, -1, -1])
    return graph


def unet_graph(shape: UNetShape, tensors: Arrays) -> openvino.Model:
    """Graph of `UNet.forward` in evaluation mode, each batch normalisation folded into its convolution."""
    patches = ops.parameter([-1, tensors["down.0.0.weight"].shape[1], -1, -1], np.float32, name="patches")
    skips: list[Any] = []
    x: Any = patches
    for depth in range(shape.depth):
        skips.append(_level(f"down.{depth}", shape, tensors, x))
        x = ops.max_pool(skips[-1], [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    x = _level(f"down.{shape.depth}", shape, tensors, x)
    for depth in reversed(range(shape.depth)):
        skip, below = cropped(skips[depth], crop_of(shape, depth)), _rise(f"rise.{depth}.0", shape, tensors, x)
        joined = ops.add(skip, below) if shape.skips == "add" else ops.concat([skip, below], 1)
        x = _level(f"up.{depth}", shape, tensors, joined)
    return openvino.Model([_convolution(folded(tensors, "head", None), x)], [patches])


def _level(level: str, shape: UNetShape, tensors: Arrays, x: Any) -> Any:
    for name, norm in layers_of(level, shape):
        x = ops.relu(_convolution(folded(tensors, name, norm), x, padding=padding_of(shape)))
    return x


def _rise(name: str, shape: UNetShape, tensors: Arrays, x: Any) -> Any:
    """Output of the layer to the next finer level: twice the size, half the channels."""
    layer = folded(tensors, name, None)
    if shape.up == "transposed":
        x = ops.convolution_backprop_data(x, ops.constant(layer.weight), [2, 2], pads_begin=[0, 0], pads_end=[0, 0])
        return ops.add(x, _per_channel(layer.bias))
    twice = ops.constant(np.array([2, 2], np.float32)), ops.constant(np.array([2, 3], np.int64))
    return ops.interpolate(
        _convolution(layer, x), twice[0], "linear_onnx", "scales", axes=twice[1],
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip


def _convolution(layer: Convolution, x: Any, *, padding: int = 0) -> Any:
    pad = [padding, padding]
    x = ops.convolution(x, ops.constant(layer.weight), [1, 1], pad, pad, [1, 1])
    return ops.add(x, _per_channel(layer.bias))


def _per_channel(values: NDArray[np.float32]) -> Any:
    return ops.constant(values.reshape(1, -1, 1, 1))
