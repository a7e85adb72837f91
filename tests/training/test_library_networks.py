"""Laws of networks of MONAI: what the spec states is found by trial, and what is trained is served without MONAI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import spec_of

from tilesseg.errors import JobError
from tilesseg.models.load import load_model
from tilesseg.models.trial.model_check import check_model
from tilesseg.training.library_networks import build_library_network, export_network, shape_library_network
from tilesseg.training.networks import build_network, shape_network
from tilesseg.training.train_spec import NetworkOptions
from tilesseg.training.trained_bundle import write_bundle

pytest.importorskip("monai")
SMALL = {"channels": [4, 8, 8], "strides": [2, 2], "norm": "batch"}


def library(name: str = "UNet", **arguments: Any) -> NetworkOptions:
    return NetworkOptions.model_validate({"library": "monai", "class": name, "arguments": arguments})


def test_what_is_trained_is_served_as_its_spec_says_without_monai(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = library(**SMALL)
    spec = spec_of(asked)
    assert (spec.engine, spec.patch.stride_multiple, spec.patch.multiple, spec.patch.fixed) == ("exported", 4, 4, None)
    assert spec.margin is not None
    network = build_network(spec, asked, 1)
    again = build_network(spec, asked, 1)
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), again.parameters(), strict=True))
    assert network.training
    with torch.no_grad():
        network(torch.rand(2, 2, 32, 32))  # moves the running statistics
    write_bundle(tmp_path, spec, network)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.yaml", "network.pt2"]
    checked = check_model(tmp_path)
    assert checked.usable and not checked.doubts, checked  # and the margin is true, as far as a trial shows
    patches = torch.rand(3, 2, 36, 36)
    monkeypatch.setitem(sys.modules, "monai", None)  # an import of it fails
    found = load_model(tmp_path, device="cpu", precision="fp32").predict(patches.numpy())
    with torch.inference_mode():
        expected = network.eval()(patches).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_layer_that_sees_the_whole_patch_leaves_the_margin_open() -> None:
    shape = shape_network(library(channels=[4, 8], strides=[2]), bands=1, scores=3)  # instance normalisation
    assert shape.margin is None and shape.patch.stride_multiple == 2


def test_a_network_that_takes_one_size_is_served_at_that_size() -> None:
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64 * 64, 64 * 64), torch.nn.Unflatten(1, (1, 64, 64))
    )
    found = shape_library_network(network, name="Dense", bands=1, scores=1)
    assert found.patch.fixed == 64 and found.margin is None
    assert export_network(network, bands=1, sizes=found.patch)[1].fixed == 64


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (library("NoSuchNet"), "network.class NoSuchNet is no network of monai.networks.nets; write BasicUNet"),
        (library("UNet", channels=[4, 8]), "network.class UNet cannot be built: .*strides.*; correct network.arg"),
        (library("UNet", **SMALL, in_channels=3), "network.arguments has in_channels, which follow from bands"),
        (
            library("UNet", channels=[4], strides=[]),
            "network.class UNet cannot be built: .*; correct network.arguments",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(asked: NetworkOptions, message: str) -> None:
    with pytest.raises(JobError, match=message) as refused:
        build_library_network(asked, bands=2, scores=2)
    assert "\n" not in str(refused.value)


class Twice(torch.nn.Module):
    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.cat([patches, patches], 1)[..., ::2, ::2]


def test_scores_of_another_size_or_number_are_refused_with_both() -> None:
    with pytest.raises(JobError, match=r"gives \(2, 4, 8, 8\) for patches \(2, 2, 16, 16\), and training needs \(2, 3"):
        shape_library_network(Twice(), name="Twice", bands=2, scores=3)


def test_a_library_that_is_missing_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks", None)
    with pytest.raises(JobError, match=r"monai, which is not installed .*; pip install 'tilesseg\[monai\]'"):
        build_library_network(library(**SMALL), bands=1, scores=2)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"library": "monai", "class": "UNet", "dropout": 0.5}, "network.dropout 0.5 is the U-Net's; write it into"),
        ({"arguments": {"norm": "batch"}}, "network.arguments are those of network.class"),
    ],
)
def test_options_of_another_network_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkOptions.model_validate(section)


DYNAMIC = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "norm_name": "batch"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "stride"), [
    ("BasicUNet", {"features": [4, 4, 8, 8, 8, 4], "norm": "batch"}, 16),
    ("SegResNet", {"init_filters": 8, "norm": "batch"}, 8),
    ("DynUNet", DYNAMIC, 4),
])  # fmt: skip
def test_common_networks_are_measured_and_their_bundles_true(
    tmp_path: Path, name: str, arguments: dict[str, Any], stride: int
) -> None:
    asked = library(name, **arguments)
    spec = spec_of(asked)
    assert spec.patch.stride_multiple == stride and spec.margin
    write_bundle(tmp_path, spec, build_network(spec, asked, 0))
    assert check_model(tmp_path).usable
