"""Laws of the result of a training: its card says what was measured, and its ONNX copy computes the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import options, spec_of

from tilesseg.errors import JobError, ModelError
from tilesseg.models.bundle import find_bundle
from tilesseg.models.load import load_model
from tilesseg.raster.metrics import iou
from tilesseg.training import trained_bundle
from tilesseg.training.model_card import ScenePart, TrainingFacts, split_sentence
from tilesseg.training.networks import build_network
from tilesseg.training.train_spec import Split
from tilesseg.training.trained_bundle import check_onnx, write_onnx_copy, write_trained
from tilesseg.version import __version__

FACTS = TrainingFacts(
    scenes=(ScenePart("north", (300, 400), ("train",)), ScenePart("south", (300, 400), ("validate", "test"))),
    split="by scene, validate 0.5, seed 0",
    pixels=(900, 100),
    steps=2000,
    best_step=1800,
    seconds=61.4,
    device="cpu",
    threads=1,
    precision="fp32",
)
ONE, TWO = np.array([[50, 10, 0], [20, 20, 0]]), np.array([[80, 0, 0], [0, 15, 5]])


def written(folder: Path, *, matrices: Any = None, **more: Any) -> str:
    spec = spec_of(options(), licence="CC0-1.0")
    write_trained(folder, spec, build_network(spec, options(), 0), facts=FACTS, matrices=matrices or {}, **more)
    return (folder / "CARD.md").read_text()


def test_the_card_states_data_figures_versions_and_licence(tmp_path: Path) -> None:
    card = written(tmp_path, matrices={"validate": {"north": ONE, "south": TWO}, "test": {"east": TWO}})
    for said in (
        "# tiny", "Licence: CC0-1.0", "| north | 400 × 300 | train |", "| south | 400 × 300 | validate, test |",
        "Split: by scene, validate 0.5, seed 0", "1,000 (dark 90.0%, bright 10.0%)",
        "a, b (uint8, values from 0 to 255)",
        "Normalisation: none",
        "2,000 steps in 61 s; best validation at step 1,800",
        "U-Net of depth 1 and width 4",
        f"torch {torch.__version__}, tilesseg {__version__}", "(cpu), 1 thread, fp32",
        "Validation, by which this network was chosen", "2 scenes", "Test, seen once", "1 scene.",
    ):  # fmt: skip
        assert said in card, said
    assert "| bright | 20 | 0.857 | 0.750 | 1.000 | 0.750 |" in card  # of the test: one scene has no interval
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "CARD.md", "evaluation.json", "model.yaml", "weights.safetensors",
    ]  # fmt: skip


def test_figures_are_pooled_and_have_intervals_where_there_are_scenes_enough(tmp_path: Path) -> None:
    scenes = {f"scene {number}": ONE if number % 2 else TWO for number in range(6)}
    card = written(tmp_path, matrices={"validate": scenes, "test": {"north": ONE, "south": TWO}})
    data = json.loads((tmp_path / "evaluation.json").read_text())
    found = {part: data[part]["pooled"]["classes"]["bright"] for part in data}
    assert found["validate"]["iou"] == pytest.approx(iou(ONE + TWO)[1])
    assert data["test"]["scenes"]["south"]["confusion"] == TWO.tolist()
    low, high = found["validate"]["iou_interval"]
    assert iou(ONE)[1] <= low < iou(ONE + TWO)[1] < high <= iou(TWO)[1]
    assert found["test"]["iou_interval"] is None
    row = next(line for line in card.splitlines() if line.startswith("| bright | 180 |"))
    assert f" | {iou(ONE + TWO)[1]:.3f} ({low:.3f}–{high:.3f}) | " in row
    assert "In brackets: 95 % intervals" in card


def test_a_class_that_occurs_nowhere_has_no_figure(tmp_path: Path) -> None:
    nothing = np.array([[9, 0, 0], [0, 0, 0]])
    assert "| bright | 0 | – | – | – | – |" in written(tmp_path, matrices={"test": {"a": nothing, "b": nothing}})
    figures = json.loads((tmp_path / "evaluation.json").read_text())["test"]["pooled"]["classes"]
    assert figures["bright"]["iou"] is None and figures["dark"]["iou"] == 1


def test_a_card_without_figures_says_so(tmp_path: Path) -> None:
    assert "Nothing validated and nothing tested" in written(tmp_path)


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an ONNX copy; exporting takes seconds."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("with-onnx")
    written(folder, onnx=True)
    return folder


def test_the_onnx_copy_is_a_bundle_that_computes_the_same(with_onnx: Path) -> None:
    card = (with_onnx / "CARD.md").read_text()
    assert "copy as ONNX in `onnx/`, compared with torch: scores before activation differ by" in card
    copied = find_bundle(with_onnx / "onnx")
    assert copied.spec.engine == "onnx" and copied.spec.classes == find_bundle(with_onnx).spec.classes
    patches = np.random.default_rng(0).random((3, 2, 48, 80), np.float32)  # other sides than it was exported with
    models = (load_model(with_onnx, engine="torch", precision="fp32"), load_model(copied, engine="onnxruntime"))
    first, second = (model.predict(patches) for model in models)
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert first.std() > 0


def test_an_onnx_copy_of_an_execution_that_died_is_written_anew(
    with_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that cannot be written leaves none behind that might be taken for it."""

    def fail(*_: object) -> None:
        raise ModelError("gives scores that differ by 1; export it to another format")

    monkeypatch.setattr(trained_bundle, "export_bundle", fail)
    copy = shutil.copytree(with_onnx, with_onnx.parent / "copied")
    with pytest.raises(ModelError, match="scores that differ"):
        write_onnx_copy(copy)
    assert not (copy / "onnx").exists()


def test_missing_packages_are_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_bundle, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(
        JobError, match=r"output.onnx needs onnxscript, not installed here; pip install 'tilesseg\[export"
    ):
        check_onnx()


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        ({}, "by scene, validate 0.2, test 0, seed 0"),
        ({"by": "scene", "folds": 3, "fold": 1}, "by scene, fold 1 of 3, test 0, seed 0"),
        ({"by": "block", "block": 512, "validate": 0.3}, "by block, validate 0.3, test 0, block 512, gap auto, seed 0"),
        ({"by": "lists", "validate": ["a", "b"]}, "by lists, validate a b, test 0"),
        ({"by": "column"}, "by column, column split"),
    ],
)
def test_the_split_is_said_in_words(split: dict[str, Any], sentence: str) -> None:
    assert split_sentence(Split.model_validate(split)) == sentence
