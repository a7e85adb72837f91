"""Law: a network whose margins nobody uses gives in the middle what the whole prediction has there, with less work."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engines import ENGINES, NOTHING, OF_TORCH, identity_bundle, loaded
from test_exported import bundle as exported_bundle
from test_torch_engine import unet_bundle

from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.engines.torch_weights import without_padding
from tilesseg.models.load import Model
from tilesseg.models.network import Call, plain
from tilesseg.models.spec import UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, unpadded
from tilesseg.training.synthetic_landscape import landscape

SHAPES = [
    UNetShape(depth=depth, width=2, batch_norm=batch_norm, up=up)
    for depth, batch_norm, up in itertools.product((2, 3, 4), (True, False), ("transposed", "bilinear"))
] + [UNetShape(depth=3, width=2, skips="add"), UNetShape(depth=3, width=2, up="bilinear", skips="add")]
UPS = pytest.mark.parametrize("up", ["transposed", "bilinear"])


def named(shape: UNetShape) -> str:
    return f"{shape.depth}-{shape.batch_norm}-{shape.up}-{shape.skips}"


def middle(values: np.ndarray, margin: int) -> np.ndarray:
    return values[..., margin : values.shape[-2] - margin, margin : values.shape[-1] - margin]


def noise(side: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 200, (2, 3, side, side)).astype(dtype)


def both(shape: UNetShape, height: int, width: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a prediction without padding and with it, in float64."""
    torch.manual_seed(0)
    network, less = UNet(2, 3, shape).double().eval(), unpadded(shape, margin_of(shape))
    assert less is not None
    patches = torch.rand(1, 2, height, width, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(patches)
        bare = without_padding(network, shape)(patches[..., less.edge : -less.edge, less.edge : -less.edge])
    assert bare.shape[-1] == width - 2 * less.lost
    return middle(bare.numpy(), margin - less.lost), middle(whole.numpy(), margin)


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_without_padding_the_middle_is_the_same(shape: UNetShape) -> None:
    margin = margin_of(shape)
    found, expected = both(shape, 2 * margin + 32, 2 * margin + 48, margin)
    assert found.shape == (1, 3, 32, 48)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_a_margin_that_is_too_narrow_leaves_the_network_as_it_is(shape: UNetShape) -> None:
    narrow = [margin for margin in range(margin_of(shape) + 1) if unpadded(shape, margin) is None]
    assert narrow == list(range(len(narrow))) and margin_of(shape) - 4 < len(narrow) <= margin_of(shape)
    if shape.up == "bilinear" and shape.depth < 4:  # interpolated without its neighbour
        found, expected = both(shape, 512, 512, len(narrow) - 1)
        assert np.abs(found - expected).max() > 1e-9


def test_a_network_without_padding_stays_as_it_is() -> None:
    assert unpadded(UNetShape(depth=3, width=2, convolutions="valid"), 500) is None


def test_parameters_are_shared() -> None:
    network = UNet(2, 3, UNetShape(depth=2, width=2, batch_norm=False))
    bare = without_padding(network, UNetShape(depth=2, width=2, batch_norm=False))
    for one, other in zip(network.parameters(), bare.parameters(), strict=True):
        assert one is other
    assert all(layer.padding == (1, 1) for layer in network.down[0] if isinstance(layer, torch.nn.Conv2d))


@UPS
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(
    ("dtype", "skips"), [("uint8", "concat"), ("uint16", "concat"), ("float32", "concat"), ("uint16", "add")]
)
@pytest.mark.parametrize("engine", OF_TORCH)
def test_our_u_net_in_every_engine(tmp_path: Path, engine: str, dtype: str, skips: str, labels: bool, up: str) -> None:
    _, folder = unet_bundle(tmp_path, classes=3, depth=3, up=up, skips=skips, changes={"classes": CLASSES})
    model, margin = loaded(folder, engine=engine, precision="fp32"), margin_of(UNetShape(depth=3, up=up))
    raw = noise(2 * margin + 64, dtype)
    whole = middle(model.network(Call(raw.dtype, NOTHING, labels))(raw), margin)
    found = model.network(Call(raw.dtype, NOTHING, labels, margin))(raw)
    assert found.shape == whole.shape and found.dtype == whole.dtype and found.flags.c_contiguous
    if labels:
        assert (skips == "add" or len(np.unique(whole)) > 1) and np.mean(found == whole) > 0.9999
    else:
        np.testing.assert_allclose(found, whole, atol=1e-5)


CLASSES = [{"name": name, "colour": "black"} for name in "abc"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", OF_TORCH)
def test_where_a_patch_begins_changes_no_bit(engine: str, precision: str) -> None:
    """Patches of one shape on one lattice: what two tiles both compute is the same."""
    model = loaded(engine=engine, precision=precision)
    margin, spec = model.spec.margin, model.spec
    network = model.network(Call(np.dtype(np.uint16), spec.normalisation(), labels=False, margin=margin))
    image = landscape((384, 384), 11).bands[None]
    found = {(y, x): network(image[..., y : y + 256, x : x + 256]) for y in (0, 64, 128) for x in (0, 64)}
    size = 256 - 2 * margin
    for (y, x), (v, u) in itertools.combinations(found, 2):
        high, wide = size - abs(y - v), size - abs(x - u)
        if min(high, wide) > 0:
            first = found[y, x][..., max(0, v - y) :, max(0, u - x) :][..., :high, :wide]
            second = found[v, u][..., max(0, y - v) :, max(0, x - u) :][..., :high, :wide]
            assert np.array_equal(first, second)


@pytest.mark.parametrize("engine", OF_TORCH)
def test_in_bf16_it_is_as_exact_as_with_padding(engine: str) -> None:
    """Raw values of 16 bits must not be moved in bf16, which has 8."""
    exact, model = (loaded(engine=one, precision=how) for one, how in (("torch", "fp32"), (engine, "bf16")))
    margin, raw = model.spec.margin, landscape((512, 512), 3).bands[None]

    def scores(of: Model, without: int) -> np.ndarray:
        return of.network(Call(raw.dtype, of.spec.normalisation(), labels=False, margin=without))(raw)

    truth = middle(scores(exact, 0), margin)
    padded, bare = middle(scores(model, 0), margin), scores(model, margin)
    assert 0 < np.abs(bare - truth).mean() < 1.1 * np.abs(padded - truth).mean()


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_foreign_networks_are_cropped_behind(tmp_path: Path, engine: str, labels: bool) -> None:
    model = loaded(identity_bundle(tmp_path, engine), engine=engine, precision="fp32")
    raw = noise(64)
    whole = model.network(Call(raw.dtype, NOTHING, labels))(raw)
    found = model.network(Call(raw.dtype, NOTHING, labels, margin=7))(raw)
    assert np.array_equal(found, middle(whole, 7)) and found.flags.c_contiguous


@pytest.mark.parametrize("labels", [True, False])
def test_exported_programs_are_cropped_behind(tmp_path: Path, labels: bool) -> None:
    folder = exported_bundle(tmp_path, UNet(3, 2, UNetShape(depth=2, width=4)).eval())
    model, raw = loaded(folder), noise(64)
    whole = model.network(Call(raw.dtype, NOTHING, labels))(raw)
    assert np.array_equal(model.network(Call(raw.dtype, NOTHING, labels, 9))(raw), middle(whole, 9))


def test_a_network_of_the_user_s_own_is_cropped_behind() -> None:
    spec, raw = find_bundle("landscape").spec, noise(32)

    def same(patches: np.ndarray) -> np.ndarray:
        return patches

    found = plain(same, Call(raw.dtype, NOTHING, labels=False, margin=3), spec)(raw)
    assert np.array_equal(found, middle(raw, 3))
    assert np.array_equal(plain(same, Call(raw.dtype, NOTHING, True, 3), spec)(raw), middle(raw.argmax(1), 3))


@pytest.mark.parametrize("engine", ENGINES)
def test_only_scores_that_count_have_to_be_finite(tmp_path: Path, engine: str) -> None:
    network = loaded(identity_bundle(tmp_path, engine), engine=engine, precision="fp32").network(
        Call(np.dtype(np.float32), NOTHING, labels=True, margin=4)
    )
    raw = noise(32)
    raw[1, 2, 4, 27] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        network(raw)


@pytest.mark.parametrize("engine", OF_TORCH)
def test_a_spec_that_promises_another_shape_is_refused(tmp_path: Path, engine: str) -> None:
    _, folder = unet_bundle(tmp_path, depth=3, changes={"patch": {"shrink": 4, "multiple": 8}})
    network = loaded(folder, engine=engine, precision="fp32").network(Call(np.dtype(np.float32), NOTHING, True, 48))
    with pytest.raises(ModelError, match=r"promises \(2, 2, 28, 28\)"):
        network(noise(128))
