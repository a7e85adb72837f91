"""What the cluster classes get: the script a queue would be given, by the real classes of dask-jobqueue; manifests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tilesseg.cluster.launch import QUEUE_CLASSES, ssh_specs
from tilesseg.cluster.launch_arguments import arguments_of
from tilesseg.planning.cluster_options import Cluster

QUEUE: dict[str, Any] = {
    "workers": 4,
    "threads": 3,
    "cores": 8,
    "memory": "16GiB",
    "walltime": "01:30:00",
    "lifetime": "80m",
    "queue": "long",
    "account": "lab7",
    "environment": {"MODELS": "/data/my models"},
    "setup": ["module load cuda"],
    "spill": "/scratch/me",
}


def script(kind: str, *, logs: Path | None = None, **changes: Any) -> list[str]:
    """The lines that dask-jobqueue would submit for one worker. Nothing is started for it."""
    import dask_jobqueue

    asked = Cluster(kind=kind, **{**QUEUE, **changes})
    job = getattr(dask_jobqueue, QUEUE_CLASSES[kind]).job_cls
    text: str = job(scheduler="tcp://head:1", name="worker-0", **arguments_of(asked, logs=logs)).job_script()
    return text.splitlines()


def command(lines: list[str]) -> str:
    (line,) = (line for line in lines if " -m distributed.cli.dask_worker tcp://head:1" in line)
    return line


HEADERS = {
    "slurm": """
#SBATCH -J tilesseg
#SBATCH -p long
#SBATCH -A lab7
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH -t 01:30:00
""",
    "pbs": """
#PBS -N tilesseg
#PBS -q long
#PBS -A lab7
#PBS -l select=1:ncpus=8:mem=16GB
#PBS -l walltime=01:30:00
""",
    "lsf": """
#BSUB -J tilesseg
#BSUB -q long
#BSUB -P "lab7"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -M 17179870
#BSUB -W 01:30
""",
    "sge": """
#$ -N tilesseg
#$ -q long
#$ -P lab7
#$ -l h_rt=01:30:00
#$ -cwd
#$ -j y
""",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_queue_is_asked_for_what_the_section_says(kind: str) -> None:
    lines = script(kind)
    assert [line for line in lines[1:] if line.startswith("#")] == HEADERS[kind].split("\n")[1:-1]
    worker = command(lines)
    assert worker.startswith(sys.executable)
    assert worker.rindex("--nthreads 3") > worker.index("--nthreads 8")  # the last one counts
    assert "--memory-limit 16.00GiB" in worker
    assert "--nanny" in worker and "--nworkers" not in worker
    assert "--local-directory /scratch/me" in worker
    assert "--lifetime 4800s --lifetime-stagger 300s" in worker
    before = lines[: lines.index(worker)]
    assert before.index("module load cuda") < before.index("export MODELS='/data/my models'")
    assert "export GDAL_CACHEMAX=64" in before


def test_the_last_number_of_threads_on_the_command_line_of_a_worker_counts() -> None:
    from distributed.cli.dask_worker import main

    context = main.make_context("worker", ["tcp://head:1", "--nthreads", "8", "--nthreads", "3"])
    assert context.params["nthreads"] == 3


@pytest.mark.parametrize(
    ("kind", "directive"),
    [
        ("slurm", "#SBATCH --gres=gpu:1"),
        ("pbs", "#PBS -l select=1:ncpus=8:mem=16384MB:ngpus=1"),
        ("lsf", '#BSUB -gpu "num=1"'),
    ],
)
def test_a_gpu_is_asked_for_as_the_queue_calls_it(kind: str, directive: str) -> None:
    assert directive in script(kind, gpus=1)
    assert not any("gpu" in line.lower() for line in script(kind))


def test_directives_of_ones_own_and_logs_reach_the_script(tmp_path: Path) -> None:
    lines = script("slurm", directives=["--constraint=a100"], logs=tmp_path / "logs")
    assert "#SBATCH --constraint=a100" in lines
    assert f"#SBATCH -o {tmp_path}/logs/tilesseg-%J.out" in lines
    assert (tmp_path / "logs").is_dir()


def test_folders_with_a_space_are_one_word_in_the_script_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/my venv/bin/python")
    logs = tmp_path / "a run 50%" / "logs"
    lines = script("slurm", logs=logs, spill="/my scratch")
    assert f"#SBATCH --output='{tmp_path}/a run 50%%/logs/tilesseg-%J.out'" in lines
    worker = next(line for line in lines if "dask_worker" in line)
    assert worker.startswith("'/my venv/bin/python' -m ") and "--local-directory '/my scratch'" in worker
    assert not any("logs" in line for line in script("pbs", logs=logs))  # at the queue's own place


def test_options_extend_lists_and_replace_the_rest() -> None:
    options = {"worker_extra_args": ["--no-dashboard"], "cores": 2, "interface": "ib0"}
    got = arguments_of(Cluster(kind="slurm", **{**QUEUE, "options": options}))
    assert got["worker_extra_args"][-1] == "--no-dashboard" and "--nthreads" in got["worker_extra_args"]
    assert (got["cores"], got["interface"], got["memory"]) == (2, "ib0", "16GiB")


def test_nothing_is_said_of_what_the_section_leaves_out() -> None:
    least = Cluster(kind="slurm", workers=1, cores=1, memory="1GB")
    given = arguments_of(least)
    assert not given.keys() & {"queue", "account", "walltime", "local_directory", "log_directory", "resource_spec"}
    assert "--lifetime" not in given["worker_extra_args"]


def test_ssh_starts_one_worker_for_each_time_that_a_machine_is_named_each_with_its_gpu() -> None:
    asked = Cluster(kind="ssh", hosts=("a", "b", "b"), gpus=1, memory="2GiB", options={"connect_options": {"port": 9}})
    scheduler, workers, rest = ssh_specs(asked, arguments_of(asked))
    assert scheduler["options"]["address"] == "a"
    seen = [(one["options"]["address"], one["options"]["kwargs"]["env"]) for one in workers.values()]
    assert [(host, env["CUDA_VISIBLE_DEVICES"]) for host, env in seen] == [("a", "0"), ("b", "0"), ("b", "1")]
    assert all(env["GDAL_CACHEMAX"] == "64" for _, env in seen)
    assert {one["options"]["connect_options"]["port"] for one in [scheduler, *workers.values()]} == {9}
    assert {one["options"]["kwargs"]["memory_limit"] for one in workers.values()} == {2 * 2**30}
    assert rest == {}


def test_on_kubernetes_the_workers_ask_for_a_gpu_and_the_scheduler_does_not() -> None:
    pytest.importorskip("dask_kubernetes")
    from tilesseg.cluster.launch import kubernetes_manifest

    asked = Cluster(
        kind="kubernetes", image="lab/tilesseg:1", workers=5, cores=4, memory="16GiB", gpus=1, environment={"A": "b"}
    )
    manifest, rest = kubernetes_manifest(arguments_of(asked))
    (worker,) = manifest["spec"]["worker"]["spec"]["containers"]
    (scheduler,) = manifest["spec"]["scheduler"]["spec"]["containers"]
    amounts = {"cpu": "4", "memory": str(16 * 2**30)}
    assert manifest["spec"]["worker"]["replicas"] == 5
    assert worker["image"] == scheduler["image"] == "lab/tilesseg:1"
    assert worker["resources"] == {"requests": amounts, "limits": {**amounts, "nvidia.com/gpu": "1"}}
    assert scheduler["resources"] == {"requests": amounts, "limits": amounts}
    assert worker["args"][:4] == ["dask", "worker", "--nthreads", "2"]
    variables = {one["name"]: one["value"] for one in worker["env"]}
    assert {"A": "b", "GDAL_CACHEMAX": "64"}.items() <= variables.items()
    assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"
    assert rest == {"quiet": True}


def test_what_the_scheduler_of_another_machine_is_told_is_what_dask_reads() -> None:
    import dask

    asked = Cluster(kind="kubernetes", image="i", adaptive={"maximum": 3})  # type: ignore[arg-type]
    told = {key: value for key, value in arguments_of(asked)["env"].items() if key.startswith("DASK_")}
    config = dask.config.collect_env(told)

    def heard(key: str) -> Any:
        return dask.config.get(f"distributed.scheduler.{key}", config=config)

    assert len(told) == 3
    assert (heard("allowed-failures"), heard("unknown-task-duration")) == (0, "1m")
    known = dask.config.get("distributed.scheduler.http.routes")
    assert heard("http.routes") == [*known, "distributed.http.scheduler.api"]


def test_a_gateway_and_a_class_by_its_path_get_the_options_as_they_are() -> None:
    options = {"image": "i", "worker_cores": 4}
    gateway = Cluster(kind="gateway", address="https://gateway", workers=2, options=options)
    assert arguments_of(gateway) == options
    assert arguments_of(Cluster(kind="dask_cuda:LocalCUDACluster", options=options)) == options
