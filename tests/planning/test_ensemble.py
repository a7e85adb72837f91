"""An ensemble, and turns of a patch: what their members agree about, what they cost, and how a run of them goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data, spec_data, write_bundle, write_scene
from test_previous_release import STORED, stored_json

from tilesseg.cli import segment_command
from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import JobError, ModelError, SourceError, StoreError
from tilesseg.models.spec import ModelSpec, parse_spec
from tilesseg.planning.ensemble import common_contract
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import Plan, parse_plan, plan_job
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.forecast import forecast
from tilesseg.run.run_job import run_job
from tilesseg.store.run_directory import RunDirectory

TILING = {"patch": 64, "core": 64, "blend": "gaussian", "overlap": 32, "batch": 2}


def spec(**changes: Any) -> ModelSpec:
    return parse_spec(spec_data("Positional", **changes), where="test")


def job_of(folder: Path, models: list[Path], *, turns: int = 1, **changes: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    scene = folder / "scene.tif"
    if not scene.exists():
        values = np.random.default_rng(2).integers(0, 250, (1, 128, 128)).astype(np.uint8)
        write_scene(scene, values)
    data = job_data(scene, "", folder / "run", tiling={**TILING, "turns": turns}, **changes)
    return parse_job({**data, "model": [str(model) for model in models]}, where="test")


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """A model of fixed numbers under CC0, and one of the scene's statistics under CC-BY."""
    return [
        write_bundle(tmp_path / "one", "Positional", name="one"),
        write_bundle(
            tmp_path / "two", "Positional", name="two", licence="CC-BY-4.0", normalise={"kind": "scene_mean_std"}
        ),
    ]


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"bands": ["red"]}, "their bands are b1 and red"),
        ({"resolution": 10}, "their pixels are of any size and 10 m"),
        ({"mpp": 0.5}, "their pixels are of any size and 0.5 µm"),
        ({"fill": 7}, "they fill invalid pixels with 0 and 7"),
        ({"classes": spec_data(classes=2)["classes"]}, "their classes are class 0, class 1, class 2 and class 0"),
    ],
)
def test_models_that_do_not_agree_are_refused_with_both_values(changes: dict[str, Any], values: str) -> None:
    with pytest.raises(ModelError, match=f"models positional and other cannot be averaged: {values}.*; give models"):
        common_contract([spec(), parse_spec({**spec_data("Positional"), "name": "other", **changes}, where="test")])


def test_models_that_decide_otherwise_are_refused() -> None:
    halves = [spec(classes=2, activation="sigmoid", decision={"kind": "threshold", "threshold": t}) for t in (0.5, 0.4)]
    with pytest.raises(ModelError, match=r"their decisions are threshold 0\.5 and threshold 0\.4"):
        common_contract(halves)


def test_a_patch_is_legal_for_all_models_and_the_margin_the_largest() -> None:
    sizes = [
        {"offset": 12, "multiple": 16, "stride_multiple": 16, "shrink": 8},
        {"offset": 4, "multiple": 12, "stride_multiple": 4, "halo": 6, "preferred": 76},
    ]
    one, other = (spec(patch=patch, margin=margin) for patch, margin in zip(sizes, (30, 20), strict=True))
    both = common_contract([one, other])
    assert both.margin == 30
    assert (both.patch.stride_multiple, both.patch.shrink, both.patch.halo) == (16, 8, 2)
    legal = [side for side in range(1, 400) if one.patch.legal(side) and other.patch.legal(side)]
    assert legal == [side for side in range(1, 400) if both.patch.legal(side)]
    assert both.patch.preferred == (76 if 76 in legal else None)
    assert common_contract([one, spec()]).margin is None


@pytest.mark.parametrize("sizes", [({"fixed": 64}, {"fixed": 96}), ({"multiple": 8}, {"offset": 1, "multiple": 8})])
def test_models_without_a_common_patch_are_refused(sizes: tuple[dict[str, int], ...]) -> None:
    with pytest.raises(ModelError, match=r"no patch fits all models: one takes sides of .*, another .*; give models"):
        common_contract([spec(patch=patch) for patch in sizes])


def test_turned_patches_lie_on_the_stride_multiple_at_both_ends() -> None:
    loose = spec(patch={"stride_multiple": 8})
    assert common_contract([loose]) is loose
    assert common_contract([loose], turns=8).patch.rule == "0 + k·8"
    assert common_contract([spec(patch={"fixed": 60})], turns=8).patch.rule == "only 60"


def test_a_model_is_named_once(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"model .*one is named 2 times; name each model once"):
        job_of(tmp_path, [models[0], models[0]])


def test_each_model_has_its_own_statistics_and_its_own_check_of_values(models: list[Path], tmp_path: Path) -> None:
    assert run_job(job_of(tmp_path, models), executor=SerialExecutor()).exit_code == 0
    planned = stored_scene_plan(RunDirectory(tmp_path / "run").scene("scene"))
    assert planned is not None
    assert (planned.subtract, planned.divide) == ((0.0,), (1.0,))
    assert planned.others[0].subtract[0] == pytest.approx(124.5, abs=3)
    dark = write_bundle(tmp_path / "dark", "Positional", name="dark", input_range=[0, 1], dtype="float32")
    with pytest.raises(SourceError, match="the model expects 0 to 1, another unit"):
        run_job(job_of(tmp_path / "other", [models[0], dark]), executor=SerialExecutor())


def test_a_mask_names_all_models_and_licences(models: list[Path], tmp_path: Path) -> None:
    assert run_job(job_of(tmp_path, models), executor=SerialExecutor()).exit_code == 0
    with rasterio.open(tmp_path / "run/scenes/scene/scene.tif") as file:
        tags = file.tags()
    assert tags["TILESSEG_MODEL"] == "one + two"
    assert tags["TILESSEG_MODEL_LICENCE"] == "CC0-1.0, CC-BY-4.0"
    assert len(tags["TILESSEG_MODEL_SHA256"].split(", ")) == 2


def test_the_cost_counts_turns_and_models(models: list[Path], tmp_path: Path) -> None:
    texts, factors = [], []
    for turns, chosen in ((1, models[:1]), (8, models)):
        cost = forecast(job_of(tmp_path / str(turns), chosen, turns=turns))
        texts.append(cost.text)
        factors.append(cost.to_json()["scenes"][0]["work_factor"])
        assert (cost.to_json()["turns"], cost.to_json()["models"]) == (turns, len(chosen))
    assert factors[1] == pytest.approx(16 * factors[0])
    assert "× turns" not in texts[0] and "× turns 8 × models 2" in texts[1]


def test_a_run_with_other_turns_or_models_is_refused(models: list[Path], tmp_path: Path) -> None:
    assert run_job(job_of(tmp_path, models[:1]), executor=SerialExecutor()).exit_code == 0
    assert run_job(job_of(tmp_path, models[:1]), executor=SerialExecutor()).exit_code == 0
    with pytest.raises(StoreError, match=r"tiling.turns was 1 and is 4 now"):
        run_job(job_of(tmp_path, models[:1], turns=4), executor=SerialExecutor())
    with pytest.raises(StoreError, match=r"model was .*one.* and is .*two.* now"):
        run_job(job_of(tmp_path, models), executor=SerialExecutor())


def test_turns_and_models_change_the_fingerprint_and_their_order_does_too(models: list[Path], tmp_path: Path) -> None:
    prints = []
    for number, (chosen, turns) in enumerate(((models[:1], 1), (models[:1], 4), (models, 1), (models[::-1], 1))):
        folder = tmp_path / str(number)
        job = job_of(folder, chosen, turns=turns)
        run_job(job, executor=SerialExecutor())
        plan = parse_plan(json.loads((folder / "run/plan.json").read_text()), where=folder)
        assert plan == plan_job(job, Machine("cpu", 1, 1), stored=plan)
        scene = stored_scene_plan(RunDirectory(folder / "run").scene("scene"))
        assert scene is not None
        prints.append(scene.fingerprint(plan))
    assert len(set(prints)) == 4


def test_a_run_of_an_earlier_version_keeps_its_fingerprint() -> None:
    plan: Plan = parse_plan(stored_json("plan.json"), where=STORED)
    scene = stored_scene_plan(RunDirectory(STORED).scene("scene"))
    assert scene is not None and plan.turns == 1 and not plan.members
    assert scene.fingerprint(plan) == "5c4f97d563bd94d44809a6ed07e77ee10b73c820b97fea89e277cd176f221307"


def test_segment_takes_turns_and_several_models(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(segment_command, "_execute", lambda job, **options: jobs.append(job) or 0)
    scene, out = str(tmp_path / "scene.tif"), str(tmp_path / "mask.tif")
    command = ["segment", scene, "--out", out, "--model", str(models[0]), "--model", str(models[1])]
    assert run([*command, "--turns", "4"]) == 0
    assert (jobs[0].models, jobs[0].tiling.turns) == ((str(models[0]), str(models[1])), 4)
    assert run([*command, "--turns", "3"]) == 1
    assert run(command[:-2]) == 0
    assert (jobs[1].model, jobs[1].tiling.turns) == (str(models[0]), 1)
