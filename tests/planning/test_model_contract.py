"""A job with a foreign model: what its trial shows is refused or noted by the plan, or by the first worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_scene
from foreign_models import write_model

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.doubts import codes_of
from tilesseg.errors import JobError, ModelError
from tilesseg.models.trial import model_trial
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.stored_plan import open_run_directory, stored_scene_plan
from tilesseg.run.run_job import run_job

pytest.importorskip("onnxruntime")


def job_with(folder: Path, name: str, kind: str = "onnx", **tiling: Any) -> Job:
    image = np.random.default_rng(1).integers(0, 255, (3, 90, 110)).astype(np.uint8)
    scene = write_scene(folder / "scene.tif", image, names=("red", "green", "blue"))
    model = write_model(folder / "model", name, kind)
    return parse_job(job_data(scene, model, folder / "run", tiling={"patch": 64, **tiling}), where="test")


@pytest.mark.parametrize(
    ("name", "words"),
    [("sigmoid-inside", "set activation: none"), ("argmax", "gives labels"), ("margin-0", "set margin: 3")],
)
def test_what_a_trial_shows_is_refused_before_anything_is_written(tmp_path, name, words):
    with pytest.raises(ModelError, match=words):
        run_job(job_with(tmp_path, name), executor=SerialExecutor())
    assert not (tmp_path / "run" / "scenes").exists()


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_auto_blends_a_network_that_sees_the_whole_patch_and_every_scene_says_so(tmp_path, kind):
    report = run_job(job_with(tmp_path, "normed-margin", kind), executor=SerialExecutor())
    run, plan = open_run_directory(tmp_path / "run")
    planned = stored_scene_plan(run.scene("scene"))
    assert report is not None and planned is not None and planned.layout.blend == "gaussian"
    assert plan.spec.margin is None and codes_of(planned.notes) == ("sees-whole-patch",)


def test_crop_of_a_network_that_sees_the_whole_patch_is_refused_by_name(tmp_path):
    with pytest.raises(JobError, match="InstanceNormalization, which see the whole patch"):
        run_job(job_with(tmp_path, "normed-margin", blend="crop"), executor=SerialExecutor())


def test_a_worker_tries_what_nothing_could_try_where_the_job_was_planned(tmp_path, monkeypatch):
    runtimes = iter([None])
    monkeypatch.setattr(model_trial, "_runtime", lambda bundle: next(runtimes, "onnxruntime"))
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(JobError, match="set activation: none"):
        run_job(job_with(tmp_path, "sigmoid-inside"), executor=SerialExecutor())
    assert open_run_directory(tmp_path / "run")[1].trial.tried is False
