"""`tilesseg train`: the plan says what will happen and refuses what cannot work; the training is that of the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import write_scene
from labelled_files import CLASSES, blocks, labelled

from tilesseg.cli.main import run


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    for number, name in enumerate("ab"):
        labelled(tmp_path, name, blocks(number))
    path = tmp_path / "spec.yaml"
    write(path)
    return path


def write(path: Path, **changes: Any) -> None:
    data = {
        "name": "roofs",
        "licence": "CC0-1.0",
        "classes": CLASSES,
        "data": {"scenes": "images/*.tif", "labels": "labels/{scene}.tif"},
        "split": {"by": "lists", "validate": ["b"], "test": []},
        "network": {"depth": 1, "width": 4},
        "sampling": {"patch": 32, "batch": 2},
        "optimise": {"steps": 500, "ema": 0.5},
        "threads": 1,
        "output": {"dir": "run"},
    }
    path.write_text(yaml.safe_dump({**data, **changes}))


def test_the_plan_says_scenes_classes_split_patches_and_time_and_writes_nothing(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(spec), "--plan"]) == 0
    text = capsys.readouterr().out
    assert "roofs: 1," in text and "parameters, bands band_1, band_2" in text
    known = blocks(0)[6:]
    share = f"roof {100 * known.mean():.3g} %"
    assert f"train: 1 scene, {known.size:,} labelled pixels; shares: background" in text
    assert share in text
    assert "validate: 1 scene" in text
    assert "test: nothing" in text
    assert "a: 64 × 64 px, train" in text
    assert "patches of 32 px, 2 in a step" in text
    assert "ten steps take" in text and "so 500 steps about" in text
    assert "peak memory" in text
    assert not (spec.parent / "run").exists()


def test_the_plan_as_json_has_the_counts_and_the_gap(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(spec.parent, "c", blocks(3, 256))
    data = {"scenes": "images/c.tif", "labels": "labels/{scene}.tif"}
    write(spec, data=data, split={"by": "block", "block": 64, "validate": 0.2, "test": 0})
    assert run(["train", str(spec), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["split"] == {"by": "block", "gap": 38}
    assert min(plan["classes"]["roof"][part] for part in ("train", "validate")) > 0
    assert plan["scenes"][0]["size"] == [256, 256]
    assert plan["epoch_patches"] == pytest.approx(sum(plan["scenes"][0]["pixels"]["train"]) / 32**2, abs=0.1)
    assert plan["ten_steps_seconds"] > 0
    assert (plan["patch"], plan["batch"], plan["steps"], plan["device"]) == (32, 2, 500, "cpu")
    assert plan["normalise"]["kind"] == "mean_std"


@pytest.mark.parametrize("option", [["--plan"], []], ids=["plan", "train"])
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_written(
    spec: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_scene(spec.parent / "labels" / "b.tif", blocks(1, 32)[None])
    assert run(["train", str(spec), *option]) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.startswith("error: ") and "its size is 32 × 32 px and the image's 64 × 64 px" in said
    assert not (spec.parent / "run").exists()


def test_a_training_is_carried_out_from_its_file_and_says_so_when_it_was_finished(
    spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(spec, optimise={"steps": 6, "ema": 0.5}, stop={"every": 3})
    assert run(["train", str(spec)]) == 0
    said = capsys.readouterr()
    assert "the training is finished: 6 steps, validation 0." in said.out
    assert "step 3: validation" in said.err
    assert (spec.parent / "run" / "bundle" / "model.yaml").exists()
    assert run(["train", str(spec), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["before"] is True
    assert result["bundle"] == str(spec.parent / "run" / "bundle")
    labelled(spec.parent, "a", blocks(9))
    write(spec, optimise={"steps": 6, "ema": 0.5}, stop={"every": 3}, seed=4)
    assert run(["train", str(spec)]) == 1
    assert "seed was 0 and is 4 now" in capsys.readouterr().err


def test_the_schema_of_the_spec_is_printed_and_other_kinds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "train"]) == 0
    assert "sampling" in json.loads(capsys.readouterr().out)["properties"]
    assert run(["schema", "mask"]) == 1
    assert "give job, train or model" in capsys.readouterr().err
