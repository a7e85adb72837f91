"""Several batches at a time: the same results, no more than planned, and memory that the plan knows of."""

from __future__ import annotations

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import write_bundle
from instruction_sets import skip_what_cannot_be_pretended
from test_planned_model import FAST, label_job, unet_job

from tilesseg.cluster import connect as cluster
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.cluster.executors import SerialExecutor, ThreadExecutor
from tilesseg.models.engines.batches import MOST_BATCHES, BatchSlots, choose_parallel_batches
from tilesseg.models.load import load_model
from tilesseg.models.network import Call
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import Job
from tilesseg.planning.machine import Machine
from tilesseg.planning.plan import parse_plan, plan_job
from tilesseg.raster.window import Window
from tilesseg.run.prepare_run import choose_machine
from tilesseg.run.run_job import run_job
from tilesseg.run.worker_check import prove
from tilesseg.run.worker_state import Assignment, Opened
from tilesseg.store.run_directory import RunDirectory
from tilesseg.training.synthetic_landscape import landscape

OF_UNET = [name for name in ("torch", "openvino") if importlib.util.find_spec(name)]


@pytest.mark.parametrize(
    ("threads", "tiles", "parallel_batches"),
    [(1, 2, 1), (2, 1, 1), (2, 2, 2), (4, 2, 2), (8, 8, MOST_BATCHES), (3, 2, 2)],
)
def test_parallel_batches_are_no_more_than_threads_tiles_or_two(
    threads: int, tiles: int, parallel_batches: int
) -> None:
    assert choose_parallel_batches(threads, tiles) == parallel_batches


@pytest.mark.parametrize(
    ("threads", "asked", "parallel_batches", "each"), [(4, 2, 2, 2), (3, 2, 2, 1), (1, 2, 1, 1), (2, 1, 1, 2)]
)
def test_parallel_batches_share_the_threads(threads: int, asked: int, parallel_batches: int, each: int) -> None:
    batch_slots = BatchSlots(threads, asked)
    assert (batch_slots.parallel_batches, batch_slots.threads) == (parallel_batches, each)


def test_no_more_compute_than_there_are_slots_and_one_that_fails_makes_room() -> None:
    batch_slots, inside, most, lock = BatchSlots(2, 2), 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=10)

    def compute(number: int) -> None:
        nonlocal inside, most
        with batch_slots:
            with lock:
                inside += 1
                most = max(most, inside)
            both.wait()  # only ever passed where two are in
            with lock:
                inside -= 1
            if number % 2:
                raise ValueError

    with ThreadPoolExecutor(6) as pool:
        failed = [one.exception() is not None for one in [pool.submit(compute, k) for k in range(12)]]
    assert (most, sum(failed)) == (2, 6)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", OF_UNET)
def test_batches_at_a_time_give_what_each_gives_alone_to_the_bit(engine: str, precision: str, labels: bool) -> None:
    skip_what_cannot_be_pretended(engine, precision)
    bands = landscape((512, 512), 5).bands
    batches = [bands[None, :, y : y + 160, x : x + 160] for y in (0, 176, 352) for x in (0, 176, 352)]
    results = []
    for parallel_batches in (1, 2):
        model = load_model(
            "landscape", device="cpu", threads=2, engine=engine, precision=precision, parallel_batches=parallel_batches
        )
        network = model.network(Call(np.dtype(np.uint16), model.spec.normalisation(), labels=labels))
        with ThreadPoolExecutor(2 * parallel_batches) as pool:
            results.append(list(pool.map(network, batches)))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("engine", [name for name in ("onnxruntime", "openvino") if importlib.util.find_spec(name)])
def test_onnx_in_parallel_batches_gives_what_it_gives_alone(engine: str) -> None:
    results = []
    for parallel_batches in (1, 2):
        model = load_model(
            "clouds", device="cpu", threads=2, engine=engine, precision="fp32", parallel_batches=parallel_batches
        )
        rng = np.random.default_rng(4)
        batches = [rng.uniform(0, 1, (1, len(model.spec.bands), 256, 256)).astype(np.float32) for _ in range(6)]
        with ThreadPoolExecutor(4) as pool:
            results.append(list(pool.map(model.predict, batches)))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


def test_a_processor_computes_a_batch_for_each_tile_and_what_is_not_shared_one(tmp_path: Path) -> None:
    machine = replace(cluster.describe_machine(Cluster(engine_threads=4)), able=FAST)
    assert machine.parallel_batches == 2
    job = unet_job(tmp_path)
    assert plan_job(job, machine).compute.parallel_batches == 2
    assert plan_job(job.model_copy(update={"compile": True}), machine).compute.parallel_batches == 1
    assert plan_job(job, Machine("cuda", 4, 2, FAST, parallel_batches=2)).compute.parallel_batches == 1
    assert cluster.describe_machine(Cluster(kind="serial", engine_threads=4)).parallel_batches == 1
    assert cluster.describe_machine(Cluster(threads=1, engine_threads=4)).parallel_batches == 1
    own = tmp_path / "own"
    own.mkdir()
    assert plan_job(label_job(own), machine).compute.parallel_batches == 1  # a user's engine computes for one at a time


def test_an_executor_that_does_one_tile_at_a_time_computes_one_batch() -> None:
    job = Job.model_construct(cluster=Cluster(engine_threads=4))
    assert choose_machine(job, None).parallel_batches == choose_machine(job, ThreadExecutor(2)).parallel_batches == 2
    assert choose_machine(job, SerialExecutor()).parallel_batches == 1


@pytest.mark.cluster
def test_a_worker_elsewhere_says_how_many_tiles_it_does_at_a_time() -> None:
    for threads in (1, 2):
        with cluster.connect(Cluster(workers=1, threads=threads), "cpu") as executor:
            assert isinstance(executor, DaskExecutor)
            there = Cluster(kind="address", address=executor.client.scheduler.address, engine_threads=4)
            assert cluster.ask_machine(executor, there).parallel_batches == threads


def test_a_run_of_parallel_batches_has_the_mask_of_a_serial_one_and_goes_on_with_them(tmp_path: Path) -> None:
    masks = []
    for kind in ("serial", "threads"):
        folder = tmp_path / kind
        folder.mkdir()
        job = unet_job(folder, cluster={"kind": kind, "engine_threads": 2}, engine="torch", precision="fp32")
        assert run_job(job, executor=SerialExecutor() if kind == "serial" else ThreadExecutor(2)).exit_code == 0
        run = RunDirectory(folder / "run")
        stored = parse_plan(run.read_json("plan.json"), where=run.path)
        assert stored.compute.parallel_batches == {"serial": 1, "threads": 2}[kind]
        assert (
            plan_job(job, Machine("cpu", 8, 8, FAST), stored=stored).compute.parallel_batches
            == stored.compute.parallel_batches
        )
        masks.append(run.scene("scene").read(Window(0, 0, 128, 128)))
    assert np.array_equal(*masks)


def test_a_proof_computes_all_parallel_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_job(unet_job(tmp_path, engine="torch", precision="fp32"), executor=SerialExecutor())
    run = RunDirectory(tmp_path / "run")
    planned = parse_plan(run.read_json("plan.json"), where=run.path)
    run.write_json("plan.json", replace(planned, compute=replace(planned.compute, parallel_batches=2)).to_json())
    together = threading.Barrier(2, timeout=10)

    def network(patches: Any) -> Any:
        together.wait()  # only ever passed by two at a time
        return np.zeros((len(patches), *patches.shape[2:]), np.uint8)

    monkeypatch.setattr(Opened, "network", lambda opened, call: network)
    for timed in (False, True):
        proof = prove(Assignment.of(run, first="scene"), timed)
        assert (proof.problem, proof.seconds_per_batch > 0) == (None, timed)


def test_an_own_engine_is_not_given_parallel_batches(tmp_path: Path) -> None:
    model = load_model(write_bundle(tmp_path / "m"), device="cpu", threads=2, parallel_batches=2)
    assert model.choice.runtime == "own"
