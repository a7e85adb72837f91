"""Laws of preparing a run: which machine is planned for, when its speed is measured, whose plan stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from small_runs import SmallRun

from tilesseg.cluster.executors import ThreadExecutor
from tilesseg.errors import JobError
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Machine, PatchSpeed
from tilesseg.planning.plan import Plan
from tilesseg.planning.scene_plan import ScenePlan
from tilesseg.planning.stored_plan import usable_scene_plan
from tilesseg.run import prepare_run
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.run.prepare_run import choose_machine, prepare

MACHINE = Machine("cpu", 1, 2)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    image = write_scene(tmp_path / "scene.tif", np.ones((1, 64, 64), np.uint8))
    data = {**job_data(image, write_bundle(tmp_path / "model", margin=0), tmp_path / "run")}
    return parse_job(data, where="test")


@pytest.mark.parametrize(("able", "slots", "planned"), [(8, 3, 3), (2, 3, 2)])
def test_no_more_batches_are_computed_at_the_same_time_than_an_executor_does_tiles(
    job: Job, monkeypatch: pytest.MonkeyPatch, able: int, slots: int, planned: int
) -> None:
    monkeypatch.setattr(
        prepare_run.cluster, "describe_machine", lambda section: replace(MACHINE, parallel_batches=able)
    )
    machine = choose_machine(job, ThreadExecutor(slots))
    assert (machine.slots, machine.parallel_batches) == (slots, planned)
    assert choose_machine(job, None).parallel_batches == able


@pytest.mark.parametrize(("large", "times"), [(64 * 64, 1), (64 * 64 + 1, 0)])
def test_speed_is_measured_once_where_the_first_scene_is_large(
    job: Job, monkeypatch: pytest.MonkeyPatch, large: int, times: int
) -> None:
    asked = list[Plan]()

    def measure(plan: Plan) -> tuple[PatchSpeed, ...]:
        asked.append(plan)
        return ()

    monkeypatch.setattr(prepare_run, "LARGE", large)
    with prepare(job, MACHINE, measure=measure):
        assert len(asked) == times
    with prepare(
        job.model_copy(update={"output": job.output.model_copy(update={"dir": f"{job.output.dir}-2"})}), MACHINE
    ):
        assert len(asked) == times  # nothing measures where nobody asks for it


@pytest.mark.parametrize("share", [None, ArrayShare(1, 2)])
def test_the_plan_of_the_first_scene_that_another_share_has_stored_meanwhile_stands(
    job: Job, monkeypatch: pytest.MonkeyPatch, share: ArrayShare | None
) -> None:
    def stored(*scene: Any, **where: Any) -> ScenePlan | None:
        usable = usable_scene_plan(*scene, **where)
        return usable and replace(usable, notes=("of another share",))

    with prepare(job, MACHINE, share=share):
        monkeypatch.setattr(prepare_run, "usable_scene_plan", stored)
    with prepare(job, MACHINE, share=share) as ready:
        assert ready.first is not None
        assert ("of another share" in ready.first.notes) == (share is not None)


def test_a_job_whose_scenes_are_all_refused_fails_unless_an_earlier_run_has_tiles_of_them(tmp_path: Path) -> None:
    images = [write_scene(tmp_path / f"{name}.tif", np.ones((1, 128, 128), np.uint8)) for name in "ab"]
    data = job_data([str(image) for image in images], write_bundle(tmp_path / "model"), tmp_path / "run")
    data |= {"tiling": {"patch": 32, "overlap": 8, "core": 64}, "input": {"check_range": False}}
    begun = SmallRun(data)
    begun.plan_scenes("a")
    begun.segment("a", limit=1)
    for image in images:
        image.unlink()
    with prepare(begun.job, MACHINE) as ready:
        assert ready.first is None and sorted(ready.refused) == ["a", "b"]
    anew = parse_job({**data, "output": {"dir": str(tmp_path / "anew")}}, where="test")
    with pytest.raises(JobError, match="all 2 scenes are refused, the first for this reason"), prepare(anew, MACHINE):
        pytest.fail("there is nothing to do")
