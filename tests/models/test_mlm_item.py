"""STAC items of the extension MLM: read at their word, or refused in one line with what is missing."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fakes import write_unet_bundle
from foreign_models import SUFFIXES, VARIANTS, save_network
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle, list_models
from tilesseg.models.exporting.export_bundle import export_bundle
from tilesseg.models.spec import ModelSpec


def item(**changes: Any) -> dict[str, Any]:
    """An item as other people write it: three bands of Sentinel-2, three classes, fixed sides, no block of ours."""
    axes = ["height", "width"]
    properties: dict[str, Any] = {
        "datetime": "2026-01-01T00:00:00Z",
        "description": "water and fields",
        "license": "CC-BY-4.0",
        "gsd": 10,
        "mlm:name": "fields",
        "mlm:architecture": "U-Net",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [
            {
                "name": "image",
                "bands": ["B04", "B03", {"name": "B02"}],
                "input": {"shape": [-1, 3, 64, 64], "dim_order": ["batch", "bands", *axes], "data_type": "float32"},
                "value_scaling": [{"type": "min-max", "minimum": 0, "maximum": 10000}],
                "resize_type": None,
            }
        ],
        "mlm:output": [
            {
                "name": "scores",
                "tasks": ["semantic-segmentation"],
                "result": {"shape": [-1, 3, 64, 64], "dim_order": ["batch", "channel", *axes], "data_type": "float32"},
                "classification:classes": [
                    {"value": 2, "name": "field", "color_hint": "FFAA00"},
                    {"value": 0, "name": "background"},
                    {"value": 1, "title": "water"},
                ],
                "post_processing_function": {"format": "python", "expression": "torch.nn.functional:softmax"},
            }
        ],
    }
    names = {"B04": "red", "B03": "green", "B02": "blue", "B08": "nir"}
    asset = {
        "href": "./net.ts",
        "roles": ["mlm:model"],
        "mlm:artifact_type": "torch.jit.save",
        "eo:bands": [{"name": name, "common_name": common} for name, common in names.items()],
        "raster:bands": [{"name": name, "data_type": "uint16"} for name in names],
    }
    data = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": []}
    return {**data, "properties": {**properties, **changes}, "assets": {"model": asset}}


def described(kind: str, **changes: Any) -> dict[str, Any]:
    """The item with other facts in its only input or output."""
    data = item()
    data["properties"][f"mlm:{kind}"][0].update(changes)
    return data


def write(folder: Path, data: dict[str, Any], variant: str = "plain", kind: str = "torchscript") -> Path:
    folder.mkdir(exist_ok=True)
    save_network(VARIANTS[variant], kind, folder / f"net.{SUFFIXES[kind]}")
    (folder / "item.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def spec_of(folder: Path, data: dict[str, Any]) -> ModelSpec:
    folder.mkdir(exist_ok=True)
    (folder / "net.ts").write_bytes(b"not loaded")
    (folder / "item.json").write_text(json.dumps(data), encoding="utf-8")
    return find_bundle(folder).spec


def refusal(folder: Path, data: dict[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        spec_of(folder, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_item_becomes_a_spec(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, item())
    assert (spec.name, spec.licence, spec.engine, spec.resolution) == ("fields", "CC-BY-4.0", "torchscript", 10)
    assert spec.bands == ("red", "green", "blue") and spec.dtype == "uint16" and spec.input_range == (0, 10000)
    assert spec.normalise.kind == "range" and spec.normalise.high == (10000,) * 3
    assert (spec.patch.fixed, spec.patch.shrink, spec.activation, spec.margin) == (64, 0, "softmax", None)
    assert [(one.name, one.colour) for one in spec.classes] == [
        ("background", "#000000"), ("water", "#00ff00"), ("field", "#ffaa00"),
    ]  # fmt: skip


def test_the_folder_the_item_and_the_weights_name_the_same_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "fields", item())
    (folder / "item.json").rename(folder / "other.json")
    assert find_bundle(folder / "other.json").spec.name == "fields"
    (folder / "other.json").rename(folder / "item.json")
    assert len({find_bundle(path).sha256 for path in (folder, folder / "item.json", folder / "net.ts")}) == 1
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path))
    assert next(row for row in list_models() if row.name == "fields").problem is None
    assert run(["models", "check", str(folder)]) == 0
    assert "torch: does what its spec says" in capsys.readouterr().out


def test_bands_of_one_common_name_keep_their_own(tmp_path: Path) -> None:
    data = item()
    for band in data["assets"]["model"]["eo:bands"]:
        band["common_name"] = "rededge"
    assert spec_of(tmp_path, data).bands == ("B04", "B03", "B02")
    data["properties"]["bands"] = [{"name": "B04", "eo:common_name": "red"}, {"name": "B03"}, {"name": "B02"}]
    del data["assets"]["model"]["eo:bands"]
    assert spec_of(tmp_path, data).bands == ("red", "B03", "B02")


@pytest.mark.parametrize(
    ("steps", "kind", "values"),
    [
        (None, "none", {}),
        ([{"type": "z-score", "mean": 5, "stddev": 2}], "mean_std", {"mean": (5, 5, 5), "std": (2, 2, 2)}),
        (
            [{"type": "offset", "value": 7}, {"type": "scale", "value": 10}, {"type": None}],
            "mean_std",
            {"mean": (7, 0, 0), "std": (1, 10, 1)},
        ),
        (
            [{"type": "min-max", "minimum": 1, "maximum": 5}] * 2 + [{"type": "z-score", "mean": 2, "stddev": 3}],
            "mean_std",
            {"mean": (1, 1, 2), "std": (4, 4, 3)},
        ),
        ([{"type": "clip", "minimum": 1, "maximum": 5}], "none", {"clip": (1, 5)}),
    ],
)
def test_value_scaling_becomes_the_normalisation(tmp_path: Path, steps: Any, kind: str, values: Any) -> None:
    data = described("input", value_scaling=steps)
    data["properties"]["tilesseg:model"] = {"input_range": [0, 9]}
    rule = spec_of(tmp_path, data).normalise
    assert rule.kind == kind and {key: getattr(rule, key) for key in values} == values


def test_older_items_state_their_statistics(tmp_path: Path) -> None:
    data = described("input", norm_type="z-score", statistics=[{"mean": 1, "stddev": 2}] * 3)
    del data["properties"]["mlm:input"][0]["value_scaling"]
    for band in data["assets"]["model"]["raster:bands"]:
        band["statistics"] = {"minimum": 1, "maximum": 8000}
    spec = spec_of(tmp_path, data)
    assert spec.normalise.mean == (1, 1, 1) and spec.input_range == (1, 8000)


def test_our_block_completes_a_foreign_item(tmp_path: Path) -> None:
    axes = ["batch", "bands", "height", "width"]
    data = described("input", input={"shape": [-1, 3, -1, -1], "dim_order": axes, "data_type": "float32"})
    data["properties"]["mlm:output"][0]["result"]["shape"] = [-1, 3, -1, -1]
    assert spec_of(tmp_path, data).patch.multiple == 32  # which no network of five halvings refuses
    data["properties"]["tilesseg:tiling"] = {"multiple": 16, "stride_multiple": 16, "margin": 48}
    spec = spec_of(tmp_path, data)
    assert (spec.patch.multiple, spec.patch.stride_multiple, spec.margin) == (16, 16, 48)


def test_one_score_is_a_threshold_and_scores_without_the_background_are_known(tmp_path: Path) -> None:
    data = described("output", post_processing_function={"format": "python", "expression": "torch:sigmoid"})
    out = data["properties"]["mlm:output"][0]
    out["result"]["shape"], out["classification:classes"] = [-1, 1, 64, 64], [{"value": 1, "name": "field"}]
    spec = spec_of(tmp_path, data)
    assert (spec.decision.kind, spec.decision.threshold, spec.activation) == ("threshold", 0.5, "sigmoid")
    assert [one.name for one in spec.classes] == ["background", "field"]
    out["result"]["shape"][1] = 2
    out["classification:classes"].append({"value": 2, "name": "water"})
    assert spec_of(tmp_path, data).decision.background


def test_the_hash_of_the_item_is_compared(tmp_path: Path) -> None:
    data = item()
    data["assets"]["model"]["file:checksum"] = "1220" + "0" * 64
    with pytest.raises(ModelError, match="has sha256"):
        find_bundle_and_load(write(tmp_path, data))


def find_bundle_and_load(folder: Path) -> None:
    from tilesseg.models.load import load_model

    load_model(folder, device="cpu", threads=1)


FOUR = ["batch", "bands", "height", "width"]
LAST = ["batch", "height", "width", "bands"]
REFUSED = [
    (item(**{"mlm:tasks": ["object-detection"]}) | {}, "tasks", None),
    (described("output", tasks=["classification"]), "is for classification", None),
    (described("input", bands=[]), "names no bands", None),
    (described("input", bands=["B04"]), "takes 3 channels and names 1 bands", None),
    (described("input", input={"shape": [-1, 64, 64, 3], "dim_order": LAST}), "take a network of that order", None),
    (described("input", input={"shape": [-1, 3, 64, 32], "dim_order": FOUR}), "64 × 32", None),
    (described("input", value_scaling=[{"type": "processing", "format": "x", "expression": 1}]), "by processing", None),
    (described("input", value_scaling=[{"type": "scale", "value": 1}] * 2), "2 value_scaling for 3 bands", None),
    (described("input", value_scaling=None), "does not say which values its imagery spans", None),
    (described("input", resize_type="interpolation-nearest"), "resize_type", None),
    (described("input", pre_processing_function={"format": "python", "expression": "a:b"}), "pre_processing", None),
    (described("output", post_processing_function={"format": "python", "expression": "a:b"}), "post_processing", None),
    (described("output", **{"classification:classes": []}), "has the classes none", None),
    (
        described("output", **{"classification:classes": [{"value": 0, "name": "a"}, {"value": 9, "name": "b"}]}),
        "has the classes 0, 9",
        None,
    ),
    (
        described("output", result={"shape": [-1, 7, 64, 64], "dim_order": FOUR}),
        "gives 7 scores and names 3 classes",
        None,
    ),
    (described("output", result={"shape": [-1, 3, 16, 16], "dim_order": ["b", "c", "h", "w"]}), "64", 24),
    (described("input", norm_type="l2", value_scaling=None), "norm_type l2", None),
    (item(**{"mlm:input": []}), "0 entries in mlm:input", None),
    (item(**{"mlm:output": 3}), "does not follow the extension", None),
]


@pytest.mark.parametrize(("data", "words", "shrink"), [row for row in REFUSED if row[1] != "tasks"])
def test_what_no_spec_says_is_refused_in_one_line(
    tmp_path: Path, data: dict[str, Any], words: str, shrink: int | None
) -> None:
    if shrink is not None:  # a smaller result is the border of an unpadded network
        assert spec_of(tmp_path, data).patch.shrink == 48
        return
    assert words in refusal(tmp_path, data)


@pytest.mark.parametrize(
    ("asset", "words"),
    [
        ({"mlm:artifact_type": "torch.save", "href": "./net.pth"}, r"net\.pth \(torch\.save\)"),
        ({"href": "https://example.org/files/far.ts"}, r"download it to .*far\.ts"),
        ({"roles": ["data"]}, "no asset of the role mlm:model"),
    ],
)
def test_an_item_without_weights_that_load_is_refused(tmp_path: Path, asset: dict[str, Any], words: str) -> None:
    data = item()
    data["assets"]["model"].update(asset)
    with pytest.raises(ModelError, match=words):
        spec_of(tmp_path, data)


def test_weights_of_an_address_are_found_beside_the_item(tmp_path: Path) -> None:
    data = item()
    data["assets"]["model"]["href"] = "https://example.org/files/net.ts?key=1"
    assert spec_of(tmp_path, data).weights.file == "net.ts"  # type: ignore[union-attr]


def paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of all parts of an item."""
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [one for key in keys for one in [(*path, key), *paths(data[key], (*path, key))]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_an_item_says_it_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    changed = copy.deepcopy(item())
    *parents, last = data.draw(st.sampled_from(paths(changed)))
    place: Any = changed
    for key in parents:
        place = place[key]
    place[last] = data.draw(st.sampled_from([None, True, -1, 0, 1.5, "", "x", [], [1, "x"], {}, 10**9, 1e400]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            spec_of(Path(folder), changed)
        except ModelError as error:
            assert "\n" not in str(error)


def test_pystac_reads_what_is_written(tmp_path: Path) -> None:
    pystac = pytest.importorskip("pystac")
    extension = pytest.importorskip("pystac.extensions.mlm").MLMExtension
    bundle = write_unet_bundle(tmp_path / "own", depth=1)
    written = export_bundle(bundle, "mlm", tmp_path / "mlm").target
    data = json.loads((written / "item.json").read_text())
    read = extension.ext(pystac.Item.from_dict(data))
    spec = find_bundle(bundle).spec
    assert read.mlm_name == spec.name and tuple(read.input[0].bands) == spec.bands
    assert [each.name for each in read.output[0].classes] == [one.name for one in spec.classes]
    assert data["properties"]["tilesseg:tiling"]["multiple"] == spec.patch.multiple
