"""How far networks look, and which of them must not be cropped."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.crop_safety.onnx_graph import read_nodes
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.crop_safety.perturbed_margin import perturbed_margin
from tilesseg.models.crop_safety.receptive_field import receptive_field, receptive_margin
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, patch_rule, shrink_of


def network(**shape):
    torch.manual_seed(1)
    return UNet(2, 3, UNetShape(**{"width": 2, **shape})).eval()


def margin_in_theory(depth, *, bilinear=False):
    """Interval arithmetic on the layers: which input rows does the row interval of one output cell need?"""
    m = 2**depth
    low, high = 0, m - 1  # rows of the cell, at the level's own pixel size

    def up(low, high, level):
        if level == depth:
            return low - 2, high + 2
        a, b = low - 2, high + 2
        skip = (a - 2, b + 2)
        below = ((a - 1) // 2, b // 2 + b % 2) if bilinear else (a // 2, b // 2)
        low_below, high_below = up(*below, level + 1)
        return min(skip[0], 2 * low_below - 2), max(skip[1], 2 * high_below + 1 + 2)

    low, high = up(low, high, 0)
    reach = max(-low, high - (m - 1))
    return -(-reach // m) * m


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_measured_margin_is_the_one_of_theory(depth, up, batch_norm):
    net = network(depth=depth, up=up, batch_norm=batch_norm)
    assert receptive_margin(net, 2, 2**depth) == margin_in_theory(depth, bilinear=up == "bilinear")


def test_the_unet_of_depth_4_needs_96_pixels_and_112_with_interpolation():
    assert receptive_margin(network(depth=4), 2, 16) == 96
    assert receptive_margin(network(depth=4, up="bilinear"), 2, 16) == 112


def test_valid_convolutions_look_no_further_than_the_patch():
    shape = UNetShape(width=2, depth=4, convolutions="valid")
    offset, multiple = patch_rule(shape)
    margin = receptive_margin(UNet(2, 3, shape).eval(), 2, multiple, offset=offset)
    assert margin == -(-shrink_of(shape) // 2 // 16) * 16 == 96


def test_dead_rectifiers_and_zero_parameters_hide_nothing():
    net = network(depth=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(-1.0)
    assert receptive_margin(net, 2, 4) == margin_in_theory(2)


def test_measuring_leaves_the_network_alone():
    net = network(depth=2)
    before = copy.deepcopy(net.state_dict())
    receptive_margin(net, 2, 4)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_pixels_beyond_the_margin_change_nothing_and_pixels_within_it_do(depth, up):
    net, multiple = network(depth=depth, up=up, width=4), 2**depth
    margin = receptive_margin(net, 2, multiple)
    torch.manual_seed(2)
    size = 2 * margin + 9 * multiple
    patch = torch.randn(1, 2, size, size)
    start = size // 2 // multiple * multiple
    cell = slice(start, start + multiple)

    def cell_with_rows_changed_from(row):
        changed = patch.clone()
        changed[..., row:, :] += 100 * torch.randn(1, 2, size - row, size)
        return net(changed)[..., cell, cell]

    with torch.inference_mode():
        assert torch.equal(cell_with_rows_changed_from(start + multiple + margin), net(patch)[..., cell, cell])
        nearer = start + multiple + margin - 2 * multiple
        assert not torch.equal(cell_with_rows_changed_from(nearer), net(patch)[..., cell, cell])


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_crop_by_the_margin_is_exact_on_the_lattice_and_wrong_off_it(shift):
    net, multiple = network(depth=2, width=4).double(), 4  # double: kernels for other shapes round otherwise
    margin = receptive_margin(net, 2, multiple)
    torch.manual_seed(3)
    image = torch.randn(1, 2, 160, 160, dtype=torch.float64)
    y, size = 16 + shift, 2 * margin + 16
    with torch.inference_mode():
        whole, part = net(image), net(image[..., y : y + size, y : y + size])
    inside = slice(y + margin, y + size - margin)
    difference = (whole[..., inside, inside] - part[..., margin:-margin, margin:-margin]).abs().max()
    assert difference < 1e-12 if shift == 0 else difference > 1e-3


def test_a_black_box_is_measured_by_perturbation_and_never_above_its_structure():
    for depth in (1, 2, 3):
        net = network(depth=depth, width=4)

        def predict(patches, net=net):
            with torch.inference_mode():
                return net(torch.from_numpy(patches)).numpy()

        exact = receptive_margin(net, 2, 2**depth)
        found = perturbed_margin(predict, 2, 2**depth, size=160)
        assert exact - 2**depth <= found <= exact


class Squeezed(nn.Module):
    """Global pooling without a module to show for it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def with_layer(layer):
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), layer, nn.Conv2d(4, 3, 1)).eval()


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.InstanceNorm2d(4), "InstanceNorm2d without running statistics"),
        (nn.GroupNorm(2, 4), "GroupNorm"),
        (nn.LayerNorm([4, 32, 32]), "LayerNorm"),
        (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d without running statistics"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(32, 32))), "AdaptiveAvgPool2d"),
    ],
)
def test_layers_that_see_the_whole_patch_are_named(layer, named):
    assert tiling_hazards(with_layer(layer)) == (named,)


def test_batch_normalisation_is_a_hazard_in_training_mode_only():
    assert tiling_hazards(network(depth=1)) == ()
    assert tiling_hazards(network(depth=1).train()) == ("BatchNorm2d in training mode",)
    assert tiling_hazards(with_layer(nn.InstanceNorm2d(4, track_running_stats=True))) == ()


def test_attention_is_named_and_has_no_margin():
    assert tiling_hazards(Attending().eval()) == ("MultiheadAttention",)
    assert receptive_margin(Attending().eval(), 2, 1) is None


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), nn.BatchNorm2d(4).train()])
def test_a_field_without_bound_has_no_margin(layer):
    net = with_layer(layer)
    layer.train(isinstance(layer, nn.BatchNorm2d))
    assert receptive_margin(net, 2, 4) is None


def test_global_pooling_that_no_module_shows_has_no_margin_either():
    assert tiling_hazards(Squeezed().eval()) == ()
    assert receptive_margin(Squeezed().eval(), 2, 4) is None


def test_functions_are_measured_like_modules():
    class Functional(nn.Module):
        def forward(self, x):
            x = functional.max_pool2d(functional.relu(-x), 3, stride=1, padding=2, dilation=2)
            return functional.interpolate(functional.max_pool2d(x, 2), scale_factor=2.0)

    assert receptive_margin(Functional().eval(), 2, 2) == 2  # a dilated 3 × 3 looks 2 px to each side


def test_a_network_that_takes_no_such_patch_is_refused_in_one_line():
    with pytest.raises(ModelError, match="takes no patch of 0") as refusal:
        receptive_margin(nn.Conv2d(5, 3, 3).eval(), 2, 4)
    assert "\n" not in str(refusal.value)


def scripted(net, path: Path, *, traced: bool):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(net, torch.randn(1, 2, 32, 32)) if traced else torch.jit.script(net)
        torch.jit.save(torch.jit.freeze(script.eval()) if traced else script, path)
    return path


@pytest.mark.parametrize("traced", [True, False])
def test_hazards_are_found_in_torchscript(tmp_path, traced):
    path = tmp_path / "net.pt"
    for net, expected in [
        (network(depth=1) if traced else with_layer(nn.BatchNorm2d(4)), False),
        (with_layer(nn.Upsample(scale_factor=2, mode="bilinear")), False),
        (with_layer(nn.InstanceNorm2d(4, track_running_stats=True)), False),
        (with_layer(nn.InstanceNorm2d(4)), True),
        (with_layer(nn.GroupNorm(2, 4)), True),
        (Squeezed().eval(), True),
    ]:
        assert bool(tiling_hazards(scripted(net, path, traced=traced))) == expected, net


def test_the_layers_of_an_onnx_file_are_read_without_its_package(shared_data):
    path = shared_data / "weights" / "unet2d_nuclei_broad" / "weights.onnx"
    nodes = read_nodes(path).nodes
    assert {"Conv", "Relu", "MaxPool", "Concat"} <= {node.op for node in nodes}
    assert tiling_hazards(path) == ()
    assert tiling_hazards(path.with_name("weights.pt")) == ()


def test_the_real_network_in_onnx_looks_as_far_as_its_structure_says(shared_data):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = shared_data / "weights" / "unet2d_nuclei_broad" / "weights.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = perturbed_margin(lambda patch: session.run(None, {name: patch})[0], 1, 8, size=512)
    assert found == margin_in_theory(3, bilinear=True)


@pytest.mark.skipif(importlib.util.find_spec("ukis_csmask") is None, reason="needs extra clouds")
def test_the_cloud_networks_pool_globally_and_must_not_be_cropped():
    for name in ("clouds", "clouds-l2a", "clouds-4b", "clouds-4b-l2a"):
        bundle = find_bundle(name)
        field = receptive_field(bundle.spec, bundle.weights_path)
        assert field.margin is None and bundle.spec.margin is None
        assert any("GlobalAveragePool" in hazard or "ReduceMean" in hazard for hazard in field.hazards)


def test_a_damaged_onnx_file_is_refused_in_one_line(tmp_path):
    for data in (b"not a network", b"\x3a\xff\xff\xff\x0f", b"\x08\x01"):
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        with pytest.raises(ModelError, match="not an ONNX file") as refusal:
            read_nodes(path)
        assert "\n" not in str(refusal.value)


def test_patches_of_numpy_scores_may_be_read_only():
    frozen = np.ones((1, 2, 32, 32), np.float32)
    frozen.flags.writeable = False
    assert perturbed_margin(lambda patch: patch, 2, 4, size=32) == 0


@pytest.mark.parametrize("convolutions", ["same", "valid"])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize(("depth", "skips"), [(1, "concat"), (2, "concat"), (2, "add"), (3, "concat"), (4, "concat")])
def test_the_margin_of_our_unet_by_arithmetic_is_the_one_that_is_measured(depth, up, convolutions, skips):
    shape = UNetShape(width=2, depth=depth, up=up, convolutions=convolutions, skips=skips)
    offset, multiple = patch_rule(shape)
    assert margin_of(shape) == receptive_margin(UNet(2, 3, shape).eval(), 2, multiple, offset=offset)
