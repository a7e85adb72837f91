"""Laws of networks to be trained: the seed decides, and a start from a bundle continues exactly that network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tilesseg.errors import JobError, ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.load import load_model
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.training.networks import build_network, check_start, shape_network, start_bundle
from tilesseg.training.train_spec import NetworkOptions, TrainSpec, parse_train_spec
from tilesseg.training.trained_bundle import write_bundle

CLASSES = [{"name": "dark", "colour": "black"}, {"name": "bright", "colour": "white"}]


def train_spec(**changes: Any) -> TrainSpec:
    data = {"name": "tiny", "licence": "CC0-1.0", "classes": CLASSES, "output": {"dir": "runs/tiny"}}
    return parse_train_spec({**data, "data": {"scenes": "a.tif", "labels": "b.tif"}, **changes}, where="test")


def options(**changes: Any) -> NetworkOptions:
    return NetworkOptions.model_validate({"depth": 1, "width": 4, **changes})


def spec_of(network: NetworkOptions, **changes: Any) -> ModelSpec:
    shape = shape_network(network, bands=2, scores=2)
    data = {
        "name": "tiny", "engine": shape.engine, "unet": shape.unet, "bands": ["a", "b"], "input_range": [0, 255],
        "normalise": {"kind": "none"}, "patch": shape.patch, "margin": shape.margin, "classes": CLASSES,
    }  # fmt: skip
    return parse_spec({**data, **changes}, where="test")


def test_the_seed_decides_the_parameters_and_leaves_the_callers_random_numbers_alone() -> None:
    spec = spec_of(options())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two, three = (build_network(spec, options(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], three["head.weight"])


def test_the_shape_is_the_one_asked_for() -> None:
    network = shape_network(
        options(depth=3, up="bilinear", convolutions="valid", skips="add", dropout=0.5), bands=2, scores=2
    )
    assert network.unet is not None and network.unet.model_dump() == {
        "depth": 3, "width": 4, "batch_norm": True, "up": "bilinear", "convolutions": "valid", "skips": "add",
    }  # fmt: skip
    assert (network.engine, network.patch.stride_multiple) == ("unet", 8) and network.patch.shrink > 0


def test_a_bundle_is_what_its_spec_says_and_computes_what_was_written(tmp_path: Path) -> None:
    asked = options(dropout=0.5, skips="add")
    spec = spec_of(asked)
    network = build_network(spec, asked, 3)
    written = write_bundle(tmp_path / "bundle", spec, network)
    assert network.training  # left as it was
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["model.yaml", "weights.safetensors"]
    bundle = find_bundle(tmp_path / "bundle")
    assert bundle.spec == written
    patch = torch.rand(1, 2, 32, 32)
    with torch.inference_mode():
        expected = network.eval()(patch).softmax(1).numpy()
    found = load_model(bundle, device="cpu", precision="fp32", engine="torch").predict(patch.numpy())
    assert abs(found - expected).max() < 1e-5


def test_a_bundle_is_written_over_an_old_one(tmp_path: Path) -> None:
    spec = spec_of(options())
    for seed in (0, 1):
        written = write_bundle(tmp_path, spec, build_network(spec, options(), seed))
        assert find_bundle(tmp_path).spec == written
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    spec = spec_of(options())
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match=r"cannot write the bundle .*; choose another folder") as refused:
        write_bundle(tmp_path / "file", spec, build_network(spec, options(), 0))
    assert "\n" not in str(refused.value)


def test_a_start_is_the_bundle_s_network_to_the_last_bit(tmp_path: Path) -> None:
    spec = spec_of(options(up="bilinear"))
    write_bundle(tmp_path, spec, build_network(spec, options(up="bilinear"), 4))
    asked = NetworkOptions(start=str(tmp_path), dropout=0.25)
    found = build_network(spec_of(asked), asked, 9)
    stored = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(values, stored[name]) for name, values in found.state_dict().items())
    assert shape_network(asked, bands=2, scores=2).unet == spec.unet and found.training


def test_a_start_for_other_bands_or_classes_is_refused_with_both_values(tmp_path: Path) -> None:
    started = spec_of(options())
    asked = train_spec(network={"start": "models/old"})
    check_start(asked, started, bands=("a", "b"))
    with pytest.raises(JobError, match="models/old has bands a, b, the training red; read the same bands"):
        check_start(asked, started, bands=("red",))
    other = train_spec(network={"start": "models/old"}, classes=[*CLASSES, {"name": "cloud", "colour": "grey"}])
    with pytest.raises(JobError, match="has classes dark, bright, the training dark, bright, cloud; name the same"):
        check_start(other, started, bands=("a", "b"))
    other = train_spec(network={"start": "models/old"}, decision="threshold")
    with pytest.raises(JobError, match="has decision argmax, the training threshold; write decision: argmax"):
        check_start(other, started, bands=("a", "b"))


def test_a_start_from_another_engine_or_from_damage_is_refused(tmp_path: Path) -> None:
    spec = spec_of(options())
    write_bundle(tmp_path, spec, build_network(spec, options(), 0))
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match="has sha256"):
        start_bundle(NetworkOptions(start=str(tmp_path)))
    text = (tmp_path / "model.yaml").read_text()
    (tmp_path / "model.yaml").write_text(
        text.replace("engine: unet", "engine: onnx").replace("unet:\n  depth: 1\n  width: 4\n", "")
    )
    with pytest.raises(JobError, match="has engine onnx, and training continues engine unet alone"):
        start_bundle(NetworkOptions(start=str(tmp_path)))
