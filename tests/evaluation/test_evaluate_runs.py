"""Evaluation of runs: all scenes, on the executor of the run, with scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.evaluation.evaluate_masks import Comparison, evaluate_run
from tilesseg.planning.job import parse_job
from tilesseg.raster.metrics import confusion
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

SHAPE = (130, 150)
SCENES = ("north", "south")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two scenes with stored scores, and labels that agree with it in part."""
    folder = tmp_path_factory.mktemp("evaluated")
    draw = np.random.default_rng(0)
    images = []
    for name in SCENES:
        values = draw.integers(20, 250, (1, *SHAPE)).astype(np.uint8)
        images.append({"image": str(write_scene(folder / f"{name}.tif", values))})
    data = job_data(images, write_bundle(folder / "model", "Shades"), folder / "run")
    data["tiling"] = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64}
    data["output"]["scores"] = True
    run_job(parse_job(data, where="test"), executor=SerialExecutor())
    for name in SCENES:
        mask = mask_of(folder, name)
        wrong = draw.random(SHAPE) < 0.2
        labels = np.where(wrong, (mask + 1) % 3, mask).astype(np.uint8)
        with rasterio.open(folder / f"{name}.tif") as image:
            profile = {**image.profile, "count": 1, "dtype": "uint8", "nodata": None}
        with rasterio.open(folder / f"{name}_truth.tif", "w", **profile) as file:
            file.write(labels, 1)
    return folder


def mask_of(folder: Path, name: str) -> NDArray[np.uint8]:
    return RunDirectory(folder / "run").scene(name).read(Window(0, 0, *SHAPE))


def truth_of(folder: Path, name: str) -> NDArray[np.uint8]:
    with rasterio.open(folder / f"{name}_truth.tif") as file:
        return np.asarray(file.read(1))


def test_every_scene_of_a_run_is_counted(folder: Path) -> None:
    labels = str(folder / "{scene}_truth.tif")
    found = evaluate_run(str(folder / "run"), labels, Comparison(scores=True), executor=SerialExecutor())
    assert [scene.name for scene in found.scenes] == list(SCENES)
    classes = len(found.classes)
    for scene in found.scenes:
        mask, truth = mask_of(folder, scene.name), truth_of(folder, scene.name)
        assert (scene.total.confusion == confusion(truth, mask, classes)).all()
        assert scene.total.scores is not None and scene.total.scores.sum() == classes * mask.size
    assert (found.pooled.confusion == sum(scene.total.confusion for scene in found.scenes)).all()


def test_the_command_prints_tables_and_writes_into_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(folder / "run"), "--labels", str(folder / "{scene}_truth.tif")]
    assert run([*arguments, "--scores", "--by", "block"]) == 0
    out = capsys.readouterr().out
    assert "mean of scenes" in out and "pooled" in out and "calibration error" in out
    data = json.loads((folder / "run" / "evaluation.json").read_text())
    assert set(data["scenes"]) == set(SCENES) and data["pooled"]["cross_entropy"] > 0
    assert (folder / "run" / "reliability.png").stat().st_size > 1000
    assert run(["report", str(folder / "run"), "--out", str(folder / "report.html")]) == 0
    page = (folder / "report.html").read_text()
    name = data["classes"][1]
    assert "Against the truth" in page and f"{data['pooled']['classes'][name]['dice']:.3f} [" in page
    assert f"{data['scenes']['south']['classes'][name]['dice']:.3f}</td>" in page
    capsys.readouterr()
    first = data["classes"][0]
    assert run([*arguments, "--fail-under", f"{first}.dice=0.999"]) == 3
    assert f"{first}.dice is 0." in capsys.readouterr().err
    assert run([*arguments, "--fail-under", f"{first}.dice=0.1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "one.tif"], "--labels one.tif is one file, and {run} holds 2 scenes; write {{scene}}"),
        ([], "evaluate takes a mask and its truth, a run and --labels, or two masks and --truth, not 1 paths"),
        (["--labels", "{folder}/{{scene}}_none.tif"], "north_none.tif"),
        (["--labels", "x{{scene}}", "--by", "tile"], "--by is tile, and the units are scene or block"),
        (["--labels", "x{{scene}}", "--fail-under", "roof=1"], "--fail-under roof=1 is no CLASS.METRIC=VALUE"),
        (["--labels", "x{{scene}}", "--values", "0"], "--values has the part '0'; write VALUE=CLASS"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    places = {"run": folder / "run", "folder": folder}
    assert run(["evaluate", str(folder / "run"), *(text.format(**places) for text in arguments)]) == 1
    error = capsys.readouterr().err.strip()
    assert words.format(**places) in error and "\n" not in error


def test_a_scene_without_labels_is_named_and_the_others_are_evaluated(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "north_truth.tif").write_bytes((folder / "north_truth.tif").read_bytes())
    labels = str(tmp_path / "{scene}_truth.tif")
    assert run(["evaluate", str(folder / "run"), "--labels", labels, "--out", str(tmp_path / "out")]) == 3
    assert "not evaluated: south: " in capsys.readouterr().err
    assert (tmp_path / "out" / "north-error.tif").exists()
