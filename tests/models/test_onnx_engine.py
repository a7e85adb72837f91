"""The ONNX engine: real networks give their published output, wrong files are refused in one line.

Small networks are written here as protobuf by hand, so that no test needs the package `onnx`; that onnxruntime
takes them proves them right.
"""

from __future__ import annotations

import functools
import hashlib
import struct
import sys

import numpy as np
import pytest
import torch
import yaml
from test_torch_engine import nuclei_spec

from tilesseg.errors import ModelError
from tilesseg.models import load as models
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.engines.batches import BatchSlots
from tilesseg.models.engines.onnx_engine import _providers, open_onnx
from tilesseg.models.network import activate
from tilesseg.models.normalisation import mean_std

pytest.importorskip("onnxruntime")

load_model = functools.partial(models.load_model, engine="onnxruntime")
# ^ what this file is about; OpenVINO is held against it in test_engines


def varint(value):
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number, value):
    """One protobuf field: an integer, a text, or the bytes of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def ints(name, *values):
    return field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7)


def node(op, inputs, outputs, *attributes):
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs]
    return b"".join(parts) + field(4, op) + b"".join(field(5, attribute) for attribute in attributes)


def value_info(name, *shape, kind=1):
    """Type and shape of an input or output; `kind` 1 is float32."""
    sizes = b"".join(field(1, field(2, size) if isinstance(size, str) else field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def tensor(name, values, *shape):
    sizes = b"".join(field(1, size) for size in shape)
    kind, code = ("<q", 7) if isinstance(values[0], int) else ("<f", 1)
    return sizes + field(2, code) + field(8, name) + field(9, b"".join(struct.pack(kind, v) for v in values))


def network(nodes, inputs, outputs, tensors=()):
    graph = b"".join(field(1, one) for one in nodes) + field(2, "graph") + b"".join(field(5, one) for one in tensors)
    graph += b"".join(field(11, one) for one in inputs) + b"".join(field(12, one) for one in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(2, 18))


ANY = ("n", 2, "h", "w")


def identity(shape=ANY):
    return network([node("Identity", ["x"], ["y"])], [value_info("x", *shape)], [value_info("y", *shape)])


def make_bundle(folder, data, **changes):
    (folder / "net.onnx").write_bytes(data)
    spec = {
        "name": "small",
        "licence": "MIT",
        "engine": "onnx",
        "weights": {"file": "net.onnx", "sha256": hashlib.sha256(data).hexdigest()},
        "bands": ["red", "green"],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "activation": "none",
        "classes": [{"name": "a", "colour": "black"}, {"name": "b", "colour": "white"}],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec | changes))
    return folder


def patches(n=3, size=8):
    return np.random.default_rng(0).normal(0, 30, (n, 2, size, size)).astype(np.float32)


def refusal(folder, **options):
    with pytest.raises(ModelError) as caught:
        load_model(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_identity_network_gives_its_input_back(tmp_path):
    model = load_model(make_bundle(tmp_path, identity()), threads=1)
    assert np.array_equal(model.predict(patches()), patches()) and model.device == "cpu"


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_a_batch_size_that_the_file_fixes_is_kept(tmp_path, batch):
    model = load_model(make_bundle(tmp_path, identity((batch, 2, "h", "w"))))
    assert np.array_equal(model.predict(patches()), patches())


def test_activations_are_those_of_torch_in_double_and_survive_large_scores():
    large = np.full((1, 2, 8, 8), 1e4, np.float32)
    scores = np.concatenate([patches(), large, -large])
    with np.errstate(all="raise", under="ignore"):
        soft, sigmoid = activate(scores, "softmax"), activate(scores, "sigmoid")
    double = torch.from_numpy(scores).double()
    np.testing.assert_allclose(soft, torch.softmax(double, 1), atol=1e-6)
    np.testing.assert_allclose(sigmoid, torch.sigmoid(double), atol=1e-6)
    assert soft.dtype == sigmoid.dtype == np.float32
    assert np.array_equal(activate(scores, "none"), scores)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_activated_score_does_not_depend_on_its_place_in_the_patch(activation):
    scores = np.random.default_rng(1).normal(0, 5, (2, 3, 67, 61)).astype(np.float32)
    whole = activate(scores, activation)
    for y, x in [(0, 1), (3, 2), (5, 7), (31, 44)]:
        assert np.array_equal(activate(scores[..., y:, x:], activation), whole[..., y:, x:])


def test_what_the_file_fixes_is_compared_with_the_spec(tmp_path):
    assert "takes 3 channels, its spec names 2 bands" in refusal(make_bundle(tmp_path, identity(("n", 3, "h", "w"))))
    fixed = identity(("n", 2, 64, 64))
    assert "patches of 64 only, its spec 0 + k·1" in refusal(make_bundle(tmp_path, fixed))
    assert "patches of 64 only, its spec only 32" in refusal(make_bundle(tmp_path, fixed, patch={"fixed": 32}))
    load_model(make_bundle(tmp_path, fixed, patch={"fixed": 64}))
    assert "an array of 3 axes" in refusal(make_bundle(tmp_path, identity(("n", 2, "h"))))


def test_a_network_with_two_inputs_or_outputs_is_refused(tmp_path):
    x, y, z = (value_info(name, *ANY) for name in "xyz")
    two_in = network([node("Add", ["x", "z"], ["y"])], [x, z], [y])
    two_out = network([node("Identity", ["x"], ["y"]), node("Neg", ["x"], ["z"])], [x], [y, z])
    assert "2 inputs and 1 outputs" in refusal(make_bundle(tmp_path, two_in))
    assert "1 inputs and 2 outputs" in refusal(make_bundle(tmp_path, two_out))


@pytest.mark.parametrize("data", [b"", b"a text named .onnx", b"\x08\x08"])
def test_a_file_that_is_not_onnx_is_refused(tmp_path, data):
    assert "by onnxruntime: " in refusal(make_bundle(tmp_path, data))


def test_a_patch_the_network_cannot_take_is_refused_in_one_line(tmp_path):
    model = load_model(make_bundle(tmp_path, identity(("n", 2, 64, 64)), patch={"fixed": 64}))
    with pytest.raises(ModelError, match="fails on patches") as caught:
        model.predict(patches())
    assert "\n" not in str(caught.value)


def test_a_missing_onnxruntime_names_the_extra(tmp_path, monkeypatch):
    folder = make_bundle(tmp_path, identity())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'tilesseg[onnx]'" in refusal(folder)


def test_devices_that_are_not_here_are_refused(tmp_path):
    folder = make_bundle(tmp_path, identity())
    assert "unknown" in refusal(folder, device="gpu")
    cuda = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert _providers(cuda, "auto", "fp32")[1] == "cuda:0"
    assert _providers(cuda, "cpu", "fp32") == (["CPUExecutionProvider"], "cpu")
    assert _providers(["CPUExecutionProvider"], "auto", "fp32") == (["CPUExecutionProvider"], "cpu")
    with pytest.raises(ModelError, match="not in this onnxruntime"):
        _providers(["CPUExecutionProvider"], "cuda", "fp32")
    with pytest.raises(ModelError, match="fp16 by TensorRT"):
        _providers(cuda, "cuda:1", "fp16")
    tensorrt = _providers(["TensorrtExecutionProvider", *cuda], "cuda:1", "fp16")
    assert tensorrt[0][0][0] == "TensorrtExecutionProvider" and tensorrt[1] == "cuda:1"


def reducing(axis, *, as_input):
    """`x − mean(x)` over one axis, its number given as opset 17 does (attribute) or as opset 18 (second input)."""
    axes = [] if as_input else [ints("axes", axis)]
    mean = node("ReduceMean", ["x", "axes"] if as_input else ["x"], ["m"], *axes)
    tensors = [tensor("axes", [axis], 1)] if as_input else []
    return network([mean, node("Sub", ["x", "m"], ["y"])], [value_info("x", *ANY)], [value_info("y", *ANY)], tensors)


@pytest.mark.parametrize("as_input", [True, False])
def test_a_mean_over_pixels_is_a_hazard_and_one_over_channels_is_not(tmp_path, as_input):
    path = tmp_path / "net.onnx"
    for axis, hazards in [(1, ()), (-3, ()), (2, ("ReduceMean",)), (-1, ("ReduceMean",))]:
        path.write_bytes(reducing(axis, as_input=as_input))
        assert tiling_hazards(path) == hazards
    if as_input:
        load_model(make_bundle(tmp_path, path.read_bytes())).predict(patches())  # onnxruntime takes it


def test_normalisation_pooling_and_attention_are_hazards_in_onnx(tmp_path):
    path = tmp_path / "net.onnx"
    x, y = value_info("x", *ANY), value_info("y", *ANY)
    path.write_bytes(network([node("GlobalAveragePool", ["x"], ["y"])], [x], [y]))
    assert tiling_hazards(path) == ("GlobalAveragePool",)
    path.write_bytes(network([node("MatMul", ["x", "x"], ["y"])], [x], [y]))
    assert tiling_hazards(path) == ("MatMul of two activations",)
    path.write_bytes(network([node("MatMul", ["x", "w"], ["y"])], [x], [y], [tensor("w", [1.0], 1, 1)]))
    assert tiling_hazards(path) == ()
    path.write_bytes(network([node("InstanceNormalization", ["x", "s", "b"], ["y"])], [x], [y]))
    assert tiling_hazards(path) == ("InstanceNormalization",)
    path.write_bytes(network([node("BatchNormalization", list("xsbmv"), ["y"], ints("training_mode", 1))], [x], [y]))
    assert tiling_hazards(path) == ("BatchNormalization in training mode",)
    path.write_bytes(identity())
    assert tiling_hazards(path) == ()


def test_a_real_onnx_network_gives_its_published_output(shared_data):
    folder = shared_data / "weights" / "unet2d_nuclei_broad"
    weights = folder / "weights.onnx"
    spec = nuclei_spec("onnx", weights)
    engine = open_onnx(spec, weights, device="cpu", batch_slots=BatchSlots(2), precision="fp32")
    pixels = np.load(folder / "test_input.npy")
    scores = engine.predict(spec.normalisation(*mean_std(pixels[0].reshape(1, -1))).apply(pixels))
    np.testing.assert_allclose(scores, np.load(folder / "test_output.npy"), atol=1e-4)
    twice = engine.predict(np.repeat(spec.normalisation(*mean_std(pixels[0].reshape(1, -1))).apply(pixels), 2, axis=0))
    assert np.array_equal(twice[0], twice[1]) and np.array_equal(twice[:1], scores)
