"""Engine and precision are decided once, by the plan, for the machine that computes; workers follow or say why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from fakes import LOSES, FakeModel, fake_model, job_data, write_bundle, write_scene, write_unet_bundle

from tilesseg.cli.main import run
from tilesseg.cluster import connect as cluster
from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.cluster.queue import submit
from tilesseg.errors import DeviceLost, JobError, ModelError
from tilesseg.events import Event, Note, ScenePlanned, TileDone
from tilesseg.models import hardware as machine
from tilesseg.models import runtime_choice as choice
from tilesseg.models.engines import torch_engine
from tilesseg.models.network import Call, Network
from tilesseg.planning import plan
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import Job, parse_job
from tilesseg.planning.machine import Compute, Machine
from tilesseg.planning.plan import plan_job
from tilesseg.planning.scene_list import find_scenes
from tilesseg.run import worker_state as opened
from tilesseg.run.run_job import run_job
from tilesseg.run.worker_check import prove
from tilesseg.run.worker_state import Assignment
from tilesseg.store.run_directory import RunDirectory

TILING = {"patch": 64, "core": 64, "blend": "gaussian", "overlap": 32, "batch": 2}
FAST = choice.Able(("torch", "openvino", "onnxruntime"), ("bf16", "fp32"))
PLAIN = choice.Able()


def unet_job(tmp_path: Path, **changes: Any) -> Job:
    values = np.random.default_rng(1).integers(0, 250, (3, 128, 128)).astype(np.uint8)
    scene = write_scene(tmp_path / "scene.tif", values)
    model = write_unet_bundle(tmp_path / "unet")
    return parse_job(job_data(scene, model, tmp_path / "run", tiling=TILING, **changes), where="test")


def label_job(folder: Path, *, engine: str = "Identity", scenes: int = 1, **changes: Any) -> Job:
    """Scenes of four tiles."""
    rng = np.random.default_rng(2)
    for number in range(scenes):
        write_scene(folder / f"s{number}.tif", rng.integers(0, 3, (1, 128, 128)).astype(np.uint8))
    model = write_bundle(folder / "model", engine, input_range=[0, 3])
    return parse_job(job_data(str(folder / "s*.tif"), model, folder / "run", tiling=TILING, **changes), where="test")


def test_the_plan_decides_for_the_machine_that_computes(tmp_path: Path) -> None:
    job = unet_job(tmp_path)
    slow, fast = plan_job(job, Machine("cpu", 1, 1, PLAIN)), plan_job(job, Machine("cpu", 1, 1, FAST))
    assert (slow.compute.choice.runtime, slow.compute.choice.precision) == ("torch", "fp32")
    assert (fast.compute.choice.runtime, fast.compute.choice.precision) == ("openvino", "bf16")
    exact = plan_job(job.model_copy(update={"engine": "torch", "precision": "fp32"}), Machine("cpu", 1, 1, FAST))
    assert (exact.compute.choice.runtime, exact.compute.choice.precision) == ("torch", "fp32")


def test_torch_alone_compiles(tmp_path: Path) -> None:
    planned = plan_job(unet_job(tmp_path, compile=True), Machine("cpu", 1, 1, FAST))
    assert (planned.compute.choice.runtime, planned.compute.compile) == ("torch", True)
    with pytest.raises(JobError, match="compile is for torch, and engine is openvino; leave one out"):
        unet_job(tmp_path, compile=True, engine="openvino")


def test_what_was_decided_stays_decided_when_a_run_goes_on_elsewhere(tmp_path: Path) -> None:
    job = unet_job(tmp_path)
    first = plan_job(job, Machine("cpu", 1, 1, FAST))
    stored = plan.parse_plan(json.loads(json.dumps(first.to_json())), where=tmp_path)
    assert plan_job(job, Machine("cpu", 4, 4, PLAIN), stored=stored).compute == first.compute


def test_what_the_machine_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="openvino is requested and not installed"):
        plan_job(unet_job(tmp_path, engine="openvino"), Machine("cpu", 1, 1, PLAIN))


def test_another_engine_or_precision_makes_another_mask(tmp_path: Path) -> None:
    """So that neither tiles nor finished scenes of one are taken for those of another."""
    job = label_job(tmp_path)
    run_job(job, executor=SerialExecutor())
    planned, scene = plan_job(job, None), opened.stored_scene_plan(RunDirectory(tmp_path / "run").scene("s0"))
    assert scene is not None
    (found,) = find_scenes(job.scenes)

    def by(compute: Compute) -> tuple[str, str]:
        other = replace(planned, compute=compute)
        return other.key(found), scene.fingerprint(other)

    used = planned.compute
    others = [
        used,
        replace(used, choice=replace(used.choice, runtime="openvino")),
        replace(used, choice=replace(used.choice, precision="bf16")),
        replace(used, compile=True),
    ]
    assert [len({*names}) for names in zip(*map(by, others), strict=True)] == [4, 4]
    assert by(replace(used, choice=replace(used.choice, why="in other words"))) == by(used)


def test_a_place_where_nothing_is_computed_decides_nothing(tmp_path: Path) -> None:
    """Submitting, on a login node without OpenVINO, a job for nodes that have it."""
    job = unet_job(tmp_path, engine="openvino", precision="bf16")
    submit.check_submission(job)
    assert plan_job(job, None).compute.choice == choice.NATIVE


def test_the_machine_is_asked_what_it_is_able_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "able", lambda device: replace(FAST, processor=f"of {device}"))
    assert cluster.describe_machine(Cluster(kind="serial", device="cpu")).able == replace(FAST, processor="of cpu")


@pytest.mark.parametrize(("device", "build", "kind"), [("cpu", "2.13.0", "cpu"), ("auto", "2.13.0+cpu", "cpu")])
def test_pytorch_is_not_asked_for_a_gpu_that_it_cannot_have(
    monkeypatch: pytest.MonkeyPatch, device: str, build: str, kind: str
) -> None:
    monkeypatch.setattr(machine, "version", lambda name: build)
    monkeypatch.setattr(torch_engine, "pick_device", None)
    assert machine.kind_of(device) == kind


def test_any_other_device_is_what_pytorch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "version", lambda name: "2.13.0")
    asked: list[str] = []

    def pick(device: str) -> torch.device:
        asked.append(device)
        return torch.device("cuda:0")

    monkeypatch.setattr(torch_engine, "pick_device", pick)
    assert [machine.kind_of(device) for device in ("auto", "cuda", "cuda:1")] == ["cuda"] * 3
    assert asked == ["auto", "cuda", "cuda:1"]


def test_planning_a_unet_for_this_processor_imports_no_pytorch(tmp_path: Path) -> None:
    job = unet_job(tmp_path)
    program = f"""
import sys
from tilesseg.planning.cluster_options import Cluster
from tilesseg.cluster.connect import describe_machine
from tilesseg.planning.job import parse_job
from tilesseg.models import find_bundle
from tilesseg.planning.plan import plan_job
from tilesseg.planning.model_contract import check_crop
job = parse_job({job.model_dump(mode="json", exclude_defaults=True)!r}, where="test")
plan_job(job, describe_machine(Cluster(device="cpu")))
check_crop(find_bundle(job.model), None)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.cluster
def test_workers_elsewhere_are_asked_and_this_machine_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    here = cluster.able("cpu")
    monkeypatch.setattr(cluster, "able", lambda device: choice.Able(("of this process",)))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as running:
        there = Cluster(kind="address", address=running.scheduler_address, device="cpu")
        with cluster.connect(there, "cpu") as executor:
            assert isinstance(executor, cluster.DaskExecutor)
            assert cluster.ask_machine(executor, there).able == here


def test_a_worker_that_cannot_follow_the_plan_says_why(tmp_path: Path) -> None:
    job = unet_job(tmp_path)
    run_job(job, executor=SerialExecutor())
    directory = RunDirectory(tmp_path / "run")
    planned = plan.parse_plan(directory.read_json("plan.json"), where=directory.path)
    impossible = replace(planned, compute=replace(planned.compute, choice=choice.Choice("onnxruntime", "fp32")))
    directory.write_json("plan.json", impossible.to_json())
    assert "onnxruntime" in str(prove(Assignment.of(directory, first="scene")).problem)


def test_a_proof_predicts_a_second_time_only_where_the_seconds_are_asked_for(tmp_path: Path) -> None:
    run_job(unet_job(tmp_path), executor=SerialExecutor())
    work = Assignment.of(RunDirectory(tmp_path / "run"), first="scene")
    untimed, timed = prove(work), prove(work, True)
    assert (untimed.problem, timed.problem) == (None, None)
    assert untimed.seconds_per_batch == 0 < timed.seconds_per_batch


class Counted(FakeModel):
    """Which networks were made, and what each was given."""

    def __init__(self, made: list[Call], given: list[tuple[Any, ...]]) -> None:
        super().__init__(fake_model().spec, fake_model().engine)
        object.__setattr__(self, "made", made)
        object.__setattr__(self, "given", given)

    def network(self, call: Call) -> Network:
        self.made.append(call)  # type: ignore[attr-defined]
        network = super().network(call)

        def counting(patches: Any) -> Any:
            self.given.append((call, patches.dtype, patches.shape))  # type: ignore[attr-defined]
            return network(patches)

        return counting


@pytest.mark.parametrize("workers", [SerialExecutor(), ThreadExecutor(4)])
def test_proof_and_tiles_of_all_scenes_that_are_alike_call_one_network_with_one_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Any
) -> None:
    """It is compiled once, before the first tile."""
    made: list[Call] = []
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(plan, "load_model", lambda *a, **k: Counted(made, given))
    report = run_job(label_job(tmp_path, scenes=3), executor=workers)
    assert report.exit_code == 0 and [scene.done for scene in report.scenes] == [4, 4, 4]
    assert len(made) == 1 and set(given) == {(made[0], np.dtype("uint8"), (2, 1, 64, 64))}


def test_few_networks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Call] = []
    run_job(label_job(tmp_path), executor=SerialExecutor())
    monkeypatch.setattr(plan, "load_model", lambda *a, **k: Counted(made, []))
    run_of = opened.Opened(Assignment.of(RunDirectory(tmp_path / "run"), first="s0"))
    first = run_of.call("s0", run_of.source("s0"))
    calls = [replace(first, dtype=np.dtype(code)) for code in "BHIfd"]
    kept = run_of.network(calls[0])
    for call in calls[1:-1]:
        run_of.network(call)
        assert run_of.network(calls[0]) is kept
    assert made == calls[:-1]
    run_of.network(calls[-1])
    run_of.network(calls[1])
    assert made == [*calls, calls[1]]


def test_plan_run_report_and_products_name_engine_and_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = unet_job(tmp_path, engine="torch", precision="fp32")
    (tmp_path / "job.yaml").write_text(json.dumps(job.model_dump(mode="json")))
    assert run(["plan", str(tmp_path / "job.yaml")]) == 0
    assert "engine torch, fp32: PyTorch is requested" in capsys.readouterr().out
    assert run(["plan", str(tmp_path / "job.yaml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["engine"], told["precision"], told["compile"]) == ("torch", "fp32", False) and told["why"]
    assert run(["run", str(tmp_path / "job.yaml")]) == 0
    assert "engine torch, fp32: PyTorch is requested" in capsys.readouterr().err
    assert "torch, fp32: PyTorch is requested" in (tmp_path / "run" / "report.html").read_text()
    with rasterio.open(tmp_path / "run" / "scenes" / "scene" / "scene.tif") as file:
        assert (file.tags()["TILESSEG_ENGINE"], file.tags()["TILESSEG_PRECISION"]) == ("torch", "fp32")


def test_a_segment_of_one_scene_takes_engine_and_precision(tmp_path: Path) -> None:
    unet_job(tmp_path)
    asked = ["--model", str(tmp_path / "unet"), "--out", str(tmp_path / "m.tif"), "--run", str(tmp_path / "kept")]
    only = ["--engine", "torch", "--precision", "fp32", "--workers", "1", "--patch", "64"]
    assert run(["segment", str(tmp_path / "scene.tif"), *asked, *only]) == 0
    stored = json.loads((tmp_path / "kept" / "plan.json").read_text())
    assert (stored["asked"]["engine"], stored["asked"]["precision"]) == ("torch", "fp32")


@pytest.fixture
def losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that makes the next prediction lose its device."""
    path = tmp_path / "losing" / "now"
    path.parent.mkdir()
    monkeypatch.setenv(LOSES, str(path))
    yield path
    assert not path.exists() and len(list(path.parent.iterdir())) == 1  # it has happened, once


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_a_lost_device_ends_a_run_of_one_process_and_the_next_run_finishes_it(
    tmp_path: Path, losing: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    job = label_job(tmp_path, engine="Losing", cluster={"kind": kind})

    def lose(event: Event) -> None:
        if isinstance(event, ScenePlanned):
            losing.touch()

    with pytest.raises(DeviceLost, match="illegal memory access"):
        run_job(job, listeners=[lose])
    assert not RunDirectory(tmp_path / "run").scene("s0").failed()
    report = run_job(job)
    assert report.exit_code == 0 and report.scenes[0].done == 4


@pytest.mark.cluster
@pytest.mark.kill
def test_a_worker_process_whose_device_is_lost_is_replaced_and_no_tile_fails(tmp_path: Path, losing: Path) -> None:
    environment = {LOSES: str(losing)}
    job = label_job(tmp_path, engine="Losing", cluster={"workers": 1, "threads": 2, "environment": environment})
    events: list[Event] = []

    def lose(event: Event) -> None:
        events.append(event)
        if isinstance(event, ScenePlanned):
            losing.touch()

    report = run_job(job, listeners=[lose])
    assert report.exit_code == 0 and report.scenes[0].done == 4 and not report.scenes[0].failed
    (lost,) = (path.name for path in losing.parent.iterdir())
    workers = {event.worker for event in events if isinstance(event, TileDone)}
    assert workers and not [worker for worker in workers if worker.endswith(f":{lost}")]
    assert not [event.text for event in events if isinstance(event, Note) and "left out" in event.text]
    assert int(lost) != os.getpid()


@pytest.mark.parametrize(
    ("kind", "runtime", "device", "compiled", "changes"),
    [
        ("unet", "torch", "cpu", False, False),
        ("unet", "torch", "cpu", True, True),
        ("torchscript", "torch", "cpu", False, True),
        ("exported", "torch", "cpu", False, True),
        ("torchscript", "openvino", "cpu", False, False),
        ("torchscript", "torch", "cuda:0", False, False),
    ],
)
def test_the_engine_line_says_where_scores_may_change(
    tmp_path: Path, kind: str, runtime: Any, device: str, compiled: bool, changes: bool
) -> None:
    planned = plan_job(unet_job(tmp_path, compile=compiled, engine="torch"), Machine("cpu", 1, 1, FAST))
    spec = planned.spec.model_copy(update={"engine": kind})
    compute = replace(planned.compute, device=device, choice=choice.Choice(runtime, "fp32", "because"))
    line = replace(planned, spec=spec, compute=compute).engine
    assert (choice.VARIES in line) == changes and line.startswith(f"{runtime}, fp32")
