"""A run directory that the previous release left half-way is understood: its plans and its ledger. It does not go on.

`previous_release` holds the JSON files of a run of commit 0303233 that was killed, without its arrays.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import StoreError
from tilesseg.planning.job import parse_job
from tilesseg.planning.plan import Plan, parse_plan, plan_job
from tilesseg.planning.scene_plan import ScenePlan, scene_to_json
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.run_job import job_status, run_job
from tilesseg.store.run_directory import RunDirectory

STORED = Path(__file__).parent / "previous_release"


def stored_json(name: str) -> Any:
    return json.loads((STORED / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse_plan(stored_json("plan.json"), where=STORED)


@pytest.fixture(scope="module")
def scene() -> ScenePlan:
    found = stored_scene_plan(RunDirectory(STORED).scene("scene"))
    assert found is not None
    return found


def holds(data: Any, stored: Any) -> bool:
    """Whether every stored key has its value; a later version has more keys."""
    if isinstance(stored, dict):
        return all(key in data and holds(data[key], value) for key, value in stored.items())
    if isinstance(stored, list):
        return len(data) == len(stored) and all(map(holds, data, stored))
    return bool(data == stored)


def test_a_stored_plan_is_parsed_and_written_with_the_same_keys_and_values(plan: Plan) -> None:
    assert holds(plan.to_json(), stored_json("plan.json"))
    assert (plan.compute.parallel_batches, stored_json("plan.json")["lanes"]) == (2, 2)
    assert [speed.patch for speed in plan.compute.speeds] == [608, 1120, 2144]


def test_a_stored_scene_plan_is_parsed_and_written_with_the_same_keys_and_values(scene: ScenePlan) -> None:
    assert holds(scene_to_json(scene), stored_json("scenes/scene/plan.json")["scene"])


def test_a_run_of_other_rules_is_refused_before_anything_is_changed(tmp_path: Path, plan: Plan) -> None:
    """Its statistics and valid pixels are those of its plan: a mask by two rules would be neither."""
    run = shutil.copytree(STORED, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    data = yaml.safe_load((STORED / "job.yaml").read_text(encoding="utf-8"))
    job = parse_job({**data, "model": "landscape", "output": {"dir": str(run)}}, where="test")
    with pytest.raises(StoreError, match=r"planned by rules 1 .* with rules 2; finish it with the version that began"):
        plan_job(job, None, stored=plan)
    with pytest.raises(StoreError, match="planned by rules 1"):
        run_job(job, executor=SerialExecutor())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_state_of_a_stored_run_is_read(tmp_path: Path) -> None:
    run = shutil.copytree(STORED, tmp_path / "run")
    (report,) = job_status(run).scenes
    assert (report.state, report.done, report.tiles, report.failed) == ("unfinished", 3, 25, {})
