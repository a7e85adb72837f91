"""Speeds by patch: measured when it pays, remembered, and never in the way of a run."""

from __future__ import annotations

import importlib
import json
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_scene, write_unet_bundle
from numpy.typing import NDArray
from test_roi_choice import slide

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import ModelError
from tilesseg.models.network import Call, Network
from tilesseg.models.runtime_choice import Able
from tilesseg.planning import patch_speed as probe
from tilesseg.planning.job import Job, TilingOptions, parse_job
from tilesseg.planning.machine import Compute, Machine, PatchSpeed, speed_at
from tilesseg.planning.plan import Plan, plan_job
from tilesseg.run import run_job as run
from tilesseg.run.job_array_share import ArrayShare
from tilesseg.run.prepare_run import measure_for, prepare
from tilesseg.run.run_job import run_job
from tilesseg.run.worker_check import prove
from tilesseg.run.worker_state import Assignment, Opened
from tilesseg.store.run_directory import RunDirectory

MACHINE = Machine("cpu", 1, 2)
SPEEDS = (PatchSpeed(176, 1.0, 300.0), PatchSpeed(1072, 1.5, 400.0), PatchSpeed(2096, 3.0, 600.0))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where speeds are remembered."""
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "speed.json"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unet_bundle(tmp_path_factory.mktemp("bundle") / "unet", bands=1, classes=2, depth=1, width=1)


@pytest.fixture
def job(bundle: Path, tmp_path: Path) -> Job:
    return parse_job(job_data(tmp_path / "none.tif", bundle, tmp_path / "run"), where="test")


@dataclass
class Measured:
    """Stands for a measurement, and counts how often it is asked."""

    speeds: tuple[PatchSpeed, ...] = SPEEDS
    plans: list[Plan] = field(default_factory=list)

    def __call__(self, plan: Plan) -> tuple[PatchSpeed, ...]:
        self.plans.append(plan)
        return self.speeds


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans for which a process would have been started to measure."""
    asked: list[Plan] = []

    def measured(plan: Plan, limit: float) -> list[tuple[int, float, float]]:
        asked.append(plan)
        return [(512, 1.0, 400.0), (1024, 1.5, 900.0), (2048, 2.0, 2100.0)]

    monkeypatch.setattr(probe, "_measured_apart", measured)
    return asked


def sides(found: Sequence[PatchSpeed]) -> list[int]:
    return [one.patch for one in found]


def test_what_was_measured_is_remembered(job: Job, apart: list[Plan], cache: Path) -> None:
    plan = plan_job(job, MACHINE)
    first = probe.measure(plan, memory=None, tiles=1)
    assert probe.measure(plan, memory=None, tiles=1) == first
    assert (sides(first), len(apart)) == ([512, 1024, 2048], 1)
    assert [path.name for path in cache.parent.iterdir()] == ["speed.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"compute": Compute("cpu", 2, 2)},
        {"compute": Compute("cuda", 1, 2)},
        {"model_sha256": "0" * 64},
        {"scores": (0,)},
        {"asked": {"tiling": {"overlap": 64, "margin": "auto", "blend": "auto", "batch": "auto"}}},
        {"asked": {"tiling": {"overlap": "auto", "margin": "auto", "blend": "auto", "batch": 4}}},
    ],
    ids=["threads", "device", "model", "scores", "overlap", "batch"],
)
def test_another_network_or_machine_is_measured_anew(
    job: Job, apart: list[Plan], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "able", lambda device: Able(processor="this one"))
    plan = plan_job(job, MACHINE)
    for one in (plan, replace(plan, **changes), plan):
        probe.measure(one, memory=None, tiles=1)
    assert len(apart) == 2


def test_another_processor_runtime_or_precision_is_measured_anew(
    job: Job, apart: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_job(job, MACHINE)
    used = plan.compute.choice
    for name in ("this one", "that one", "this one"):
        monkeypatch.setattr(probe, "able", lambda device, name=name: Able(processor=name))
        for choice in (replace(used, precision="bf16"), replace(used, runtime="openvino"), used):
            probe.measure(replace(plan, compute=replace(plan.compute, choice=choice)), memory=None, tiles=1)
    assert len(apart) == 6


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": [[1, 2]]}', '{"a": [["x", 2, 3]]}', "\xff"])
def test_a_damaged_memory_is_measured_again_and_mended(job: Job, apart: list[Plan], cache: Path, text: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(text.encode("latin-1"))
    plan = plan_job(job, MACHINE)
    for _ in range(2):
        assert sides(probe.measure(plan, memory=None, tiles=1)) == [512, 1024, 2048]
    assert len(apart) == 1 and len(json.loads(cache.read_text())) == 1


def test_where_nothing_can_be_kept_it_is_measured_each_time(job: Job, apart: list[Plan], cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    plan = plan_job(job, MACHINE)
    for _ in range(2):
        assert probe.measure(plan, memory=None, tiles=1)
    assert len(apart) == 2


def test_patches_that_do_not_fit_into_a_worker_with_its_tiles_are_left_out(job: Job, apart: list[Plan]) -> None:
    plan = plan_job(job, MACHINE)
    assert sides(probe.measure(plan, memory=4 * 10**9, tiles=1)) == [512, 1024, 2048]
    few, one = probe.measure(plan, memory=4 * 10**9, tiles=20), probe.measure(plan, memory=10**9, tiles=1)
    for found in (few, one):
        assert sides(found)[:2] == [512, 1024] and 1024 < found[2].patch < 2048
        assert [o.inferred for o in found] == [False, False, True]
    assert sides(probe.measure(plan, memory=3 * 10**8, tiles=1)) == []


def test_a_network_is_measured_in_a_process_of_its_own(job: Job, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "by_patch", None)  # of this process, which must not measure
    monkeypatch.setattr(probe, "SECONDS", 2.0)
    found = probe.measure(plan_job(job, MACHINE), memory=None, tiles=1)
    assert sides(found)[:2] == sorted(sides(found))[:2] and len(found) >= 2
    assert all(one.mpx_per_s > 0 and one.memory_mb > 50 for one in found)
    assert list(json.loads(cache.read_text()).values()) == [[[o.patch, o.mpx_per_s, o.memory_mb] for o in found]]


def test_a_network_that_cannot_be_loaded_is_refused_with_its_reason(job: Job) -> None:
    plan = replace(plan_job(job, MACHINE), model_sha256="0" * 64)
    with pytest.raises(ModelError, match="in the plan; give every worker the same bundle"):
        probe.measure(plan, memory=None, tiles=1)


def test_measuring_ends_where_memory_would(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_job(job.model_copy(update={"tiling": TilingOptions(batch=1)}), MACHINE)
    monkeypatch.setattr(probe, "measured_patches", lambda spec, tiling: (32, 64, 128))
    monkeypatch.setattr(probe, "ROUNDS", 0)  # the sizes are chosen before the rounds, which take a second each
    # 100 MB for 32² px, so 300 more for 64², and 1200 for 128²
    for limit, found in ((499.0, [32]), (501.0, [32, 64]), (1701.0, [32, 64, 128])):
        monkeypatch.setattr(probe, "peak_mb", iter([100.0, 200.0, 500.0, 1700.0]).__next__)
        assert list(dict.fromkeys(sides([*probe.by_patch(plan, limit_mb=limit, seconds=60.0)]))) == found


def test_measuring_ends_where_time_would(job: Job) -> None:
    found = [*probe.by_patch(plan_job(job, MACHINE), limit_mb=1e6, seconds=0.0)]
    assert len(set(sides(found))) == 1


# When it is asked: `prepare`.


def ask(bundle: Path, folder: Path, *, shape: tuple[int, int], scenes: int = 1, **changes: Any) -> Job:
    """A job over scenes of one value."""
    for number in range(scenes):
        write_scene(folder / f"scene-{number}.tif", np.full((1, *shape), 7, np.uint8), compress="deflate", tiled=True)
    own = {"input": {"check_range": False}, **changes}
    return parse_job(job_data(str(folder / "scene-*.tif"), bundle, folder / "run", **own), where="test")


LARGE, SMALL = (4000, 4096), (512, 512)


def test_a_large_scene_of_a_flexible_model_is_cut_by_what_was_measured(bundle: Path, tmp_path: Path) -> None:
    job, measured = ask(bundle, tmp_path, shape=LARGE, scenes=2), Measured()
    with prepare(job, MACHINE, measure=measured) as ready:
        assert len(measured.plans) == 1 and measured.plans[0].compute.speeds == ()
        assert ready.plan.compute.speeds == SPEEDS and ready.first is not None
        assert ready.first.layout.lattice.stride == 2048
        assert any(note.startswith("patch 20") and "3 Mpx/s" in note for note in ready.first.notes)
        stored = json.loads((tmp_path / "run" / "plan.json").read_text())["speeds"]
        assert [one["patch"] for one in stored] == sides(SPEEDS)


def test_the_first_scene_is_opened_and_its_tissue_sought_once_though_its_patch_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look for tissue reads the whole slide: done twice, it doubles the wait before the first tile."""
    calls = Counter[str]()

    def counted(module: str, name: str) -> None:
        function = getattr(importlib.import_module(module), name)
        monkeypatch.setattr(
            f"{module}.{name}", lambda *given, **how: (calls.update([name]), function(*given, **how))[1]
        )

    model = write_unet_bundle(tmp_path / "rgb", bands=3, classes=2, depth=1, width=1)
    slide(tmp_path / "scene.tif", (slice(200, 900), slice(300, 800)), shape=LARGE)
    own = {"input": {"check_range": False, "mpp": 0.5}}
    job, measured = (
        parse_job(job_data(tmp_path / "scene.tif", model, tmp_path / "run", **own), where="test"),
        Measured(),
    )
    counted("tilesseg.planning.tissue", "tissue")
    counted("tilesseg.planning.scene_plan", "open_source")
    with prepare(job, MACHINE, measure=measured) as ready:
        assert ready.first is not None and ready.first.cells is not None and len(measured.plans) == 1
        assert ready.first.layout.lattice.stride == 2048
    assert calls == {"tissue": 1, "open_source": 1}


@pytest.mark.parametrize(
    ("shape", "changes"),
    [(SMALL, {}), (LARGE, {"tiling": {"patch": 1040}}), (LARGE, {"compile": True})],
    ids=["small", "patch given", "compiled"],
)
def test_nothing_is_measured_where_nothing_would_be_chosen_by_it(
    bundle: Path, tmp_path: Path, shape: tuple[int, int], changes: dict[str, Any]
) -> None:
    measured = Measured()
    with prepare(ask(bundle, tmp_path, shape=shape, **changes), MACHINE, measure=measured) as ready:
        assert (measured.plans, ready.plan.compute.speeds) == ([], ())


def test_a_model_of_global_view_or_of_its_own_size_is_not_measured(tmp_path: Path) -> None:
    for name, changes in (
        ("global", {"margin": None}),
        ("own", {"patch": {"multiple": 2, "stride_multiple": 2, "preferred": 128}}),
    ):
        own = write_unet_bundle(tmp_path / name / "unet", bands=1, classes=2, depth=1, width=1, **changes)
        measured = Measured()
        with prepare(ask(own, tmp_path / name, shape=LARGE), MACHINE, measure=measured):
            assert measured.plans == []


def test_without_a_measurement_patches_are_as_usual(bundle: Path, tmp_path: Path) -> None:
    job = ask(bundle, tmp_path, shape=LARGE)
    with prepare(job, MACHINE) as ready:
        assert ready.plan.compute.speeds == () and ready.first is not None
        assert ready.first.layout.lattice.stride == 1024


def test_a_share_of_a_run_goes_by_what_the_first_one_measured(bundle: Path, tmp_path: Path) -> None:
    job, measured = ask(bundle, tmp_path, shape=LARGE, scenes=2), Measured()
    with (
        prepare(job, MACHINE, measure=measured, share=ArrayShare(1, 2)) as one,
        prepare(job, MACHINE, measure=measured, share=ArrayShare(2, 2)) as two,
    ):
        assert len(measured.plans) == 1
        assert one.plan.compute.speeds == two.plan.compute.speeds == SPEEDS
        assert one.first is not None and two.first is not None
        assert one.first.layout == two.first.layout


def test_where_this_machine_computes_it_is_measured_here_with_what_a_worker_has(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(probe, "measure", lambda plan, **more: (asked.update(more), SPEEDS)[1])
    said: list[str] = []
    job = ask(bundle, tmp_path, shape=SMALL, cluster={"kind": "local", "workers": 1, "threads": 3})
    monkeypatch.setattr(cluster, "worker_memory", lambda asked, device: 2 * 10**9)
    assert measure_for(job, None, say=said.append)(plan_job(job, MACHINE)) == SPEEDS
    assert asked == {"memory": 2 * 10**9, "tiles": 3} and len(said) == 1


def test_where_workers_are_elsewhere_one_of_them_measures(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "is_here", lambda asked: False)
    monkeypatch.setattr(probe, "measure", lambda plan, **more: pytest.fail("this machine does not compute"))
    asked: list[Any] = []
    monkeypatch.setattr(cluster, "ask_one", lambda executor, function: (asked.append((executor, function)), SPEEDS)[1])
    executor, plan = DaskExecutor.__new__(DaskExecutor), plan_job(job, MACHINE)
    assert measure_for(job, executor)(plan) == SPEEDS
    [(who, function)] = asked
    assert who is executor and (function.args, function.keywords) == ((plan,), {"memory": None, "tiles": 1})
    assert pickle.loads(pickle.dumps(function.args)) == (plan,)


@pytest.mark.parametrize(("speeds", "proven"), [(SPEEDS, 176), ((), None)], ids=["measured", "unknown"])
def test_a_worker_proves_itself_with_the_smallest_patch_where_the_planned_one_was_measured(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speeds: tuple[PatchSpeed, ...], proven: int | None
) -> None:
    given, needed, make = list[int](), list[float](), Opened.network

    def network(opened: Opened, call: Call) -> Network:
        def noted(patches: NDArray[Any]) -> NDArray[Any]:
            given.append(patches.shape[-1])
            return inner(patches)

        inner = make(opened, call)
        return noted

    monkeypatch.setattr(Opened, "network", network)
    monkeypatch.setattr(run, "measure_for", lambda *job, **say: Measured(speeds))
    monkeypatch.setattr(cluster, "check_memory", lambda asked, *, needed_mb, device: needed.append(needed_mb))
    assert run_job(ask(bundle, tmp_path, shape=LARGE), executor=SerialExecutor()).exit_code == 0
    planned = given[-1]
    assert given[0] == (proven or planned) and set(given[1:]) == {planned} and planned > 176
    if speeds:
        known = speed_at(planned, speeds)
        assert known is not None and needed[0] > known.memory_mb
    given.clear()
    assert prove(Assignment.of(RunDirectory(tmp_path / "run"), first="scene-0"), timed=True).problem is None
    assert set(given) == {planned}  # the seconds of a batch are those of the planned one
