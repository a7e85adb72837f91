"""A run directory that the previous release left half-way is understood: its plans, its fingerprints, its ledger.

`previous_release` holds the JSON files of a run of commit 0303233 that was killed, without its arrays.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tilesseg.planning.plan import Plan, parse_plan
from tilesseg.planning.scene_list import SCENE_LIST, read_scene_list
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.planning.stored_plan import stored_scene_plan
from tilesseg.run.run_job import job_status
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


def test_a_stored_plan_is_parsed_and_written_with_the_same_keys_and_values(plan: Plan) -> None:
    assert plan.to_json() == stored_json("plan.json")
    assert (plan.compute.parallel_batches, stored_json("plan.json")["lanes"]) == (2, 2)
    assert [speed.patch for speed in plan.compute.speeds] == [608, 1120, 2144]


def test_a_stored_scene_plan_has_the_fingerprint_and_the_key_that_it_had(plan: Plan, scene: ScenePlan) -> None:
    assert scene.fingerprint(plan) == (STORED / "scenes" / "scene" / "fingerprint").read_text(encoding="utf-8")
    (listed,) = read_scene_list(STORED / SCENE_LIST)
    assert plan.key(listed) == stored_json("scenes/scene/plan.json")["key"]


def test_the_state_of_a_stored_run_is_read(tmp_path: Path) -> None:
    run = shutil.copytree(STORED, tmp_path / "run")
    (report,) = job_status(run).scenes
    assert (report.state, report.done, report.tiles, report.failed) == ("unfinished", 3, 25, {})
