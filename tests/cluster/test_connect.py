"""Clusters: workers prove themselves, a script without a guard is refused, a scheduler that is not there too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import spec_data

from tilesseg.cluster import connect as cluster
from tilesseg.cluster import local_workers as nannies
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.errors import JobError
from tilesseg.events import Event, Note, RunStarted, TileDone
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import Job, parse_job
from tilesseg.run.run_job import run_job

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Four tiles, and a model known by name through TILESSEG_MODELS."""
    bundle = tmp_path / "models" / "labels"
    bundle.mkdir(parents=True)
    patch = {"multiple": 16, "stride_multiple": 16, "preferred": 96}
    (bundle / "model.yaml").write_text(yaml.safe_dump(spec_data(input_range=[0, 3], patch=patch, margin=16)))
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path / "models"))
    rows = np.random.default_rng(1).integers(0, 3, (1, 256, 256)).astype(np.uint8)
    write_image(
        tmp_path / "scene.tif", grid=utm_grid((256, 256), resolution=10), rows=[rows], names=["b1"], dtype="uint8"
    )
    return parse_job(
        {
            "scenes": str(tmp_path / "scene.tif"),
            "model": "labels",
            "tiling": {"core": 128},
            "output": {"dir": str(tmp_path / "run"), "preview": False},
        },
        where="test",
    )


@pytest.mark.cluster
def test_a_worker_that_cannot_load_the_model_is_named_and_left_out(job: Job, tmp_path: Path) -> None:
    from distributed import Client, Nanny, Scheduler, SpecCluster

    def nanny(models: str) -> dict[str, object]:
        return {"cls": Nanny, "options": {"nthreads": 1, "env": {"TILESSEG_MODELS": models}}}

    spec = {"able": nanny(str(tmp_path / "models")), "unable": nanny(str(tmp_path / "nowhere"))}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    events: list[Event] = []
    with SpecCluster(workers=spec, scheduler=scheduler) as running, Client(running, set_as_default=False) as client:
        unable = running.workers["unable"].worker_address
        report = run_job(job, executor=DaskExecutor(client), listeners=[events.append])
    assert report.exit_code == 0
    left_out = [event.text for event in events if isinstance(event, Note) and "left out" in event.text]
    assert len(left_out) == 1
    assert "no model is named labels" in left_out[0]
    assert f"worker {unable} is left out" in left_out[0]
    assert sum(isinstance(event, TileDone) for event in events) == 4


@pytest.mark.cluster
def test_a_job_runs_on_a_scheduler_given_by_its_address(job: Job) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as running:
        there = Cluster(kind="address", address=running.scheduler_address)
        assert run_job(job.model_copy(update={"cluster": there})).exit_code == 0


@pytest.mark.cluster
def test_a_job_runs_on_a_cluster_class_given_by_its_path(job: Job) -> None:
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    named = Cluster(kind="distributed:LocalCluster", workers=2, options=options)
    events: list[Event] = []
    assert run_job(job.model_copy(update={"cluster": named}), listeners=[events.append]).exit_code == 0
    assert sum(isinstance(event, TileDone) for event in events) == 4


@pytest.mark.cluster
def test_a_dashboard_port_that_is_taken_is_no_trouble(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(nannies, "DASHBOARD_PORT", port)
        assert run_job(job, listeners=[events.append]).exit_code == 0
    (started,) = (event for event in events if isinstance(event, RunStarted))
    assert started.dashboard and f":{port}/" not in started.dashboard


def test_a_scheduler_that_does_not_answer_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Cluster(kind="address", address="tcp://127.0.0.1:9")
    monkeypatch.setattr(cluster, "ANSWER_WITHIN", 1)
    with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_job(job.model_copy(update={"cluster": there}))


SCRIPT = """
import sys
from pathlib import Path
import tilesseg

{guard}
    tilesseg.run_job(tilesseg.read_job(Path(sys.argv[1])))
    print("done")
"""


def script(folder: Path, job: Job, guard: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(guard=guard))
    (folder / "job.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
    command = [sys.executable, str(path), str(folder / "job.yaml")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_a_script_without_a_main_guard_is_refused_in_one_clear_line(job: Job, tmp_path: Path) -> None:
    result = script(tmp_path, job, "if True:")
    assert result.returncode == 1
    assert result.stderr.count("JobError: ") == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("tilesseg.errors.JobError: ")
    assert 'script.py, line 7, starts worker processes outside `if __name__ == "__main__":`' in last
    assert not (tmp_path / "run").exists()


@pytest.mark.cluster
def test_a_script_with_a_main_guard_runs(job: Job, tmp_path: Path) -> None:
    result = script(tmp_path, job, 'if __name__ == "__main__":')
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


@pytest.mark.cluster
def test_a_scheduler_that_goes_away_ends_the_run_in_one_line_and_the_next_run_finishes_it(
    job: Job, tmp_path: Path
) -> None:
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as running:
        client = Client(running, set_as_default=False)

        def stop_at_the_first_tile(event: Event) -> None:
            if isinstance(event, TileDone):
                running.close()

        slow = tmp_path / "models" / "labels" / "model.yaml"
        slow.write_text(slow.read_text().replace("fakes:Identity", "fakes:Slow"))
        with pytest.raises(
            JobError,
            match=r"scheduler of the cluster has gone away \(.*\), and what is done is kept; run again",
        ):
            run_job(job, executor=DaskExecutor(client), listeners=[stop_at_the_first_tile])
        client.close()
    serial = job.model_copy(update={"cluster": Cluster(kind="serial")})
    assert run_job(serial).exit_code == 0


GB = 10**9


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (Cluster(kind="serial"), "serial"),
        (Cluster(kind="threads", threads=3), "threads, 3"),
        (Cluster(workers=2), "local, 2 workers × 2 threads"),
        (Cluster(kind="address", address="tcp://a:1"), "address tcp://a:1"),
        (Cluster(kind="ssh", hosts=("a", "b", "b"), threads=1), "ssh, 3 workers × 1 threads"),
        (Cluster(kind="slurm", workers=8, cores=4, memory="8GB"), "slurm, 8 workers × 2 threads"),
        (
            Cluster(kind="pbs", adaptive={"maximum": 20}, cores=4, memory="8GB"),  # type: ignore[arg-type]
            "pbs, 1 to 20 workers × 2 threads",
        ),
        (Cluster(kind="gateway", address="https://g", workers=3), "gateway, 3 workers"),
        (Cluster(kind="dask_cuda:LocalCUDACluster"), "dask_cuda:LocalCUDACluster"),
        (Cluster(kind="dask_cuda:LocalCUDACluster", workers=2), "dask_cuda:LocalCUDACluster, 2 workers"),
    ],
)
def test_a_cluster_is_named_for_reports(asked: Cluster, name: str) -> None:
    assert cluster.cluster_name(asked) == name


def test_a_worker_has_the_memory_of_its_section_or_its_share_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed.system

    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 12 * GB)
    assert cluster.worker_memory(Cluster(workers=3)) == 4 * GB
    assert cluster.worker_memory(Cluster(kind="threads", workers=3)) == 12 * GB
    assert cluster.worker_memory(Cluster(kind="slurm", workers=3, cores=1, memory="8GB")) == 8 * GB
    assert cluster.worker_memory(Cluster(kind="address", address="tcp://a:1", memory="2GB")) == 2 * GB
    assert cluster.worker_memory(Cluster(kind="address", address="tcp://a:1")) is None


@pytest.mark.parametrize(
    ("cores", "memory_gb", "workers"),
    [(1, 64, 1), (2, 64, 1), (4, 64, 1), (7, 64, 1), (8, 64, 2), (64, 512, 16), (64, 20, 4), (64, 1, 1)],
)
def test_there_is_one_worker_for_four_cores_and_for_some_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory_gb: int, workers: int
) -> None:
    import distributed.system

    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", memory_gb * GB)
    monkeypatch.setattr(cluster, "_cores", lambda: cores)
    assert cluster.worker_count(Cluster(), "cpu") == workers
    assert cluster.describe_machine(Cluster(device="cpu")).engine_threads == cores // workers


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            Cluster(workers=3),
            r"takes about 4,001 MB and has 4,000 MB \(the memory of this machine, shared by workers: 3\); take fewer "
            r"workers, fewer threads than 2, a smaller tiling.core or more memory$",
        ),
        (
            Cluster(kind="slurm", workers=3, cores=1, threads=1, memory="4GB"),
            r"takes about 4,001 MB and has 4,000 MB \(cluster.memory 4GB\); take a smaller tiling.core or more memory$",
        ),
    ],
)
def test_workers_with_too_little_memory_are_refused_with_both_amounts(
    monkeypatch: pytest.MonkeyPatch, asked: Cluster, said: str
) -> None:
    import distributed.system

    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 12 * GB)
    cluster.check_memory(asked, needed_mb=4000, device="cpu")
    with pytest.raises(JobError, match=said):
        cluster.check_memory(asked, needed_mb=4001, device="cpu")


def test_nothing_is_refused_where_nobody_knows_the_memory() -> None:
    cluster.check_memory(Cluster(kind="address", address="tcp://a:1"), needed_mb=1e9, device="cpu")


@pytest.mark.cluster
def test_a_machine_elsewhere_is_described_by_a_worker_there() -> None:
    from distributed import LocalCluster

    cores = len(os.sched_getaffinity(0))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as running:
        there = Cluster(kind="address", address=running.scheduler_address)
        with cluster.connect(there, "cpu") as executor:
            assert isinstance(executor, DaskExecutor)
            shared = cluster.ask_machine(executor, there)
            told = cluster.ask_machine(executor, there.model_copy(update={"cores": 7}))
            chosen = cluster.ask_machine(executor, there.model_copy(update={"cores": 7, "engine_threads": 3}))
    assert (shared.device, shared.engine_threads, shared.slots) == ("cpu", max(1, cores // 2), 2)
    assert (told.engine_threads, chosen.engine_threads) == (7, 3)


HIDDEN = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tilesseg":
            raise ModuleNotFoundError("No module named 'tilesseg'", name="tilesseg")

sys.meta_path.insert(0, Hide())
"""


@pytest.mark.cluster
def test_workers_without_tilesseg_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    from distributed import LocalCluster

    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=50) as running:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", running.scheduler_address, "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        worker = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            there = Cluster(kind="address", address=running.scheduler_address)
            with cluster.connect(there, "cpu") as executor:
                assert isinstance(executor, DaskExecutor)
                with pytest.raises(JobError, match=r"reports .*No module named 'tilesseg'.*; install tilesseg where"):
                    cluster.ask_machine(executor, there)
        finally:
            worker.terminate()
            worker.wait(30)
