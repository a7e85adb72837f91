"""The bundled model does its work on country it has never seen, and more than colour alone could do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import tilesseg
from tilesseg.models.spec import ModelSpec, read_spec
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of
from tilesseg.training.synthetic_landscape import BANDS, CLASSES, Landscape, landscape

BUNDLE = Path(tilesseg.__file__).parent / "bundles" / "landscape"
SEEDS = (1, 5)
"""Training has the seeds from 1000 (`workflows/training/landscape.py`)."""


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return read_spec(BUNDLE / "model.yaml")


@pytest.fixture(scope="module")
def scenes() -> list[Landscape]:
    return [landscape((1024, 1024), seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def network(spec: ModelSpec) -> UNet:
    assert spec.unet is not None
    network = UNet(len(spec.bands), spec.score_channels, spec.unet)
    network.load_state_dict(load_file(BUNDLE / "weights.safetensors"), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def by_network(spec: ModelSpec, network: UNet, scenes: list[Landscape]) -> list[float]:
    with torch.inference_mode():
        masks = [network(torch.from_numpy(seen(scene, spec)[None]))[0].argmax(0).numpy() for scene in scenes]
    return [mean_iou(mask, scene) for mask, scene in zip(masks, scenes, strict=True)]


def seen(scene: Landscape, spec: ModelSpec) -> NDArray[np.float32]:
    return spec.normalisation().apply(np.where(scene.valid, scene.bands, spec.fill))


def mean_iou(mask: NDArray[Any], scene: Landscape) -> float:
    """Mean over the classes of intersection ÷ union, over the valid pixels."""
    found, truth = mask[scene.valid], scene.labels[scene.valid]
    classes = range(len(CLASSES))
    return float(np.mean([((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in classes]))


def by_colour(spec: ModelSpec, scenes: list[Landscape]) -> list[NDArray[Any]]:
    """What colour can do: multinomial logistic regression, squares included, fitted to these very scenes."""

    def features(pixels: NDArray[np.float32]) -> torch.Tensor:
        x = torch.from_numpy(pixels)
        i, j = np.triu_indices(len(x))
        return torch.cat([x, x[i] * x[j]]).T

    picked = [(seen(scene, spec)[:, scene.valid][:, ::41], scene.labels[scene.valid][::41]) for scene in scenes]
    x = features(np.concatenate([pixels for pixels, _ in picked], axis=1))
    truth = torch.from_numpy(np.concatenate([labels for _, labels in picked])).long()
    torch.manual_seed(0)
    linear = torch.nn.Linear(x.shape[1], len(CLASSES))
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(linear(x), truth)
        value.backward()
        return value

    optimiser.step(loss)
    with torch.inference_mode():
        return [
            linear(features(seen(s, spec).reshape(len(BANDS), -1))).argmax(1).reshape(s.labels.shape).numpy()
            for s in scenes
        ]


def test_the_bundle_is_small_whole_and_free(spec: ModelSpec) -> None:
    weights = BUNDLE / "weights.safetensors"
    assert spec.weights is not None
    assert spec.weights.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < 1_000_000
    assert spec.licence == "Apache-2.0"


def test_the_bundle_says_what_it_is(spec: ModelSpec) -> None:
    assert spec.bands == BANDS
    assert tuple(c.name for c in spec.classes) == CLASSES
    assert len({c.colour for c in spec.classes}) == len(CLASSES)
    assert (spec.dtype, spec.resolution) == ("uint16", 10.0)


def test_the_margin_covers_the_reach_and_leaves_a_round_core(spec: ModelSpec) -> None:
    assert spec.unet is not None
    assert spec.margin is not None
    assert spec.patch.preferred is not None
    assert spec.margin == margin_of(spec.unet)
    assert spec.patch.preferred - 2 * spec.margin == 1024


def test_the_range_said_is_the_range_seen(spec: ModelSpec, scenes: list[Landscape]) -> None:
    for scene in scenes:
        low, high = np.percentile(scene.bands[:, scene.valid], [2, 98], axis=1)
        assert spec.input_range[0] * 0.7 < low.min() < spec.input_range[0] * 1.5
        assert spec.input_range[1] * 0.7 < high.max() < spec.input_range[1] * 1.3


def test_pixels_beyond_the_margin_do_not_matter(spec: ModelSpec, network: UNet) -> None:
    """A cell of the stride multiple, in the network as trained; this is what `crop` relies on."""
    assert spec.margin is not None
    torch.manual_seed(0)
    margin, step = spec.margin, spec.patch.stride_multiple
    patch = torch.randn(1, len(BANDS), 2 * margin + step, 2 * margin + step)
    wide = torch.nn.functional.pad(patch, (step,) * 4, value=9.0)
    core, wide_core = slice(margin, margin + step), slice(margin + step, margin + 2 * step)
    with torch.inference_mode():
        assert torch.allclose(network(patch)[..., core, core], network(wide)[..., wide_core, wide_core], atol=1e-4)


def test_it_maps_unseen_country(by_network: list[float]) -> None:
    assert min(by_network) >= 0.85


def test_it_sees_more_than_colour(spec: ModelSpec, scenes: list[Landscape], by_network: list[float]) -> None:
    masks = by_colour(spec, scenes)
    for mask, scene, reached in zip(masks, scenes, by_network, strict=True):
        assert reached >= mean_iou(mask, scene) + 0.10
