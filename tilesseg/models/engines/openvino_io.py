"""Steps before and after a network as operations of OpenVINO: normalisation, then activation and decision.

Before it, the steps of `Normalisation.apply`, in its order, each rounded as NumPy rounds it. After it, activation and
`raster.labels.decide`, and whether every score is finite. With precision bf16 OpenVINO keeps float32 after the last
convolution, and before the network if the input is uint8 or float32 (a test shows it); so it gets these types only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

from tilesseg.models.network import Call
from tilesseg.models.normalisation import Normalisation
from tilesseg.models.spec import ModelSpec

LARGEST = float(np.finfo(np.float32).max)


def with_ends(network: openvino.Model, call: Call, spec: ModelSpec, *, edge: int) -> openvino.Model:
    """Network with the steps of a call: gives labels or scores, and whether they are finite, for each patch.

    It is made of `network`, which must not be used any more. Its input is larger than the network's by `edge` pixels on
    each side, and has the type that `taken` gives.
    """
    (old,), score = network.get_parameters(), network.outputs[0].get_node().input_value(0)
    n, channels, *sides = old.get_shape()
    raw = ops.parameter([n, channels, *(side + 2 * edge for side in sides)], taken(call.dtype), name="patches")
    normalised = _normalise(ops.convert(raw, "f32"), call.normalisation)
    inner = cropped(normalised, edge)  # not the raw values: alone, OpenVINO would move them in bf16
    for target in list(old.output(0).get_target_inputs()):
        target.replace_source_output(inner.output(0))
    if not score.get_target_inputs():  # the network returns its input
        score = inner.output(0)
    if score.get_element_type() != openvino.Type.f32:
        score = ops.convert(score, "f32").output(0)
    found, finite = _labels(score, spec) if call.labels else _scores(score, spec)
    if call.dtype.kind == "f":  # a rectifier of OpenVINO makes 0 of NaN, which then leaves no trace
        finite = ops.minimum(finite, ops.minimum(_everywhere(_defined(raw)), _everywhere(_bounded(normalised))))
    return openvino.Model([found.output(0), finite.output(0)], [raw])


def cropped(x: Any, margin: int) -> Any:
    """Values without `margin` pixels on each side of y and x."""
    if not margin:
        return x
    start, stop, step, axes = ([margin] * 2, [-margin] * 2, [1, 1], [2, 3])
    return ops.slice(x, *(ops.constant(np.array(numbers, np.int64)) for numbers in (start, stop, step, axes)))


def taken(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Data type of the network's input for raw patches of `dtype`: uint8 stays, anything else becomes float32."""
    return np.dtype(np.uint8) if dtype == np.uint8 else np.dtype(np.float32)


def _normalise(values: Any, by: Normalisation) -> Any:
    if (by.scale, by.offset) != (1.0, 0.0):
        values = ops.add(ops.multiply(values, _number(by.scale)), _number(by.offset))
    if any(by.subtract):
        values = ops.subtract(values, _per_band(by.subtract))
    if any(divisor != 1 for divisor in by.divide):
        values = ops.divide(values, _per_band(by.divide))
    if by.clip is not None:
        values = ops.clamp(values, *by.clip)
    if by.sigmoid:
        values = ops.sigmoid(values)
    if by.binarize is not None:
        values = ops.convert(ops.greater(values, _number(by.binarize)), "f32")
    return values


def _scores(score: Any, spec: ModelSpec) -> tuple[Any, Any]:
    """Activated scores, and whether they are finite, for each patch."""
    if spec.activation == "softmax":
        score = ops.softmax(score, 1).output(0)
    elif spec.activation == "sigmoid":
        score = ops.sigmoid(score).output(0)
    return ops.convert(score, "f32"), _everywhere(_bounded(score))


def _labels(score: Any, spec: ModelSpec) -> tuple[Any, Any]:
    """Labels, and whether the activated scores are finite, for each patch.

    Softmax keeps the order of scores and is not computed: its result is finite if the highest score is finite and no
    score is NaN.
    """
    if spec.activation == "sigmoid":
        score = ops.sigmoid(score).output(0)
    best, label = _highest(score, spec.score_channels)
    if spec.decision.threshold is not None:
        reached = ops.greater_equal(best, _number(spec.decision.threshold))
        label = ops.select(reached, ops.add(label, _number(1)), _number(0))
    softmax = spec.activation == "softmax"
    finite = ops.logical_and(_bounded(best), _defined(score)) if softmax else _bounded(score)
    return ops.squeeze(ops.convert(label, "u8"), _axes(1)), _everywhere(finite)


def _highest(score: Any, channels: int) -> tuple[Any, Any]:
    """Highest score of each pixel `(n, 1, y, x)`, and its channel, ties to the lower channel.

    Made of comparisons, which the runtime joins into a single pass. TopK is as fast, and promises an order of ties only
    if it sorts.
    """
    best, *others = ops.split(score, ops.constant(np.int64(1)), channels).outputs()
    label: Any = _number(0)
    for channel, other in enumerate(others, start=1):
        label = ops.select(ops.greater(other, best), _number(channel), label)
        best = ops.maximum(other, best)
    return best, label


def _bounded(values: Any) -> Any:
    """Whether all channels of a pixel are finite, `(n, 1, y, x)` of values `(n, channel, y, x)`."""
    total = ops.reduce_sum(ops.abs(values), _axes(1), keep_dims=True)
    return ops.less_equal(total, _number(LARGEST))


def _defined(values: Any) -> Any:
    """Whether no channel of a pixel is NaN, `(n, 1, y, x)`: only NaN is not equal to itself."""
    total = ops.reduce_sum(values, _axes(1), keep_dims=True)
    return ops.equal(total, total)


def _everywhere(true: Any) -> Any:
    """Whether a condition `(n, 1, y, x)` holds everywhere, 1.0 or 0.0 for each patch."""
    return ops.reduce_min(ops.select(true, _number(1), _number(0)), _axes(1, 2, 3))


def _number(value: float) -> Any:
    return ops.constant(np.float32(value))


def _axes(*axes: int) -> Any:
    return ops.constant(np.array(axes, np.int64))


def _per_band(values: tuple[float, ...]) -> Any:
    return ops.constant(np.asarray(values, np.float32).reshape(1, -1, 1, 1))
