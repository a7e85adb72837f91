"""Submitting, looking at logs and cancelling, with queues that only write down what they are told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import yaml
from fakes import job_data, write_bundle, write_scene

from tilesseg.cli.main import run as command_line
from tilesseg.cluster.queue.cancel import cancel
from tilesseg.cluster.queue.logs import Follower, find_logs, last_lines
from tilesseg.cluster.queue.schedulers import queue_name, submitted_jobs
from tilesseg.cluster.queue.submit import submit
from tilesseg.errors import JobError, ModelError, StoreError
from tilesseg.planning.job import read_job
from tilesseg.store.driver_record import IDS, Driver, driver_record, drivers, end_driver
from tilesseg.store.locks import held

CHECKOUT = Path(__file__).resolve().parents[2]
SLURM = {"kind": "slurm", "workers": 4, "cores": 8, "memory": "16GiB"}
PROGRAM = """\
#!/bin/bash
echo "$(basename "$0") $*" >> {folder}/said
{does}
"""
QUEUE = {
    "sbatch": "number=$(($(cat {folder}/next) + 1)); echo $number > {folder}/next; "
    'echo "$number ${{@: -1}}" >> {folder}/queue; echo "$number;a-cluster"',
    "squeue": "case $* in *--name=*) cat {folder}/workers;; *) cat {folder}/queue;; esac",
    "scancel": "for id in $*; do sed -i '/^'$id'\\b/d' {folder}/queue {folder}/workers; done",
    "qsub": "echo 17.head; echo 17.head >> {folder}/queue",
    "qselect": "case $* in -N*) ;; *) cat {folder}/queue;; esac",
    "qdel": "> {folder}/queue",
    "kubectl": "case $1 in apply) echo job.batch/it; echo 1 > {folder}/queue;; "
    "get) cat {folder}/queue;; "
    "delete) > {folder}/queue;; esac",
}


@dataclass(frozen=True)
class FakeQueue:
    """Programs that are found before the real ones."""

    folder: Path

    def said(self, program: str) -> list[str]:
        """What a program was called with, a line for each call."""
        path = self.folder / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, does in QUEUE.items():
        (folder / name).write_text(PROGRAM.format(folder=folder, does=does.format(folder=folder)))
        (folder / name).chmod(0o755)
    (folder / "next").write_text("16")
    for name in ("queue", "workers"):
        (folder / name).touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in IDS:
        monkeypatch.delenv(name, raising=False)
    return FakeQueue(folder)


def write_job(folder: Path, cluster: dict[str, Any], **changes: Any) -> Path:
    write_bundle(folder / "model")
    write_scene(folder / "scene.tif", np.ones((1, 64, 64), np.uint8), names=["b1"])
    data = job_data("scene.tif", "./model", Path("run"), cluster=cluster, **changes)
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def directives(script: str, mark: str = "#SBATCH ") -> set[str]:
    return {line.removeprefix(mark) for line in script.splitlines() if line.startswith(mark)}


def test_a_dry_run_prints_the_script_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(tmp_path, SLURM)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no queue is needed to see what it would get
    assert command_line(["submit", str(job), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH --job-name=tilesseg-")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_script_asks_for_what_the_job_says(tmp_path: Path) -> None:
    driver = {"cores": 3, "memory": "1500MiB", "walltime": "1-00:00:00", "queue": "long", "directives": ["--qos=high"]}
    cluster = {**SLURM, "account": "physics", "queue": "gpu", "gpus": 1, "setup": ["module load cuda"]}
    (script,) = submit(write_job(tmp_path, {**cluster, "driver": driver}), dry_run=True).scripts
    asked = {"--cpus-per-task=3", "--mem=1500M", "--time=1-00:00:00", "--partition=long", "--qos=high"}
    assert asked | {"--account=physics", "--signal=B:TERM@120"} <= directives(script)
    assert "gpu" not in script  # the driver computes nothing
    run = tmp_path / "run"
    last = f"exec {sys.executable} -m tilesseg run {run}/submit/1/job.yaml"
    assert script.splitlines()[-2:] == ["module load cuda", last]


def test_a_driver_takes_time_and_partition_of_the_workers_unless_it_has_its_own(tmp_path: Path) -> None:
    job = write_job(tmp_path, {**SLURM, "walltime": "00:04:00", "queue": "gpu"})
    (script,) = submit(job, dry_run=True).scripts
    assert {"--time=00:04:00", "--partition=gpu", "--signal=B:TERM@60"} <= directives(script)


def test_what_is_submitted_is_the_job_as_it_was_with_paths_that_hold_anywhere(
    tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, SLURM)
    monkeypatch.chdir(tmp_path)
    done = submit(Path("job.yaml"))
    asked = read_job(job)
    job.write_text("changed: since")
    monkeypatch.chdir("/")
    kept = read_job(done.run / "submit" / "1" / "job.yaml")
    options = {"job_name": queue_name(done.run)}
    assert kept == asked.model_copy(update={"cluster": asked.cluster.model_copy(update={"options": options})})
    assert (kept.scenes, kept.model) == (str(tmp_path / "scene.tif"), str(tmp_path / "model"))
    assert queue.said("sbatch") == [f"--parsable {tmp_path}/run/submit/1/driver.sh"]


def test_submit_says_where_the_run_is_and_what_its_job_is_called(
    tmp_path: Path, queue: FakeQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(["submit", str(write_job(tmp_path, SLURM))]) == 0
    out = capsys.readouterr().out
    assert "submitted job 17: " in out and f"run directory: {tmp_path}/run\n" in out
    (one,) = submitted_jobs(tmp_path / "run")
    assert (one.queue, one.id, one.host, one.array) == ("slurm", "17", socket.gethostname(), None)
    assert abs(one.time - time.time()) < 100
    assert (tmp_path / "run" / "logs").is_dir()  # SLURM loses what a job prints where there is no such folder


def test_a_run_in_the_queue_is_refused_until_it_has_left_or_the_new_job_comes_after(
    tmp_path: Path, queue: FakeQueue
) -> None:
    job = write_job(tmp_path, SLURM)
    submit(job)
    with pytest.raises(StoreError, match=r"run: it is in the queue already, as job 17; wait .* tilesseg cancel"):
        submit(job)
    submit(job, after="17")
    assert "--dependency=afterany:17" in (tmp_path / "run" / "submit" / "2" / "driver.sh").read_text()
    (queue.folder / "queue").write_text("")
    submit(job)
    assert [one.id for one in submitted_jobs(tmp_path / "run")] == ["17", "18", "19"]


def test_an_array_shares_the_tiles_and_a_last_job_waits_for_it(tmp_path: Path, queue: FakeQueue) -> None:
    job = write_job(tmp_path, {**SLURM, "gpus": 1, "threads": 3, "device": "cpu", "environment": {"A": "b c"}})
    done = submit(job, array=5, after="9")
    array, finish = done.scripts
    assert {
        "--array=1-5",
        "--dependency=afterany:9",
        "--cpus-per-task=8",
        "--mem=16384M",
        "--gres=gpu:1",
    } <= directives(array)
    assert array.splitlines()[-2] == "export A='b c'"
    assert array.endswith(f'run {done.run}/submit/1/job.yaml --part "$SLURM_ARRAY_TASK_ID/5"\n')
    assert "--dependency=afterany:17" in directives(finish) and "--array" not in finish and "--part" not in finish
    assert [(one.id, one.array) for one in submitted_jobs(done.run)] == [("17", 5), ("18", None)]
    assert read_job(done.run / "submit" / "1" / "job.yaml").cluster.model_dump(exclude_defaults=True) == {
        "kind": "threads",
        "threads": 3,
        "device": "cpu",
    }


def test_of_an_array_whose_last_job_is_refused_nothing_stays_in_the_queue(tmp_path: Path, queue: FakeQueue) -> None:
    program = queue.folder / "sbatch"
    program.write_text(program.read_text().replace("number=", "[[ $* = *finish* ]] && exit 1; number="))
    with pytest.raises(JobError, match="ended with code 1"):
        submit(write_job(tmp_path, SLURM), array=2)
    assert queue.said("scancel") == ["--quiet 17"]


def test_a_folder_with_a_space_is_one_word_to_the_shell_and_to_the_queue(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()
    (script,) = submit(write_job(folder, SLURM), dry_run=True).scripts
    assert f"--output='{folder}/run/logs/driver-%j.log'" in directives(script)
    assert f"run '{folder}/run/submit/1/job.yaml'" in script


@pytest.mark.parametrize(
    ("cluster", "changes", "refusal"),
    [
        ({"kind": "local"}, {}, (JobError, "cluster.kind is local: submit knows .* slurm.*; use tilesseg run JOB")),
        ({**SLURM, "kind": "lsf"}, {}, (JobError, "cluster.kind is lsf: submit knows")),
        (SLURM, {"model": "./nothing"}, (ModelError, "nothing")),
        (SLURM, {"scenes": "*.tiff"}, (JobError, "matches nothing|no ")),
        ({"kind": "kubernetes", "image": "it", "workers": 1}, {}, (JobError, "cluster.driver has no manifest")),
    ],
)
def test_nonsense_is_refused_before_anything_is_submitted(
    tmp_path: Path, queue: FakeQueue, cluster: Any, changes: Any, refusal: Any
) -> None:
    kind, words = refusal
    job = write_job(tmp_path, cluster)
    job.write_text(yaml.safe_dump({**yaml.safe_load(job.read_text()), **changes}))
    with pytest.raises(kind, match=words) as caught:
        submit(job)
    assert "\n" not in str(caught.value)
    assert queue.said("sbatch") == queue.said("kubectl") == []


def test_a_machine_without_the_queue_is_refused_by_the_command_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"cluster\.kind slurm: there is no command sbatch on PATH; "):
        submit(write_job(tmp_path, SLURM))
    assert not (tmp_path / "run").exists()


def test_what_the_queue_says_when_it_refuses_reaches_the_user_in_one_line(tmp_path: Path, queue: FakeQueue) -> None:
    (queue.folder / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: no such\n account' >&2; exit 1")
    with pytest.raises(JobError, match=r"ended with code 1: sbatch: error: no such account; "):
        submit(write_job(tmp_path, SLURM))
    assert submitted_jobs(tmp_path / "run") == []


def test_cancel_ends_jobs_last_first_then_the_workers_that_bear_the_runs_name(tmp_path: Path, queue: FakeQueue) -> None:
    run = submit(write_job(tmp_path, SLURM), array=2).run
    (queue.folder / "workers").write_text("30\n31\n")
    assert list(cancel(run)) == [f"ended job {job} of the queue slurm" for job in (18, 17, 30, 31)]
    assert queue.said("scancel") == ["--quiet 18 17", "--quiet 30 31"]
    assert f"--name={queue_name(run)}" in queue.said("squeue")[-1]
    with pytest.raises(StoreError, match=r"cannot cancel .*run: it has 0 jobs in a queue and 0 drivers; "):
        list(cancel(run))


def test_of_two_who_submit_a_run_at_the_same_time_one_does(tmp_path: Path, queue: FakeQueue) -> None:
    job = write_job(tmp_path, SLURM)
    with held(tmp_path / "run" / "locks" / "submit"), pytest.raises(StoreError, match="is submitting it; "):
        submit(job)
    assert queue.said("sbatch") == []


def test_a_run_that_waits_in_the_queue_says_so_and_is_watched_until_it_begins(
    tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submit(write_job(tmp_path, SLURM)).run
    assert command_line(["status", str(run)]) == 1
    assert "has not begun: job 17 was submitted for it; add --watch to wait for it" in capsys.readouterr().err
    monkeypatch.setattr(
        "tilesseg.cli.status_command.time.sleep", lambda seconds: queue.folder.joinpath("queue").write_text("")
    )
    assert command_line(["status", str(run), "--watch"]) == 1  # it has left without having begun
    assert capsys.readouterr().err.startswith("job 17 waits in the queue\n")


def test_cancel_finds_the_workers_of_a_run_by_whatever_path_it_is_known(tmp_path: Path, queue: FakeQueue) -> None:
    run = submit(write_job(tmp_path, SLURM)).run
    (tmp_path / "link").symlink_to(run)
    list(cancel(tmp_path / "link"))
    assert f"--name={queue_name(run)}" in queue.said("squeue")[-1]


def test_another_job_that_has_an_old_number_is_neither_waited_for_nor_cancelled(
    tmp_path: Path, queue: FakeQueue
) -> None:
    job = write_job(tmp_path, SLURM)
    run = submit(job).run
    (queue.folder / "queue").write_text("17 /data/other.sh\n")  # the queue was set up anew and counts from 1 again
    with pytest.raises(StoreError, match="it has 0 jobs in a queue and 0 drivers"):
        list(cancel(run))
    assert queue.said("scancel") == []
    assert submit(job).jobs[0].id == "18"


def test_on_kubernetes_a_job_that_has_ended_makes_room_for_the_next(tmp_path: Path, queue: FakeQueue) -> None:
    manifest = str(CHECKOUT / "cluster" / "kubernetes" / "driver.yaml")
    job = write_job(tmp_path, {"kind": "kubernetes", "image": "it", "workers": 2, "driver": {"manifest": manifest}})
    run = submit(job).run
    (queue.folder / "queue").write_text("")
    submit(job)
    second = f"-f {run}/submit/2/driver.yaml"
    assert queue.said("kubectl")[-2:] == [f"delete {second} --ignore-not-found", f"apply {second} -o name"]
    assert len(list(cancel(run))) == 2  # both name the same job, and the second finds nothing to delete
    assert all("--ignore-not-found" in line for line in queue.said("kubectl") if line.startswith("delete"))


def test_the_pod_of_a_driver_ends_with_its_job_and_is_not_looked_for_on_a_machine(
    tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = str(CHECKOUT / "cluster" / "kubernetes" / "driver.yaml")
    job = write_job(tmp_path, {"kind": "kubernetes", "image": "it", "workers": 2, "driver": {"manifest": manifest}})
    run = submit(job).run
    with monkeypatch.context() as pod:
        pod.setattr("tilesseg.store.driver_record.socket.gethostname", lambda: f"{queue_name(run)}-driver-x7k2p")
        with driver_record(run):
            pod.undo()
            assert [line.partition(" of ")[0] for line in cancel(run)] == [f"ended job {run}/submit/1/driver.yaml"]


def started_driver(run: Path) -> subprocess.Popen[str]:
    """A process that works on a run and does as `tilesseg` does on SIGTERM."""
    code = (
        "import signal, sys, time\nfrom pathlib import Path\nfrom tilesseg.store.driver_record import driver_record\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "with driver_record(Path(sys.argv[1])):\n    print('there', flush=True)\n    time.sleep(60)"
    )
    environment = {**{k: v for k, v in os.environ.items() if k not in IDS}, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "there\n"
    return process


def test_cancel_ends_a_driver_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = started_driver(tmp_path)
    assert [driver.pid for driver in drivers(tmp_path)] == [process.pid]
    assert command_line(["cancel", str(tmp_path)]) == 0
    assert f"ended process {process.pid} on {socket.gethostname()}\n" in capsys.readouterr().out
    assert process.wait(10) != 0
    assert list(tmp_path.iterdir()) == []
    assert command_line(["cancel", str(tmp_path)]) == 1


def test_the_record_of_a_driver_that_was_killed_is_no_driver(tmp_path: Path) -> None:
    process = started_driver(tmp_path)
    process.kill()
    process.wait(10)
    assert (tmp_path / "driver.json").exists()
    assert drivers(tmp_path) == []
    with driver_record(tmp_path):  # the next one takes its place
        assert [driver.pid for driver in drivers(tmp_path)] == [os.getpid()]
    assert not (tmp_path / "driver.json").exists()


def test_shards_have_records_of_their_own(tmp_path: Path) -> None:
    with driver_record(tmp_path, "1/2"), driver_record(tmp_path, "2/2"):
        assert [driver.shard for driver in drivers(tmp_path)] == ["1/2", "2/2"]
    assert list(tmp_path.iterdir()) == []


def test_a_driver_knows_its_job_of_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "44")
    with driver_record(tmp_path):
        (driver,) = drivers(tmp_path)
    assert (driver.job, driver.host, driver.here) == ("44", socket.gethostname(), True)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "43")
    with driver_record(tmp_path):
        assert [driver.job for driver in drivers(tmp_path)] == ["43"]


def test_a_driver_of_another_machine_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = started_driver(tmp_path)
    monkeypatch.setattr("tilesseg.store.driver_record.socket.gethostname", lambda: "elsewhere")
    with pytest.raises(StoreError, match=rf"cannot end process {process.pid} on .*; run tilesseg cancel there"):
        list(cancel(tmp_path))
    assert process.poll() is None
    process.terminate()
    process.wait(10)


def test_a_driver_that_does_not_end_is_not_said_to_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with driver_record(tmp_path):
        (driver,) = drivers(tmp_path)
        monkeypatch.setattr("tilesseg.store.driver_record.os.kill", lambda pid, signal: None)
        assert not end_driver(driver, tmp_path, within=0.2)
    assert end_driver(driver, tmp_path, within=0.2)


def test_a_process_that_has_the_number_of_a_driver_and_not_its_record_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        with driver_record(tmp_path):
            (driver,) = drivers(tmp_path)
            with pytest.raises(StoreError, match="another machine has this name too"):
                end_driver(replace(driver, pid=other.pid), tmp_path, within=0.2)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


def test_a_driver_of_another_user_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    with driver_record(tmp_path):
        monkeypatch.setattr("tilesseg.store.driver_record.os.kill", refuse)
        with pytest.raises(StoreError, match=rf"process {os.getpid()} on .* belongs to another user"):
            list(cancel(tmp_path))


def test_a_run_that_is_worked_on_here_is_not_submitted(tmp_path: Path, queue: FakeQueue) -> None:
    job = write_job(tmp_path, SLURM)
    (tmp_path / "run").mkdir()
    working = rf"process {os.getpid()} on .* is working on it;"
    with driver_record(tmp_path / "run"), pytest.raises(StoreError, match=working):
        submit(job)
    assert queue.said("sbatch") == []


def test_cancel_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no folder "):
        list(cancel(tmp_path / "nothing"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with logs of two drivers and two workers."""
    folder = tmp_path / "run" / "logs"
    folder.mkdir(parents=True)
    for age, name in enumerate(["driver-20.log", "tilesseg-1f-22.err", "tilesseg-1f-21.err", "driver-3.log"]):
        (folder / name).write_text("".join(f"{name} line {n}\n" for n in range(5)))
        os.utime(folder / name, (0, 1000 - age))
    return tmp_path / "run"


def test_logs_are_those_of_drivers_then_those_of_workers_by_age(run: Path) -> None:
    assert [path.name for path in find_logs(run)] == [
        "driver-3.log",
        "driver-20.log",
        "tilesseg-1f-21.err",
        "tilesseg-1f-22.err",
    ]
    assert [path.name for path in find_logs(run, worker="22")] == ["tilesseg-1f-22.err"]


def test_logs_that_are_not_there_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no log of a worker 99; leave out --worker"):
        find_logs(run, worker="99")
    with pytest.raises(StoreError, match="has no log; wait until the run"):
        find_logs(tmp_path / "other")


def test_of_each_log_the_last_lines_are_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["logs", str(run), "--tail", "1", "--worker", "21"]) == 0
    assert capsys.readouterr().out == "==> tilesseg-1f-21.err <==\ntilesseg-1f-21.err line 4\n"
    assert len(last_lines(run / "logs" / "driver-3.log", 0)) == 5
    (run / "logs" / "driver-3.log").write_bytes(b"\xff" * (3 << 20) + b"\nend\n")
    assert last_lines(run / "logs" / "driver-3.log", 1) == ["end"]


def test_following_tells_whole_lines_that_come_and_files_that_come(run: Path) -> None:
    follower = Follower(run)
    assert len(follower.begin()) == 4
    assert list(follower.news()) == []
    log = run / "logs" / "driver-3.log"
    with log.open("a") as file:
        file.write("one\ntwo")
    assert list(follower.news()) == [(log, ["one"])]
    with log.open("a") as file:
        file.write(" and a half\n")
    new = run / "logs" / "tilesseg-1f-30.err"
    new.write_text("here\n")
    assert dict(follower.news()) == {log: ["two and a half"], new: ["here"]}


def test_a_run_whose_logs_are_yet_to_come_can_be_followed_and_no_run_cannot(tmp_path: Path) -> None:
    assert Follower(tmp_path).begin() == []
    with pytest.raises(StoreError, match="there is no folder "):
        Follower(tmp_path / "nothing").begin()


def test_pbs_gets_a_driver_in_its_own_words(tmp_path: Path, queue: FakeQueue) -> None:
    driver = {"walltime": "1-02:00:00", "memory": "3GiB"}
    job = write_job(tmp_path, {**SLURM, "kind": "pbs", "account": "physics", "queue": "long", "driver": driver})
    done = submit(job)
    (script,) = done.scripts
    asked = {"-l select=1:ncpus=2:mem=3072mb", "-l walltime=26:00:00", "-q long", "-A physics", "-V"}
    assert asked <= directives(script, "#PBS ")
    assert f'exec >>{done.run}/logs/driver-"$PBS_JOBID".log 2>&1' in script
    assert list(cancel(done.run)) == ["ended job 17.head of the queue pbs"]
    assert queue.said("qdel") == ["17.head"]
    array, _ = submit(job, array=3, dry_run=True).scripts
    assert "-J 1-3" in directives(array, "#PBS ") and '--part "$PBS_ARRAY_INDEX/3"' in array


def test_a_percent_sign_of_a_folder_is_no_pattern_of_slurm(tmp_path: Path) -> None:
    job = write_job(tmp_path, SLURM)
    job.write_text(job.read_text().replace("dir: run", "dir: run 50%done"))
    (script,) = submit(job, dry_run=True).scripts
    assert f"--output='{tmp_path}/run 50%%done/logs/driver-%j.log'" in directives(script)


def test_scripts_are_bash(tmp_path: Path) -> None:
    for kind in ("slurm", "pbs"):
        job = write_job(tmp_path, {**SLURM, "kind": kind, "setup": ["module load cuda"]})
        for script in submit(job, array=2, dry_run=True).scripts:
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_kubernetes_gets_the_users_own_job_with_name_image_command_and_amounts(
    tmp_path: Path, queue: FakeQueue
) -> None:
    manifest = CHECKOUT / "cluster" / "kubernetes" / "driver.yaml"
    cluster = {"kind": "kubernetes", "image": "registry/tilesseg:1", "workers": 2}
    job = write_job(tmp_path, {**cluster, "driver": {"manifest": str(manifest), "cores": 1}})
    done = submit(job)
    made = yaml.safe_load(done.scripts[0])
    kubernetes_validate.validate(made, "1.30", strict=True)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/tilesseg:1" and container["resources"]["requests"]["cpu"] == "1"
    assert container["command"] == ["python", "-m", "tilesseg", "run", f"{done.run}/submit/1/job.yaml"]
    own = yaml.safe_load(manifest.read_text())["spec"]["template"]["spec"]
    assert made["spec"]["template"]["spec"]["volumes"] == own["volumes"]
    assert list(cancel(done.run)) == [f"ended job {done.run}/submit/1/driver.yaml of the queue kubernetes"]
    with pytest.raises(JobError, match="--array 2 is for slurm and pbs"):
        submit(job, array=2)


def test_a_manifest_that_is_no_job_is_refused(tmp_path: Path, queue: FakeQueue) -> None:
    (tmp_path / "it.yaml").write_text("kind: Job")
    cluster = {"kind": "kubernetes", "image": "it", "workers": 2, "driver": {"manifest": "it.yaml"}}
    with pytest.raises(JobError, match=r"it\.yaml is not a Job: spec\.template\.spec\.containers"):
        submit(write_job(tmp_path, cluster))
    assert not (tmp_path / "run" / "submit").exists()


def test_a_damaged_list_of_what_was_submitted_is_named(tmp_path: Path) -> None:
    (tmp_path / "submitted.json").write_text(json.dumps([{"id": 1}]))
    with pytest.raises(StoreError, match=r"submitted\.json is damaged"):
        submitted_jobs(tmp_path)


def test_the_name_in_the_queue_follows_from_the_directory_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert queue_name(Path("run")) == queue_name(tmp_path / "other" / ".." / "run") != queue_name(Path("run2"))


def test_a_driver_is_told_by_process_and_machine() -> None:
    assert str(Driver("node7", 11, 0.0, None)) == "process 11 on node7"
