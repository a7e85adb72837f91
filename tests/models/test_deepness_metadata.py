"""ONNX files with metadata of the QGIS plugin Deepness: models as they are, or refused with what is missing."""

from __future__ import annotations

import pytest
from test_new_spec import deepness
from test_onnx_engine import field as proto
from test_onnx_engine import network as onnx_network
from test_onnx_engine import node, tensor, value_info

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.elsewhere.onnx_header import read_header


def spec_of(tmp_path, **changes):
    (tmp_path / "roads.onnx").write_bytes(deepness(**changes))
    return find_bundle(tmp_path / "roads.onnx").spec


def test_a_file_with_complete_metadata_is_a_model(tmp_path, capsys):
    spec = spec_of(tmp_path)
    assert (spec.engine, spec.name, spec.patch.fixed, spec.patch.stride_multiple) == ("onnx", "roads", 512, 32)
    assert [one.name for one in spec.classes] == ["not road", "road"] and spec.resolution == 0.21
    assert spec.decision.threshold == 0.4 and spec.activation == "none" and spec.input_range == (0, 255)
    assert spec.normalise.mean == pytest.approx((123.675, 116.28, 103.53))
    assert spec.bands == ("band 1", "band 2", "band 3")  # the plugin names none
    pytest.importorskip("onnxruntime")
    assert run(["models", "check", str(tmp_path / "roads.onnx")]) == 0
    assert "onnxruntime: does what its spec says" in capsys.readouterr().out


def test_the_newer_keys_of_the_plugin_are_read(tmp_path):
    spec = spec_of(tmp_path, class_names=[{"0": "road"}], tile_size=None, tiles_size=64, seg_thresh=None)
    assert [one.name for one in spec.classes] == ["background", "road"]
    assert spec.patch.fixed == 64 and spec.decision.threshold == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tile_size": None}, r"do not state tiles_size; write a spec: tilesseg models new"),
        ({"tile_size": None, "class_names": None}, "do not state class_names, tiles_size"),
        ({"model_type": "Detector"}, "is a Detector of Deepness"),
        ({"class_names": ["a", "b", "c"]}, "name 2 classes"),
    ],
)
def test_metadata_that_leave_a_fact_open_are_refused_in_one_line(tmp_path, changes, words):
    with pytest.raises(ModelError, match=words) as caught:
        spec_of(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_a_spec_beside_the_file_comes_first_and_other_files_still_need_one(tmp_path):
    weights = tensor("w", [0.9, -0.5, 0.2], 1, 3, 1, 1)
    plain = onnx_network(
        [node("Conv", ["x", "w"], ["y"])], [value_info("x", 1, 3, 64, "v")], [value_info("y", 1, 1, 64, "v")], [weights]
    )
    (tmp_path / "plain.onnx").write_bytes(plain)
    with pytest.raises(ModelError, match="has no spec"):
        find_bundle(tmp_path / "plain.onnx")
    header = read_header(tmp_path / "plain.onnx")
    assert header.inputs == ((1, 3, 64, None),) and header.outputs == ((1, 1, 64, None),) and header.opset >= 7
    (tmp_path / "plain.onnx").write_bytes(plain + proto(14, proto(1, "a") + proto(2, "b")))
    assert read_header(tmp_path / "plain.onnx").metadata == {"a": "b"}
    spec = spec_of(tmp_path)
    (tmp_path / "roads.yaml").write_text(spec.model_copy(update={"name": "mine"}).to_yaml())
    assert find_bundle(tmp_path / "roads.onnx").spec.name == "mine"


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x3a\xff\xff\xff\x7f", b"\xff" * 40])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, data):
    (tmp_path / "roads.onnx").write_bytes(data)
    with pytest.raises(ModelError) as caught:
        find_bundle(tmp_path / "roads.onnx")
    assert "\n" not in str(caught.value)
