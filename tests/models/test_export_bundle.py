"""Bundles exported for other projects: read back they give the same mask, and other people's tests pass on them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fakes import write_unet_bundle
from foreign_models import write_model

from tilesseg.cli.main import run
from tilesseg.errors import ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.exporting import portable_network
from tilesseg.models.exporting.export_bundle import export_bundle
from tilesseg.models.load import load_model
from tilesseg.models.network import Call

RULES: dict[str, dict[str, Any]] = {
    "none": {"normalise": {"kind": "none"}, "scaling": [0.01, -0.5]},
    "range": {"normalise": {"kind": "range", "low": [3, 0, 7], "high": [250, 251, 255], "clip": [0, 1]}},
    "mean_std": {"normalise": {"kind": "mean_std", "mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}},
    "scene_mean_std": {"normalise": {"kind": "scene_mean_std", "joint": True}},
    "scene_percentiles": {"normalise": {"kind": "scene_percentiles", "low": 1, "high": 99.8, "eps": 1e-3}},
}
FIXED = ("none", "range", "mean_std")


def mask_of(reference: Any, engine: str = "torch") -> np.ndarray:
    """Labels of two patches of noise in squares, as a run computes them."""
    model = load_model(reference, device="cpu", threads=1, engine=engine, precision="fp32")
    generator = np.random.default_rng(5)
    squares = np.kron(generator.integers(0, 256, (2, 3, 16, 16)), np.ones((8, 8), int))
    patches = (squares // 2 + generator.integers(0, 128, squares.shape)).astype(np.uint8)
    statistics = ((100.0, 110.0, 90.0), (40.0, 50.0, 60.0)) if model.spec.normalise.needs_scene else (None, None)
    return model.network(Call(np.dtype(np.uint8), model.spec.normalisation(*statistics), labels=True))(patches)


def exported(folder: Path, bundle: Path, to: str) -> Path:
    return export_bundle(bundle, to, folder / to).target


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        export_bundle(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("to", ["bioimageio", "mlm"])
@pytest.mark.parametrize(
    "rule", [*FIXED, *(pytest.param(rule, marks=pytest.mark.slow) for rule in RULES if rule not in FIXED)]
)
def test_a_unet_read_back_gives_the_same_mask_byte_for_byte(tmp_path: Path, rule: str, to: str) -> None:
    bundle = write_unet_bundle(tmp_path / "own", depth=1, **RULES[rule], resolution=10.0, fill=3.0)
    written = exported(tmp_path, bundle, to)
    own, back = find_bundle(bundle).spec, find_bundle(written).spec
    assert back.model_copy(update={"description": own.description}) == own
    expected = mask_of(bundle)
    assert len(np.unique(expected)) > 1 and mask_of(written).tobytes() == expected.tobytes()
    portable = next(written.glob("network.*"))  # the network that others load, chosen by its name
    assert find_bundle(portable).spec.engine in ("torchscript", "exported")
    assert np.mean(mask_of(portable) == expected) >= 0.9999


@pytest.mark.parametrize("to", ["bioimageio", "mlm"])
@pytest.mark.parametrize("rule", FIXED)
def test_the_description_alone_without_our_block_gives_the_same_labels(tmp_path: Path, rule: str, to: str) -> None:
    bundle = write_unet_bundle(tmp_path / "own", depth=1, **RULES[rule])
    written = exported(tmp_path, bundle, to)
    if to == "bioimageio":
        data = yaml.safe_load((written / "rdf.yaml").read_text())
        del data["config"]
        (written / "rdf.yaml").write_text(yaml.safe_dump(data))
    else:
        data = json.loads((written / "item.json").read_text())
        for key in ("tilesseg:tiling", "tilesseg:model"):
            data["properties"].pop(key)
        data["properties"]["tilesseg:model"] = {"input_range": [0, 255]}
        if data["properties"]["mlm:input"][0]["pre_processing_function"]:  # which a single operation does not say
            with pytest.raises(ModelError, match="pre_processing_function"):
                (written / "item.json").write_text(json.dumps(data))
                find_bundle(written)
            return
        (written / "item.json").write_text(json.dumps(data))
    back = find_bundle(written).spec
    assert back.engine != "unet" and [one.name for one in back.classes] == [
        one.name for one in find_bundle(bundle).spec.classes
    ]
    assert np.mean(mask_of(written) == mask_of(bundle)) >= 0.9999


@pytest.mark.parametrize("to", ["bioimageio", "mlm", pytest.param("onnx", marks=pytest.mark.slow)])
def test_no_path_of_this_machine_goes_out(tmp_path: Path, to: str) -> None:
    written = exported(tmp_path, write_unet_bundle(tmp_path / "own", depth=1), to)
    places = [str(Path(module.__file__).parent).encode() for module in (portable_network, np)]
    for file in written.iterdir():
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                data = b"".join(archive.read(name) for name in archive.namelist())
        else:
            data = file.read_bytes()
        assert not [place for place in (*places, b"site-packages", str(tmp_path).encode()) if place in data], file.name


@pytest.mark.parametrize(
    ("name", "kind", "to"),
    [
        ("plain", "torchscript", "bioimageio"),
        ("plain", "torchscript", "mlm"),
        ("foreground-boundary-right", "exported", "bioimageio"),
        ("stride-2", "exported", "mlm"),
        ("unpadded-right", "onnx", "bioimageio"),
        ("sigmoid-inside-none", "onnx", "mlm"),
    ],
)
def test_a_foreign_network_read_back_gives_the_same_mask(tmp_path: Path, name: str, kind: str, to: str) -> None:
    bundle = write_model(tmp_path / "own", name, kind)
    written = exported(tmp_path, bundle, to)
    engine = "onnxruntime" if kind == "onnx" else "torch"
    assert mask_of(written, engine).tobytes() == mask_of(bundle, engine).tobytes()
    own, back = find_bundle(bundle).spec, find_bundle(written).spec
    assert (back.patch, back.decision, back.activation) == (own.patch, own.decision, own.activation)
    if to == "bioimageio":  # the description itself says how much smaller the scores are
        data = yaml.safe_load((written / "rdf.yaml").read_text())
        del data["config"]
        (written / "rdf.yaml").write_text(yaml.safe_dump(data))
        assert find_bundle(written).spec.patch.shrink == own.patch.shrink


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("unpadded-right", "exported", marks=pytest.mark.slow),
        pytest.param("foreground-boundary-right", "torchscript", marks=pytest.mark.slow),
    ],
)
def test_onnx_is_checked_against_torch_and_the_difference_is_stored(tmp_path: Path, name: str, kind: str) -> None:
    pytest.importorskip("onnxscript")
    bundle = write_model(tmp_path / "own", name, kind)
    made = export_bundle(bundle, "onnx", tmp_path / "onnx")
    record = json.loads((made.target / "export.json").read_text())
    assert record["networks"][0]["largest_difference"] == made.networks[0].difference < 1e-4
    assert record["sha256"] == find_bundle(bundle).sha256 and made.networks[0].side is None
    assert np.mean(mask_of(made.target, "onnxruntime") == mask_of(bundle)) >= 0.9999


def test_a_unet_becomes_onnx_by_the_command_and_a_zip_is_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))
    bundle = write_unet_bundle(tmp_path / "own", depth=1)
    packed = tmp_path / "mine.zip"
    for to, out in (("onnx", tmp_path / "onnx"), ("bioimageio", packed)):
        assert run(["models", "export", str(bundle), "--to", to, "--out", str(out), "--author", "A. Uthor"]) == 0
        assert "largest difference of scores" in capsys.readouterr().out
    assert np.mean(mask_of(tmp_path / "onnx", "onnxruntime") == mask_of(bundle)) >= 0.9999
    assert mask_of(packed).tobytes() == mask_of(bundle).tobytes()
    with zipfile.ZipFile(packed) as archive:
        assert yaml.safe_load(archive.read("rdf.yaml"))["authors"] == [{"name": "A. Uthor"}]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_network_of_one_side_is_described_with_this_side(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "own", "plain", "exported")
    data = yaml.safe_load((bundle / "model.yaml").read_text())
    (bundle / "model.yaml").write_text(yaml.safe_dump({**data, "patch": {"fixed": 64}}))
    for to in ("bioimageio", "mlm"):
        assert find_bundle(exported(tmp_path, bundle, to)).spec.patch.fixed == 64


def test_a_changed_preprocessing_contradicts_the_block(tmp_path: Path) -> None:
    written = exported(tmp_path, write_unet_bundle(tmp_path / "own", depth=1, **RULES["mean_std"]), "bioimageio")
    text = (written / "rdf.yaml").read_text().replace("58.4", "29.2", 1)
    (written / "rdf.yaml").write_text(text)
    with pytest.raises(ModelError, match="mean_std, and its block tilesseg mean_std of other values; correct one"):
        find_bundle(written)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("tiling", "stride"), 3, "unknown key stride"),
        (("model", "colour"), "red", "unknown key colour"),
        (("tiling",), 3, "tiling of the block tilesseg is 3"),
        (("model", "carried", "weights", "file"), "../weights.safetensors", "not beside itself"),
        (("model", "carried", "code"), "x", "unknown key code"),
    ],
)
def test_a_wrong_block_is_refused(tmp_path: Path, place: tuple[str, ...], value: Any, words: str) -> None:
    written = exported(tmp_path, write_unet_bundle(tmp_path / "own", depth=1), "bioimageio")
    data = yaml.safe_load((written / "rdf.yaml").read_text())
    part = data["config"]["tilesseg"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (written / "rdf.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ModelError, match=words):
        find_bundle(written)


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet, onnx = write_unet_bundle(tmp_path / "unet", depth=1), write_model(tmp_path / "net", "plain", "onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "write bioimageio, mlm, onnx" in refusal(unet, "keras", tmp_path / "a")
    assert "bioimageio alone knows" in refusal(unet, "mlm", tmp_path / "a.zip")
    assert "exists already" in refusal(unet, "mlm", tmp_path / "full")
    own = write_unet_bundle(tmp_path / "own", depth=1, engine="fakes:Identity", unet=None, margin=None)
    assert "brings its own code (fakes:Identity)" in refusal(own, "mlm", tmp_path / "a")
    monkeypatch.setattr(portable_network, "find_spec", lambda name: None)
    assert "onnx is not installed; pip install 'tilesseg[export]'" in refusal(unet, "onnx", tmp_path / "a")
    assert export_bundle(onnx, "onnx", tmp_path / "same").networks[0].difference == 0
    assert not (tmp_path / "a").exists() and (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_network_that_differs_by_more_than_rounding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_unet_bundle(tmp_path / "own", depth=1)
    other = portable_network.read_unet(
        find_bundle(write_unet_bundle(tmp_path / "b", depth=1, seed=1)).spec,
        next((tmp_path / "b").glob("*.safetensors")),
    )
    monkeypatch.setattr(portable_network, "_module", lambda bundle: other)
    assert "differ by" in refusal(bundle, "mlm", tmp_path / "mlm")
    assert not (tmp_path / "mlm").exists()


@pytest.mark.parametrize("names", [["a/../../x", "a/rdf.yaml"], ["a.txt", "b.txt"]])
def test_a_zip_that_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    with pytest.raises(ModelError, match=r"outside of its folder|holds no model"):
        find_bundle(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ModelError, match="cannot unpack"):
        find_bundle(tmp_path / "b.zip")
    assert not (tmp_path / "x").exists()


TESTED = """
import sys
from bioimageio.core import load_description_and_test
for path in sys.argv[1:]:
    summary = load_description_and_test(path).validation_summary
    failed = [(each.name, [error.msg for error in each.errors]) for each in summary.details if each.status != "passed"]
    print(path, summary.status, failed)
"""


@pytest.mark.slow
def test_the_own_test_of_bioimageio_passes_on_exports(tmp_path: Path) -> None:
    pytest.importorskip("bioimageio.core")
    made = [
        export_bundle(write_unet_bundle(tmp_path / rule, **RULES[rule]), "bioimageio", tmp_path / f"{rule}-out")
        for rule in RULES
    ]
    for name, kind in (("unpadded-right", "torchscript"), ("sigmoid-inside-none", "onnx"), ("plain", "exported")):
        made.append(export_bundle(write_model(tmp_path / name, name, kind), "bioimageio", tmp_path / f"{name}-out"))
    paths = [str(each.target / "rdf.yaml") for each in made]
    done = subprocess.run([sys.executable, "-c", TESTED, *paths], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "rdf.yaml" in line and line.startswith(str(tmp_path))]
    assert [line.split(" ", 1)[1] for line in lines] == ["passed []"] * len(made), done.stderr[-2000:]
