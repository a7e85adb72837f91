"""`tilesseg models new` and `check`: a spec from what a file says, and a line for what it does not."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
import yaml
from foreign_models import VARIANTS, save_network, write_model
from test_onnx_engine import field as proto
from test_onnx_engine import network as onnx_network
from test_onnx_engine import node, tensor, value_info

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.spec import parse_spec
from tilesseg.models.trial.model_check import check_model
from tilesseg.models.trial.new_spec import new_spec

pytest.importorskip("onnxruntime")


def made(tmp_path, name, kind, **names):
    path = save_network(VARIANTS[name], kind, tmp_path / ("net.ts" if kind == "torchscript" else "net.onnx"))
    return path, new_spec(path, **names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {"activation": "softmax"}),
        ("softmax-inside", {"activation": "none"}),
        ("one-score", {"activation": "sigmoid", "decision": {"kind": "threshold", "threshold": 0.5}}),
        ("sigmoid-inside", {"activation": "none", "decision": {"kind": "threshold", "threshold": 0.5}}),
        ("foreground-boundary", {"activation": "none", "decision": {"kind": "threshold", "background": True}}),
        ("unpadded", {"patch": {"shrink": 4}}),
        ("fixed", {"patch": {"fixed": 64}}),
        ("stride-2", {"patch": {"multiple": 16, "stride_multiple": 16}}),
    ],
)
@pytest.mark.parametrize("kind", [pytest.param("torchscript", marks=pytest.mark.slow), "onnx"])
def test_a_new_spec_holds_what_the_file_says_and_names_what_it_does_not(tmp_path, name, kind, expected):
    path, spec = made(tmp_path, name, kind)
    data = yaml.safe_load(spec.text)
    assert {key: data[key] for key in expected} == expected
    assert data["weights"] == {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert data["bands"] == ["band 1", "band 2", "band 3"] and data["engine"] == kind
    assert spec.gaps == ("input_range", "normalise") and "licence" not in data
    with pytest.raises(ModelError, match="input_range is required"):
        parse_spec(data, where="new")
    stated = {"input_range": [0, 255], "normalise": {"kind": "range", "low": 0, "high": 255}}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(data | stated))
    bundle = find_bundle(tmp_path)
    assert bundle.spec.licence == "unknown" and check_model(tmp_path).usable


@pytest.mark.parametrize(
    ("name", "words"),
    [("argmax", "gives labels"), ("quarter", "interpolate"), ("channels-last", "channels last"), ("uint8", "uint8")],
)
def test_a_file_that_no_spec_would_help_is_refused(tmp_path, name, words):
    with pytest.raises(ModelError, match=words):
        made(tmp_path, name, "onnx")


def deepness(**changes):
    """A sigmoid of the first of three bands, with metadata as Deepness writes them."""
    weights = tensor("w", [0.9, -0.5, 0.2], 1, 3, 1, 1)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["y"])]
    data = onnx_network(nodes, [value_info("x", "n", 3, "h", "v")], [value_info("y", "n", 1, "h", "v")], [weights])
    said = {
        "model_type": "Segmentor",
        "class_names": {"0": "not road", "1": "road"},
        "resolution": 21.0,
        "tile_size": 512,
        "seg_thresh": 0.4,
        "standardization_mean": [0.485, 0.456, 0.406],
        "standardization_std": [0.229, 0.224, 0.225],
    } | changes
    props = [proto(1, key) + proto(2, json.dumps(value)) for key, value in said.items()]
    return data + b"".join(proto(14, prop) for prop in props)


def test_metadata_of_deepness_complete_a_spec(tmp_path):
    (tmp_path / "roads.onnx").write_bytes(deepness())
    spec = new_spec(tmp_path / "roads.onnx", bands=["red", "green", "blue"])
    assert spec.gaps == spec.checks == ()
    (tmp_path / "model.yaml").write_text(spec.text)
    found = find_bundle(tmp_path / "roads.onnx").spec
    assert [one.name for one in found.classes] == ["not road", "road"] and found.resolution == 0.21
    assert found.decision.threshold == 0.4 and found.activation == "none" and found.patch.preferred == 512
    assert found.normalise.mean == pytest.approx((123.675, 116.28, 103.53)) and found.input_range == (0, 255)


def test_names_of_classes_that_do_not_fit_the_scores_are_refused(tmp_path):
    (tmp_path / "roads.onnx").write_bytes(deepness(class_names={"0": "a", "1": "b", "2": "c"}))
    with pytest.raises(ModelError, match="name 2 classes"):
        new_spec(tmp_path / "roads.onnx")
    with pytest.raises(ModelError, match="name 3 bands"):
        new_spec(tmp_path / "roads.onnx", bands=["red"])


def test_the_commands_write_a_spec_once_and_check_it(tmp_path, capsys):
    (tmp_path / "roads.onnx").write_bytes(deepness())
    arguments = ["models", "new", str(tmp_path / "roads.onnx"), "--bands", "red,green,blue"]
    assert run(arguments) == 0 and "is written" in capsys.readouterr().out
    assert run(arguments) == 1 and "exists already" in capsys.readouterr().err
    assert run([*arguments, "--out", str(tmp_path / "other" / "model.yaml")]) == 1
    assert "lies beside its weights" in capsys.readouterr().err
    assert run(["models", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime: does what its spec says" in out and "licence unknown" in out
    text = (tmp_path / "model.yaml").read_text().replace("activation: none", "activation: sigmoid")
    (tmp_path / "model.yaml").write_text(text)
    assert run(["models", "check", str(tmp_path)]) == 1
    assert "onnxruntime: refused: " in capsys.readouterr().out
    assert run(["models", "--json"]) == 0 and json.loads(capsys.readouterr().out)


def test_a_check_says_what_is_wrong_with_a_margin_and_knows_our_unet(tmp_path):
    small, seeing, ours = (
        check_model(write_model(tmp_path / "small", "margin-0", "onnx")),
        check_model(write_model(tmp_path / "seeing", "pooled-margin", "onnx")),
        check_model("landscape"),
    )
    assert not small.usable and "set margin: 3" in small.crop
    assert seeing.usable and "auto takes gaussian" in seeing.crop and "[sees-whole-patch]" in seeing.doubts[0]
    assert ours.usable and set(ours.refusals.values()) == {None}


FOREIGN = {
    "net.keras": (b"PK\x03\x04 any", "tf2onnx"),
    "net.h5": (b"\x89HDF\r\n\x1a\n", "tf2onnx"),
    "net.tflite": (b"\x1c\0\0\0TFL3", "tf2onnx"),
    "frozen.pb": (b"\x0a\x10", "tf2onnx"),
    "net.safetensors": (b"\x08\0\0\0\0\0\0\0{}      ", "torch.jit.save"),
    "net.dlpk": (b"PK\x03\x04", "ArcGIS"),
    "net.pth": (b"\x80\x02", "torch.jit.save"),
    "net.txt": (b"hello", "neither TorchScript"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_libraries_are_told_the_way_to_a_network(tmp_path, name):
    data, words = FOREIGN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=words) as caught:
        new_spec(tmp_path / name)
    if name != "net.txt":
        with pytest.raises(ModelError, match=words):
            find_bundle(tmp_path / name)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt"])
def test_a_pickled_checkpoint_is_told_how_it_is_exported(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    for look in (find_bundle, new_spec):
        with pytest.raises(ModelError, match=r"pickled checkpoint.*torch\.jit\.save"):
            look(path)
    assert "load_from_checkpoint" in str(_refusal(path)) or suffix != ".ckpt"


def _refusal(path):
    with pytest.raises(ModelError) as caught:
        find_bundle(path)
    return caught.value


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["saved_model.pb"], "SavedModel.*--saved-model"),
        (["config.json", "model.safetensors"], "Hugging Face.*from_pretrained"),
    ],
)
def test_folders_of_other_libraries_are_told_the_way_to_a_network(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=words):
        find_bundle(tmp_path)


def test_a_weights_file_of_another_library_is_refused_with_a_spec_too(tmp_path):
    folder = write_model(tmp_path, "plain", "onnx")
    (folder / "net.onnx").write_bytes(b"\x89HDF\r\n\x1a\n")
    data = yaml.safe_load((folder / "model.yaml").read_text())
    data["weights"]["sha256"] = hashlib.sha256((folder / "net.onnx").read_bytes()).hexdigest()
    (folder / "model.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ModelError, match="Keras"):
        check_model(folder)
