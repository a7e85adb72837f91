"""Layers that make a network unfit for `crop`: their output at a pixel depends on the whole patch.

With instance or group normalisation, batch statistics, global pooling or attention no margin is wide enough: tiles
differ at their borders (Buglakova et al., ICCV 2025, https://arxiv.org/abs/2503.19545). Such layers are recognised by
their type, in a torch module, a TorchScript file, a program of torch.export or an ONNX file. `receptive_margin`
measures the dependence that a type does not show.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilesseg.models.crop_safety.onnx_graph import Node, Nodes, read_nodes

if TYPE_CHECKING:
    from torch import nn

    from tilesseg.models.exported.export_program import Operation


NORMALISING = ("InstanceNorm", "BatchNorm", "SyncBatchNorm")
"""Modules that are harmless with running statistics in evaluation mode, and only then."""
GLOBAL_MODULES = ("GroupNorm", "AdaptiveAvgPool", "AdaptiveMaxPool", "MultiheadAttention", "Transformer")
GLOBAL_CALLS = (
    "aten::group_norm", "aten::adaptive_avg_pool2d", "aten::adaptive_max_pool2d", "aten::scaled_dot_product_attention",
    "aten::bmm", "aten::baddbmm",
)  # fmt: skip
GLOBAL_NODES = (
    "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "GlobalAveragePool", "GlobalMaxPool",
    "GlobalLpPool", "Attention", "MultiHeadAttention", "GroupQueryAttention",
)  # fmt: skip
PROGRAM_CALLS = (
    *GLOBAL_CALLS, "aten::native_group_norm", "aten::_adaptive_avg_pool2d", "aten::_native_batch_norm_legit",
    "aten::native_batch_norm", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_flash_attention",
)  # fmt: skip
REDUCING_PROGRAM = ("aten::mean", "aten::sum", "aten::amax", "aten::amin", "aten::var", "aten::std", "aten::var_mean")
REDUCING_NODES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare")
PER_PIXEL_AXES = ([1], [-3])
"""Axes of `(n, channel, y, x)` whose reduction stays within a pixel."""


def _never(inputs: list[Any]) -> bool:
    return False


def _per_pixel(inputs: list[Any]) -> bool:
    return len(inputs) > 1 and inputs[1].toIValue() in PER_PIXEL_AXES


def _takes_running_statistics(inputs: list[Any]) -> bool:
    return inputs[5].toIValue() is False  # instance_norm(input, weight, bias, mean, var, use_input_stats, …)


REDUCING_CALLS = {
    **dict.fromkeys(("aten::mean", "aten::sum", "aten::amax", "aten::var", "aten::std"), _per_pixel),
    "aten::instance_norm": _takes_running_statistics,
}
"""Calls that are harmless for some arguments, with the test of these."""
_CALLS = {**dict.fromkeys(GLOBAL_CALLS, _never), **REDUCING_CALLS}


def tiling_hazards(model: nn.Module | Path) -> tuple[str, ...]:
    """Names of the layers whose output depends on the whole patch, sorted.

    Layer normalisation over channels alone stays within a pixel and is not listed. Not recognised: pooling whose
    kernel was fixed to the whole patch at export.

    Args:
        model: a torch module (a loaded TorchScript one too), or a TorchScript, `.pt2` or `.onnx` file. A safetensors
            file holds no layers: give the module.

    Raises:
        ModelError: the file is not of the kind that its suffix says.
    """
    if not isinstance(model, Path):
        return tuple(sorted({*_in_modules(model), *_in_script(model), *_in_program(model)}))
    if model.suffix.lower() == ".onnx":
        return tuple(sorted(set(_in_nodes(read_nodes(model)))))
    if model.suffix.lower() == ".pt2":
        from tilesseg.models.exported.export_archive import read_program

        return tiling_hazards(read_program(model))
    from tilesseg.models.engines.torch_weights import load_script

    return tiling_hazards(load_script(model).eval())


def _in_modules(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        name = str(getattr(module, "original_name", type(module).__name__))
        if name.startswith(NORMALISING):
            if getattr(module, "running_mean", None) is None:
                yield f"{name} without running statistics"
            elif module.training:
                yield f"{name} in training mode"
        elif name == "LayerNorm":
            if len(getattr(module, "normalized_shape", ())) > 1:
                yield name
        elif name.startswith(GLOBAL_MODULES):
            yield name


def _in_script(model: nn.Module) -> Iterator[str]:
    """Calls in the graph of a TorchScript module: traced or frozen, a network has no modules left."""
    graph = getattr(model, "inlined_graph", None)
    if graph is None:
        return
    if not model.training:
        graph = _without_dead_branches(model)
    for kind, safe in _CALLS.items():
        for node in graph.findAllNodes(kind, True):
            if not safe(list(node.inputs())):
                yield kind
    for node in graph.findAllNodes("aten::matmul", True):
        if not any(_is_held(part) for part in list(node.inputs())[:2]):
            yield "matmul of two activations"


def _is_held(value: Any) -> bool:
    """Whether a value of a graph is a parameter, also transposed."""
    node = value.node()
    if node.kind() in ("aten::t", "aten::transpose", "aten::numpy_T"):
        node = next(iter(node.inputs())).node()
    return node.kind() in ("prim::Constant", "prim::GetAttr")


def _without_dead_branches(model: nn.Module) -> Any:
    """Graph after freezing: a scripted `interpolate` holds the code of every mode, also of global pooling."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated and still works
        try:
            return torch.jit.freeze(model, optimize_numerics=False).inlined_graph
        except RuntimeError:  # frozen already
            return model.inlined_graph


def _in_program(model: nn.Module) -> Iterator[str]:
    """Calls of a program of torch.export, whose arguments are known."""
    from tilesseg.models.exported.export_program import Program

    if not isinstance(model, Program):
        return
    held = model.held
    for call in model.operations:
        if call.target in PROGRAM_CALLS or _mixes_pixels(call):
            yield call.target
        elif call.target == "aten::matmul" and not any(_name(argument) in held for argument in call.arguments[:2]):
            yield "matmul of two activations"


def _mixes_pixels(call: Operation) -> bool:
    """Whether a call with these arguments mixes all pixels."""
    second = next(iter(call.arguments[1].values()), None) if len(call.arguments) > 1 else None
    if call.target in REDUCING_PROGRAM:
        return second not in PER_PIXEL_AXES
    if call.target in ("aten::softmax", "aten::_softmax", "aten::log_softmax", "aten::_log_softmax"):
        return [second] not in PER_PIXEL_AXES
    if call.target in ("aten::layer_norm", "aten::native_layer_norm"):
        return not isinstance(second, list) or len(second) > 1
    if call.target in ("aten::batch_norm", "aten::instance_norm"):  # (input, weight, bias, mean, var, use_input, …)
        return bool(call.arguments[5] == {"as_bool": True})
    return False


def _name(argument: Mapping[str, Any]) -> str | None:
    tensor = argument.get("as_tensor")
    return tensor and tensor["name"]


def _in_nodes(graph: Nodes) -> Iterator[str]:
    for node in graph.nodes:
        if node.op in GLOBAL_NODES:
            yield node.op
        elif node.op in REDUCING_NODES:
            if _axes(node, graph) not in PER_PIXEL_AXES:
                yield node.op
        elif node.op == "BatchNormalization" and node.attributes.get("training_mode") == [1]:
            yield "BatchNormalization in training mode"
        elif node.op == "LayerNormalization" and node.attributes.get("axis", [-1]) != [-1]:
            yield node.op
        elif node.op == "MatMul" and not graph.constants.keys() & set(node.inputs):
            yield "MatMul of two activations"


def _axes(node: Node, graph: Nodes) -> list[int]:
    """Axes that a node reduces: an attribute, or a second input from opset 18 on; empty if unknown."""
    if "axes" in node.attributes or len(node.inputs) < 2:
        return node.attributes.get("axes", [])
    return graph.constants.get(node.inputs[1], [])
