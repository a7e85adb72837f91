"""Laws of the U-Net: sizes, skips, and patches that do not know their neighbours."""

from __future__ import annotations

import itertools

import pytest
import torch

from tilesseg.models.spec import PatchSizes, UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import patch_rule, reach_of, shrink_of, stride_multiple

SHAPES = [
    UNetShape(depth=depth, width=2, batch_norm=batch_norm, up=up, convolutions=convolutions)
    for depth, batch_norm, up, convolutions in itertools.product(
        (1, 2, 3), (True, False), ("transposed", "bilinear"), ("same", "valid")
    )
]
ADDED = [
    UNetShape(depth=2, width=2, batch_norm=False, up="transposed", convolutions="valid", skips="add"),
    UNetShape(depth=2, width=2, batch_norm=True, up="bilinear", convolutions="same", skips="add"),
]


def named(shape: UNetShape) -> str:
    return f"{shape.depth}-{shape.batch_norm}-{shape.up}-{shape.convolutions}-{shape.skips}"


def sizes_of(shape: UNetShape) -> PatchSizes:
    offset, multiple = patch_rule(shape)
    return PatchSizes(offset=offset, multiple=multiple, shrink=shrink_of(shape))


def test_the_published_network_turns_572_pixels_into_388() -> None:
    shape = UNetShape(depth=4, width=1, batch_norm=False, convolutions="valid")
    with torch.inference_mode():
        assert UNet(1, 2, shape)(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert (shrink_of(shape), patch_rule(shape), stride_multiple(shape)) == (184, (12, 16), 16)


def test_the_published_network_has_its_31_million_parameters() -> None:
    """31 031 685 are counted by the common Keras version, whose head has 1157 where two classes take 130."""
    with torch.device("meta"):
        network = UNet(1, 2, UNetShape(depth=4, width=64, batch_norm=False, convolutions="valid"))
    assert sum(p.numel() for p in network.parameters()) == 31_031_685 - 1157 + 130


def test_same_convolutions_keep_the_size() -> None:
    shape = UNetShape(depth=4, width=1)
    with torch.inference_mode():
        assert UNet(3, 5, shape)(torch.zeros(2, 3, 64, 48)).shape == (2, 5, 64, 48)
    assert (shrink_of(shape), patch_rule(shape)) == (0, (0, 16))


@pytest.mark.parametrize("shape", [*SHAPES, *ADDED], ids=named)
def test_the_patch_rule_is_exactly_what_the_network_accepts(shape: UNetShape) -> None:
    network, sizes = UNet(1, 2, shape).eval(), sizes_of(shape)
    for size in range(1, shrink_of(shape) + 3 * sizes.multiple + 2):
        patch = torch.zeros(1, 1, size, size)
        if sizes.legal(size):
            with torch.inference_mode():
                assert network(patch).shape[-2:] == (size - sizes.shrink, size - sizes.shrink)
        else:
            with pytest.raises(RuntimeError), torch.inference_mode():
                network(patch)


@pytest.mark.parametrize("shape", [s for s in (*SHAPES, *ADDED) if not s.batch_norm], ids=named)
def test_the_reach_is_how_far_a_change_of_the_input_can_be_felt(shape: UNetShape) -> None:
    """Positive parameters hide nothing, so the gradient shows every input that a score depends on, at every phase."""
    network, reach, inset = UNet(1, 1, shape).double(), reach_of(shape), shrink_of(shape) // 2
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.1)
    size = sizes_of(shape).at_least(2 * reach + shrink_of(shape) + 8 * stride_multiple(shape))
    furthest = 0
    for phase in range(stride_multiple(shape)):
        at = size // 2 + phase
        patch = (1 + torch.rand(1, 1, size, size, dtype=torch.float64) / 10).requires_grad_()
        network(patch)[0, 0, at - inset, at - inset].backward()
        assert patch.grad is not None
        rows = patch.grad[0, 0].abs().sum(1).nonzero()[:, 0]
        furthest = max(furthest, at - int(rows.min()), int(rows.max()) - at)
    assert reach - stride_multiple(shape) < furthest <= reach


def test_the_reach_of_depth_4_is_107_pixels() -> None:
    assert [reach_of(UNetShape(depth=depth)) for depth in (2, 3, 4)] == [23, 51, 107]


@pytest.mark.parametrize("skips", ["concat", "add"])
@pytest.mark.parametrize("convolutions", ["same", "valid"])
def test_a_skip_carries_its_own_pixel_to_the_output(convolutions: str, skips: str) -> None:
    """With the path from below cut off, the skip alone must put each pixel where it was: centred, not shifted."""
    asked = {"depth": 2, "width": 1, "batch_norm": False, "convolutions": convolutions, "skips": skips}
    shape = UNetShape.model_validate(asked)
    network = UNet(1, 1, shape).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_()
            if name.startswith(("down.0", "up.0")) and name.endswith("weight"):
                parameter[0, 0, 1, 1] = 1.0  # pass the first channel through: of the skip, which is concatenated first
        network.head.weight.fill_(1.0)
        patch = torch.rand(1, 1, 64, 64)
        inset = shrink_of(shape) // 2
        assert torch.equal(network(patch), patch[..., inset : 64 - inset, inset : 64 - inset])


@pytest.mark.parametrize("shape", [UNetShape(depth=2, width=4), UNetShape(depth=2, width=4, up="bilinear"), *ADDED[1:]])
def test_a_shift_by_the_stride_multiple_shifts_the_prediction(shape: UNetShape) -> None:
    torch.manual_seed(1)
    network, step, margin = UNet(2, 3, shape).eval(), stride_multiple(shape), 32
    image = torch.rand(1, 2, 128 + step, 128)
    with torch.inference_mode():
        first, second = network(image[..., :128, :]), network(image[..., step:, :])
    inner = slice(margin, 128 - margin)
    assert torch.allclose(first[..., margin + step : 128 - margin + step, inner], second[..., inner, inner], atol=1e-5)


def test_evaluated_batch_normalisation_leaves_a_patch_alone_in_its_batch() -> None:
    """The last batch is padded with any patches at all: they must not change the real ones."""
    torch.manual_seed(2)
    network = UNet(2, 3, UNetShape(depth=2, width=4))
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 2, 32, 32) * 3 + 1)  # running statistics that are not 0 and 1
    network.eval()
    patch, padding = torch.rand(1, 2, 32, 32), torch.full((3, 2, 32, 32), 1e3)
    with torch.inference_mode():
        padded = network(torch.cat([patch, padding]))[:1]
        companions = network(torch.cat([patch, torch.rand(3, 2, 32, 32)]))[:1]
    assert torch.equal(padded, companions)


def test_batch_normalisation_takes_the_place_of_the_bias() -> None:
    with_norm = {name for name, _ in UNet(1, 2, UNetShape(depth=1, width=2)).named_parameters()}
    without = {name for name, _ in UNet(1, 2, UNetShape(depth=1, width=2, batch_norm=False)).named_parameters()}
    assert "down.0.0.bias" not in with_norm
    assert {"down.0.0.bias", "up.0.0.bias"} <= without


def test_an_added_skip_halves_the_channels_that_are_convolved() -> None:
    with torch.device("meta"):
        concat, add = (UNet(1, 2, UNetShape(depth=2, width=4, skips=skips)) for skips in ("concat", "add"))
    assert concat.up[0][0].weight.shape == (4, 8, 3, 3)
    assert add.up[0][0].weight.shape == (4, 4, 3, 3)


def test_dropout_is_at_the_end_of_the_contracting_path_and_only_while_training() -> None:
    torch.manual_seed(3)
    shape = UNetShape(depth=2, width=16)
    network, plain = UNet(1, 2, shape, dropout=0.5), UNet(1, 2, shape)
    seen: list[torch.Tensor] = []
    network.rise[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    patch = torch.rand(1, 1, 32, 32)
    network(patch)
    zero = (seen[0].flatten(2) == 0).all(2)
    assert 16 < int(zero.sum()) < 48  # of 64 channels
    plain.load_state_dict(network.state_dict())  # dropout has no tensors of its own
    assert torch.equal(network.eval()(patch), plain.eval()(patch))
