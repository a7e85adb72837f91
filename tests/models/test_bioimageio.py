"""Descriptions of bioimage.io, formats 0.4 and 0.5: read at their word, or refused in one line."""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle, list_models
from tilesseg.models.load import load_model
from tilesseg.models.network import Call
from tilesseg.models.spec import ModelSpec, PatchSizes
from tilesseg.planning import job as jobs
from tilesseg.planning.machine import Compute
from tilesseg.planning.tile_layout import choose_layout
from tilesseg.planning.value_range import SceneValues, check_range, scene_statistics
from tilesseg.raster.labels import decide


def new(**changes: Any) -> dict[str, Any]:
    """A description of format 0.5: sides of 64 + 16 k, one score after a sigmoid."""
    space = [{"type": "space", "id": side, "size": {"min": 64, "step": 16}} for side in "yx"]
    followed = [{"type": "space", "id": s, "size": {"tensor_id": "raw", "axis_id": s}, "halo": 8} for s in "yx"]
    data: dict[str, Any] = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "cells",
        "description": "finds cells",
        "license": "MIT",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["dapi"]}, *space],
                "data": {"type": "uint16", "range": [0, 4095]},
                "preprocessing": [],
            }
        ],
        "outputs": [
            {
                "id": "seen",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["cell"]}, *followed],
                "postprocessing": [{"id": "sigmoid"}],
            }
        ],
        "weights": {"torchscript": {"source": "weights.pt"}},
    }
    return data | changes


def old(**changes: Any) -> dict[str, Any]:
    """The same in format 0.4."""
    data: dict[str, Any] = {
        "format_version": "0.4.10",
        "type": "model",
        "name": "cells",
        "description": "finds cells",
        "license": "MIT",
        "inputs": [
            {
                "name": "dapi",
                "axes": "bcyx",
                "data_type": "uint16",
                "data_range": [0, 4095],
                "shape": {"min": [1, 1, 64, 64], "step": [0, 0, 16, 16]},
                "preprocessing": [],
            }
        ],
        "outputs": [
            {
                "name": "cell",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "dapi", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "halo": [0, 0, 8, 8],
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "test_inputs": ["test_input.npy"],
        "test_outputs": ["test_output.npy"],
        "weights": {"torchscript": {"source": "weights.pt"}},
    }
    return data | changes


def channels(count: int) -> list[str]:
    return [f"channel{k}" for k in range(count)]


def write(folder: Path, data: dict[str, Any], *, scores: int = 1, name: str = "rdf.yaml") -> Path:
    """The folder of a description with TorchScript weights of a network that looks at one pixel."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(yaml.safe_dump(data), encoding="utf-8")
    network = torch.nn.Conv2d(1, scores, 1).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), folder / "weights.pt")
    return folder


def spec_of(folder: Path, data: dict[str, Any]) -> ModelSpec:
    return find_bundle(write(folder, data)).spec


def refusal(folder: Path, data: dict[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        find_bundle(write(folder, data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_steps(data: dict[str, Any], *steps: dict[str, Any], bands: int = 1) -> dict[str, Any]:
    data["inputs"][0]["preprocessing"] = list(steps)
    if bands > 1 and isinstance(data["inputs"][0]["axes"], list):
        data["inputs"][0]["axes"][1]["channel_names"] = channels(bands)
    return data


def test_a_description_becomes_a_spec(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "new", new())
    assert spec.engine == "torchscript" and spec.licence == "MIT" and spec.bands == ("dapi",)
    assert (spec.dtype, spec.input_range, spec.mpp, spec.margin) == ("uint16", (0, 4095), None, None)
    assert spec.patch == PatchSizes(offset=64, multiple=16, stride_multiple=16, halo=8)
    assert (spec.activation, spec.decision.threshold) == ("sigmoid", 0.5)
    assert [one.name for one in spec.classes] == ["background", "cell"]


def test_both_formats_of_one_network_give_one_spec(tmp_path: Path) -> None:
    newer, older = (find_bundle(write(tmp_path / k, d)).spec for k, d in (("new", new()), ("old", old())))
    assert newer.model_copy(update={"weights": None}) == older.model_copy(update={"weights": None})


def test_an_output_of_new_channels_has_twice_its_offset_of_them(tmp_path: Path) -> None:
    data = old()
    data["outputs"][0]["shape"] |= {"scale": [1, None, 1, 1], "offset": [0, 1.5, 0, 0]}
    classes = spec_of(tmp_path / "cells", data).classes
    assert [one.name for one in classes] == ["background", "cell 1", "cell 2", "cell 3"]


def paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every part of a description is."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [one for key in keys for one in [(*path, key), *paths(data[key], (*path, key))]]


JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    [1, "x"],
    {},
    {"min": 1},
    {"step": 0, "min": 0},
    10**9,
]


@settings(max_examples=400)
@given(data=st.data(), form=st.sampled_from([new, old]))
def test_whatever_a_description_says_it_is_read_or_refused_in_one_line(data: st.DataObject, form: Any) -> None:
    described = form()
    described["inputs"][0]["preprocessing"] = [{"id": "clip", "name": "clip", "kwargs": {"min": 1.0, "max": 2.0}}]
    *parents, last = data.draw(st.sampled_from(paths(described)))
    place: Any = described
    for key in parents:
        place = place[key]
    place[last] = data.draw(st.sampled_from(JUNK))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rdf.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
        (Path(folder) / "weights.pt").write_bytes(b"weights")
        try:
            find_bundle(folder)
        except ModelError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["rdf.yaml", "bioimageio.yaml"])
def test_the_folder_the_file_and_the_weights_name_the_same_bundle(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "cells", new(), name=name)
    found = {find_bundle(path).sha256 for path in (folder, folder / name, folder / "weights.pt")}
    assert len(found) == 1


def test_a_model_yaml_in_the_folder_comes_first(tmp_path: Path) -> None:
    folder = write(tmp_path / "cells", new())
    text = find_bundle(folder).spec.model_copy(update={"name": "mine"}).to_yaml()
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    assert find_bundle(folder).spec.name == "mine"


def test_a_folder_on_the_search_path_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cells", new())
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path))
    row = next(row for row in list_models() if row.name == "cells")
    assert row.problem is None and row.spec is not None and row.spec.name == "cells"
    assert find_bundle("cells").spec == row.spec


def test_it_loads_and_predicts(tmp_path: Path) -> None:
    model = load_model(write(tmp_path / "cells", new()), device="cpu", threads=1)
    assert model.predict(np.zeros((2, 1, 80, 80), np.float32)).shape == (2, 1, 80, 80)


def linear(gain: Any, offset: Any) -> dict[str, Any]:
    arguments = {"gain": gain, "offset": offset}
    return {"id": "scale_linear", "kwargs": arguments | ({"axis": "channel"} if isinstance(gain, list) else {})}


def step(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "kwargs": arguments}


def published(values: np.ndarray, steps: list[dict[str, Any]]) -> np.ndarray:
    """What the documentation of bioimageio.spec says the steps do to `values (channel, y, x)`, in float64."""
    x = values.astype(np.float64)
    for one in steps:
        k = dict(one.get("kwargs", {}))
        eps = float(k.get("eps", 1e-6))
        over = tuple(["channel", "y", "x"].index(axis) for axis in k.get("axes") or ["channel", "y", "x"])
        column = {key: np.reshape(value, (-1, 1, 1)) for key, value in k.items() if isinstance(value, list | float)}
        match one["id"]:
            case "zero_mean_unit_variance":
                x = (x - x.mean(over, keepdims=True)) / (x.std(over, keepdims=True) + eps)
            case "fixed_zero_mean_unit_variance":
                x = (x - column["mean"]) / column["std"]
            case "scale_range":
                ends = k.get("min_percentile", 0), k.get("max_percentile", 100)
                low, high = np.percentile(x, ends, axis=over, keepdims=True)
                x = (x - low) / (high - low + eps)
            case "scale_linear":
                x = x * column["gain"] + column["offset"]
            case "clip":
                x = np.clip(x, k.get("min"), k.get("max"))
            case "sigmoid":
                x = 1 / (1 + np.exp(-x))
            case "binarize":
                x = (x > k["threshold"]).astype(np.float64)
    return x


PLANE = {"axes": ["y", "x"]}
CHAINS = {
    "nothing": [],
    "per channel": [step("zero_mean_unit_variance", **PLANE)],
    "all channels together": [step("zero_mean_unit_variance", eps=0.1)],
    "eps as text": [step("zero_mean_unit_variance", eps="1e-2", **PLANE)],
    "fixed": [step("fixed_zero_mean_unit_variance", mean=[100.0, 200.0], std=[10.0, 30.0], axis="channel")],
    "one fixed for all": [step("fixed_zero_mean_unit_variance", mean=100.0, std=30.0)],
    "percentiles": [step("scale_range", min_percentile=5.0, max_percentile=99.8, **PLANE)],
    "range and clip": [step("scale_range", eps=1e-3), step("clip", min=0.1, max=0.9)],
    "clip at one end": [step("scale_range", **PLANE), step("clip", max=0.5)],
    "linear": [linear(2.0, 3.0)],
    "linear per channel": [linear([2.0, 0.5], [3.0, -1.0]), linear(0.1, 1.0)],
    "turned round": [linear(-1.0, 4095.0)],
    "linear before statistics": [linear(0.001, -1.0), step("zero_mean_unit_variance", eps=0.05, **PLANE)],
    "clip before linear": [step("clip", min=50.0, max=300.0), linear(0.01, -1.0)],
    "clip twice": [step("clip", min=50.0, max=300.0), step("clip", min=100.0)],
    "sigmoid": [step("zero_mean_unit_variance", **PLANE), step("sigmoid")],
    "binarize": [linear(0.1, 0.0), step("binarize", threshold=15.0)],
    "a word about floats": [step("ensure_dtype", dtype="float32"), linear(2.0, 0.0)],
    "its own type": [step("ensure_dtype", dtype="uint16"), linear(2.0, 0.0)],
}


@pytest.mark.parametrize("steps", CHAINS.values(), ids=CHAINS)
def test_preprocessing_does_what_is_published(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    spec = spec_of(tmp_path / "cells", with_steps(new(), *copy.deepcopy(steps), bands=2))
    values = np.random.default_rng(0).gamma(2, [[[60.0]], [[110.0]]], (2, 40, 50)).astype(np.uint16)
    statistics = scene_statistics(values.reshape(2, -1).astype(np.float64), spec)
    found = spec.normalisation(*statistics).apply(values)
    np.testing.assert_allclose(found, published(values, steps), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mode", ["per_sample", "per_dataset"])
def test_a_mode_of_the_older_format_is_one_statistic_of_the_scene(tmp_path: Path, mode: str) -> None:
    steps = {"name": "zero_mean_unit_variance", "kwargs": {"mode": mode, "axes": "xy"}}
    rule = spec_of(tmp_path / "cells", with_steps(old(), steps)).normalise
    assert (rule.kind, rule.eps, rule.joint) == ("scene_mean_std", 1e-6, False)


def test_fixed_numbers_of_the_older_format_add_eps(tmp_path: Path) -> None:
    arguments = {"mode": "fixed", "axes": "xy", "mean": 100.0, "std": 10.0, "eps": 0.1}
    rule = spec_of(
        tmp_path / "cells", with_steps(old(), {"name": "zero_mean_unit_variance", "kwargs": arguments})
    ).normalise
    assert rule.kind == "mean_std" and rule.mean == pytest.approx((100,)) and rule.std == pytest.approx((10.1,))


REFUSED_STEPS = {
    "ensure_dtype": (
        [linear(2.0, 0.0), step("ensure_dtype", dtype="uint8")],
        "ensure_dtype: it rounds values to uint8",
    ),
    "unknown": ([step("histogram_match")], "histogram_match is not known"),
    "two statistics": (
        [step("scale_range"), step("zero_mean_unit_variance")],
        "zero_mean_unit_variance: it comes after",
    ),
    "after statistics": ([step("scale_range"), linear(2.0, -1.0)], "scale_linear: it comes after"),
    "clip first": ([step("clip", min=0.0, max=9.0), step("scale_range")], "scale_range: it comes after clip"),
    "clip by percentile": ([step("clip", min_percentile=1.0)], "clip: its argument min_percentile: 1.0"),
    "after sigmoid": ([step("sigmoid"), step("clip", min=0.0)], "clip: it comes after sigmoid"),
    "one axis": ([step("zero_mean_unit_variance", axes=["x"])], "its axes are ['x']"),
    "other tensor": (
        [step("scale_range", reference_tensor="other")],
        "scale_range: its percentiles are those of other",
    ),
    "too few": ([linear([1.0, 2.0, 3.0], 0.0)], "scale_linear: it has 3 numbers for 2 channels"),
    "per channel first": ([linear([1.0, 2.0], 0.0), step("scale_range")], "preprocessing scales channels by 1, 2"),
    "no threshold": ([step("binarize")], "binarize has no threshold"),
    "empty clip": ([step("clip", min=2.0, max=1.0)], "clip goes from low to high"),
}


@pytest.mark.parametrize(("steps", "message"), REFUSED_STEPS.values(), ids=REFUSED_STEPS)
def test_a_step_that_cannot_be_represented_is_refused(
    tmp_path: Path, steps: list[dict[str, Any]], message: str
) -> None:
    assert message in refusal(tmp_path / "cells", with_steps(new(), *copy.deepcopy(steps), bands=2))


def ends_with(*steps: dict[str, Any], names: tuple[str, ...] = ("cell",), **facts: Any) -> dict[str, Any]:
    data = new()
    data["outputs"][0]["axes"][1]["channel_names"] = list(names)
    return data | {"outputs": [data["outputs"][0] | {"postprocessing": list(steps), **facts}]}


def test_several_scores_are_classes_and_the_highest_wins(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "cells", ends_with(step("softmax", axis="channel"), names=("background", "cell", "edge")))
    assert (spec.activation, spec.decision.kind) == ("softmax", "argmax")
    assert [one.name for one in spec.classes] == ["background", "cell", "edge"]
    assert len({one.colour for one in spec.classes}) == 3


def test_binarize_decides_above_its_threshold_and_not_at_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "cells", ends_with(step("sigmoid"), step("binarize", threshold=0.25)))
    assert spec.activation == "sigmoid" and spec.decision.threshold is not None
    assert np.float32(0.25) < np.float32(spec.decision.threshold) == np.nextafter(np.float32(0.25), np.float32(1))


@pytest.mark.parametrize("name", ["probability", "channel0", "background", "mask"])
def test_a_score_whose_name_says_nothing_is_of_the_foreground(tmp_path: Path, name: str) -> None:
    classes = spec_of(tmp_path / "cells", ends_with(step("sigmoid"), names=(name,))).classes
    assert [one.name for one in classes] == ["background", "foreground"]


def test_a_probability_needs_no_activation_where_its_range_or_its_example_says_so(tmp_path: Path) -> None:
    said = spec_of(tmp_path / "said", ends_with(data={"range": [0.0, 1.0]}))
    folder = tmp_path / "shown"
    folder.mkdir()
    np.save(folder / "out.npy", np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4))
    shown = spec_of(folder, ends_with(test_tensor={"source": "out.npy"}))
    assert {said.activation, shown.activation} == {"none"}
    assert (said.decision.threshold, shown.decision.threshold) == (0.5, 0.5)
    assert "not stated to be between 0 and 1" in refusal(tmp_path / "neither", ends_with())


@pytest.mark.parametrize(
    "steps",
    [
        [step("scale_range")],
        [step("sigmoid"), linear(255.0, 0.0)],
        [step("stardist_postprocessing")],
        [step("ensure_dtype", dtype="uint8")],
    ],
    ids=str,
)
def test_postprocessing_that_blending_cannot_have_is_refused(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    assert f"postprocessing {steps[-1]['id']} cannot" in refusal(tmp_path / "cells", ends_with(*steps))


def sided(y: Any, x: Any, out: Any = None) -> dict[str, Any]:
    data = new()
    for axis, size in zip(data["inputs"][0]["axes"][2:], (y, x), strict=True):
        axis["size"] = size
    for axis in data["outputs"][0]["axes"][2:]:
        axis["size"] = out or axis["size"]
    return data


SIDES = {
    "fixed": (sided(512, 512, 512), {"fixed": 512, "stride_multiple": 32}),
    "follows": (sided(96, {"tensor_id": "raw", "axis_id": "y"}), {"fixed": 96, "stride_multiple": 32}),
    "one fixed": (sided(128, {"min": 64, "step": 16}), {"fixed": 128, "stride_multiple": 32}),
    "two minima": (
        sided({"min": 64, "step": 16}, {"min": 96, "step": 16}),
        {"offset": 96, "multiple": 16, "stride_multiple": 16},
    ),
    "odd": (
        sided({"min": 100, "step": 4}, {"min": 100, "step": 4}),
        {"offset": 100, "multiple": 4, "stride_multiple": 4},
    ),
    "valid": (sided(572, 572, 388), {"fixed": 572, "stride_multiple": 4, "shrink": 184}),
}


@pytest.mark.parametrize(("data", "patch"), SIDES.values(), ids=SIDES)
def test_sizes_become_patch_sizes(tmp_path: Path, data: dict[str, Any], patch: dict[str, int]) -> None:
    assert spec_of(tmp_path / "cells", data).patch == PatchSizes(halo=8, **patch)


def test_an_offset_of_the_output_is_what_valid_convolutions_lose(tmp_path: Path) -> None:
    newer, older = new(), old()
    for axis in newer["outputs"][0]["axes"][2:]:
        axis["size"]["offset"] = -40
    older["outputs"][0]["shape"]["offset"] = [0, 0, -20, -20]
    found = [spec_of(tmp_path / name, data).patch.shrink for name, data in (("new", newer), ("old", older))]
    assert found == [40, 40]


def test_a_halo_gets_no_weight_in_blending(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "cells", new())
    lattice = choose_layout((1000, 1000), spec, jobs.TilingOptions(), compute=Compute("cpu", 1, 1)).lattice
    assert (lattice.before, lattice.after) == (8, 8)
    assert lattice.patch - lattice.stride >= 2 * 8


def test_a_length_of_a_pixel_becomes_micrometres(tmp_path: Path) -> None:
    data = new()
    for tensor in (data["inputs"][0], data["outputs"][0]):
        for axis in tensor["axes"][2:]:
            axis |= {"unit": "nanometer", "scale": 325.0}
    assert spec_of(tmp_path / "cells", data).mpp == pytest.approx(0.325)


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return data


REFUSED = {
    "two inputs": (new(inputs=new()["inputs"] * 2), "2 inputs and 1 outputs"),
    "channels last": (changed(old(), "inputs.0.axes", "byxc"), "dapi has the axes byxc, tilesseg gives bcyx"),
    "a volume": (
        changed(new(), "inputs.0.axes.1", {"type": "space", "id": "z", "size": 8}),
        "raw has the axes bzyx",
    ),
    "x before y": (
        changed(changed(new(), "inputs.0.axes.2.id", "x"), "inputs.0.axes.3.id", "y"),
        "raw has the axes bcxy",
    ),
    "not square": (sided(512, 256), "takes no square patch: y is 512 and x is 256"),
    "larger pixels": (changed(new(), "outputs.0.axes.2.scale", 2.0), "pixels of scale 2.0"),
    "half the size": (changed(old(), "outputs.0.shape.scale", [1, 1, 0.5, 0.5]), "pixels of another size"),
    "larger output": (sided(64, 64, 96), "is [-32, -32] px smaller"),
    "only a checkpoint": (
        new(weights={"keras_hdf5": {"source": "w.h5"}, "pytorch_state_dict": {"source": "weights.pt"}}),
        "has weights as keras_hdf5, pytorch_state_dict, tilesseg loads torchscript and onnx files",
    ),
    "no weights": (new(weights={}), "has weights as none"),
    "not here": (
        new(weights={"onnx": {"source": "https://x/net.onnx"}}),
        "onnx (net.onnx, which is not in the folder)",
    ),
    "a data set": (new(type="dataset"), "describes a dataset; give the description of a model"),
    "older": (new(format_version="0.3.2"), "format_version 0.3.2, tilesseg reads 0.4 and 0.5"),
    "a second file": (
        new(weights={"onnx": {"source": "weights.pt", "external_data": {"source": "more.data"}}}),
        "the onnx weights have a second file",
    ),
    "no axes": (changed(new(), "inputs.0.axes", None), "does not follow its format 0.5.4"),
    "no range": (
        changed(new(), "inputs.0.data", {"type": "float32"}),
        "states no range of its input, and its example None is missing",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_spec_cannot_say_is_refused_in_one_line(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path / "cells", data)


def test_the_published_hash_is_compared_and_a_missing_one_is_that_of_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "cells", new())
    load_model(folder, device="cpu", threads=1)
    wrong = new(weights={"torchscript": {"source": "weights.pt", "sha256": "0" * 64}})
    with pytest.raises(ModelError, match="has sha256"):
        load_model(write(folder, wrong), device="cpu", threads=1)


def test_the_range_is_as_said_or_of_8_bit_or_of_the_example(tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    np.save(folder / "in.npy", np.array([[[[3, 900]]]], np.float32))
    shown = changed(new(), "inputs.0.data", {"type": "float32"})
    shown["inputs"][0]["test_tensor"] = {"source": "in.npy"}
    assert spec_of(folder, shown).input_range == (3, 900)
    assert spec_of(folder, changed(shown, "inputs.0.data", {"type": "uint8"})).input_range == (0, 255)


def test_statistics_of_the_scene_take_any_unit(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "cells", with_steps(new(), step("zero_mean_unit_variance", **PLANE)))
    for most in (0.01, 1e9):
        assert check_range(SceneValues((0, most), 0, most, ("float32",)), spec, image="a.tif") is None


def test_openvino_takes_the_onnx_file_where_it_cannot_read_the_torchscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    from tilesseg.models.engines import openvino_graphs

    folder = write(tmp_path / "cells", new())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(folder / "weights.pt")
        free = {"x": {0: "n", 2: "y", 3: "x"}}
        example = (torch.zeros(1, 1, 64, 64),)
        torch.onnx.export(network, example, str(folder / "w.onnx"), input_names=["x"], dynamic_axes=free, dynamo=False)
    sha256 = hashlib.sha256((folder / "w.onnx").read_bytes()).hexdigest()
    data = new(weights={"torchscript": {"source": "weights.pt"}, "onnx": {"source": "w.onnx", "sha256": sha256}})
    (folder / "rdf.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    own = load_model(folder, device="cpu", threads=1, engine="openvino", precision="fp32")
    assert own.choice.runtime == "openvino" and "w.onnx" not in own.choice.why

    openvino_graphs._converted.cache_clear()
    monkeypatch.setattr(openvino_graphs, "_script", lambda weights: weights)
    monkeypatch.setattr(openvino_graphs, "_script_graph", no_script_graph)
    for engine in ("auto", "openvino"):
        model = load_model(folder, device="cpu", threads=1, engine=engine, precision="fp32")
        assert model.choice.runtime == "openvino" and "w.onnx: it cannot convert" in model.choice.why
        assert model.spec.engine == "torchscript"  # the identity of the model stays
        patches = np.random.default_rng(0).random((2, 1, 80, 80), np.float32)
        np.testing.assert_allclose(model.predict(patches), own.predict(patches), atol=1e-5)
    data["weights"]["onnx"]["sha256"] = "0" * 64
    (folder / "rdf.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ModelError, match="has sha256"):
        load_model(folder, device="cpu", threads=1, engine="openvino", precision="fp32")
    openvino_graphs._converted.cache_clear()


def no_script_graph(script: Any, bands: int) -> Any:
    raise RuntimeError("an operator is unknown")


@pytest.mark.parametrize("inside", [".", "cells"])
def test_a_packed_model_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))
    folder = write(tmp_path / "cells", new())
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path if inside == "cells" else folder, inside)
    assert find_bundle(packed).sha256 == find_bundle(folder).sha256
    first = find_bundle(packed).folder
    assert find_bundle(packed).folder == first and first.is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize("file", ["weights.pt", "weights.onnx"])
def test_the_published_example_gives_the_published_result(shared_data: Path, file: str) -> None:
    folder = shared_data / "weights" / "unet2d_nuclei_broad"
    model = load_model(folder / file, device="cpu", threads=1, precision="fp32")
    assert model.spec.patch == PatchSizes(fixed=512, stride_multiple=32, halo=32)
    given, wanted = np.load(folder / "test_input.npy"), np.load(folder / "test_output.npy")
    statistics = scene_statistics(given[0].reshape(1, -1).astype(np.float64), model.spec)
    found = model.predict(model.spec.normalisation(*statistics).apply(given))
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


def test_torchscript_comes_before_onnx(shared_data: Path) -> None:
    assert find_bundle(shared_data / "weights" / "unet2d_nuclei_broad").spec.engine == "torchscript"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("dapi", "[" * 2000 + "]" * 2000), "nested too deeply"),
        (lambda text: text + "date: 2024-13-45\n", "month must be in"),
        (lambda text: text.replace("weights.pt", "['weights.pt', 'weights.pt']"), "no name of a file"),
        (lambda text: text.replace("weights.pt", "w" * 5000 + ".pt"), "name too long"),
        (lambda text: text.replace("weights.pt", "[weights.pt" + ", weights.pt" * 90 + "]"), "no name of a file"),
        (lambda text: text.replace("- 4095", "- " + "9" * 5000), "as YAML"),
        (lambda text: text.replace("step: 16", "step: [16]"), "does not follow its format"),
    ],
)
def test_an_odd_description_is_a_row_with_its_problem_in_one_line(tmp_path, monkeypatch, change, words):
    (tmp_path / "weights.pt").write_bytes(b"any")
    text = yaml.safe_dump(new())
    (tmp_path / "rdf.yaml").write_text(change(text))
    assert change(text) != text
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path))
    row = next(row for row in list_models() if row.folder == tmp_path)
    assert row.problem is not None and words in row.problem and "\n" not in row.problem


def two_channels(*names: str, steps: tuple[dict[str, Any], ...] = (), test: bool = True) -> dict[str, Any]:
    """A description of several scores; `test`: with the example `out.npy`."""
    data = new()
    data["outputs"][0]["axes"][1]["channel_names"] = list(names)
    data["outputs"][0]["postprocessing"] = list(steps)
    if test:
        data["outputs"][0]["test_tensor"] = {"source": "out.npy"}
    return data


APART = np.array([[0.1, 0.9, 0.8], [0.2, 0.7, 0.1]], np.float32).reshape(1, 2, 1, 3)
"""Foreground and boundary of three pixels, of which the first is neither."""
SIGMOID = ({"id": "sigmoid"},)


@pytest.mark.parametrize(
    ("names", "steps", "example", "found"),
    [
        (("foreground", "boundary"), (), APART, ["background", "foreground", "boundary"]),
        (("foreground", "boundary"), SIGMOID, APART, ["background", "foreground", "boundary"]),
        (("cyto", "nuclei"), SIGMOID, None, ["background", "cyto", "nuclei"]),
        (("channel0", "channel1"), (), APART, ["background", "channel0", "channel1"]),
        (("foreground", "boundary"), (), APART / APART.sum(1, keepdims=True), ["foreground", "boundary"]),
        (
            ("foreground", "boundary"),
            ({"id": "softmax", "kwargs": {"axis": "channel"}},),
            APART,
            ["foreground", "boundary"],
        ),
        (("foreground", "boundary"), (), 20 * APART - 9, ["foreground", "boundary"]),
        (("Background", "cell"), SIGMOID, APART, ["Background", "cell"]),
        (("cell", "back_ground"), (), APART, ["cell", "back_ground"]),
    ],
    ids=["inside", "sigmoid", "no example", "no names", "sums to 1", "softmax", "logits", "background", "last"],
)
def test_scores_that_exclude_no_other_get_a_background(tmp_path, names, steps, example, found):
    if example is not None:
        np.save(tmp_path / "out.npy", example)
    bundle = find_bundle(write(tmp_path, two_channels(*names, steps=steps, test=example is not None), scores=2))
    assert [one.name for one in bundle.spec.classes] == found
    assert bundle.spec.decision.background == (len(found) == 3) and bundle.spec.score_names == names
    if len(found) == 3:
        assert decide(APART[0], bundle.spec.decision.threshold).tolist() == [[0, 1, 1]]


def test_the_foreground_and_boundary_case_has_a_background(shared_data):
    folder = shared_data.parent / "cases/micro/models/bound"
    bundle, wanted = find_bundle(folder), np.load(folder / "out.npy")[0]
    assert [one.name for one in bundle.spec.classes] == ["background", "foreground", "boundary"]
    patches = np.load(folder / "in.npy")
    call = Call(np.dtype(np.float32), bundle.spec.normalisation(), labels=True)
    for engine in ("torch", "auto"):
        labels = load_model(bundle, engine=engine, precision="fp32").network(call)(patches)[0]
        assert (labels == np.where(wanted.max(axis=0) >= 0.5, 1 + wanted.argmax(axis=0), 0)).mean() > 0.9999
        assert 0.76 < (labels == 0).mean() < 0.77
