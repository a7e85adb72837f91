"""Laws of several processes: together they draw the patches that one would, and hold one network."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fakes import patches, tiny_spec

from tilesseg.errors import JobError
from tilesseg.training.checkpoint import read_checkpoint
from tilesseg.training.distributed import Processes, device_of_process, joined_processes

PROCESS = """
import hashlib, json, sys
from pathlib import Path
import torch
from training_fakes import FakeLoader, tiny_loop, tiny_spec
from tilesseg.training.distributed import joined_processes

torch.set_num_threads(1)
seen = []

class Loader(FakeLoader):
    def batches(self, first, last, **kwargs):
        for batch in super().batches(first, last, **kwargs):
            seen.append([hashlib.sha256(patch.numpy().tobytes()).hexdigest() for patch in batch.values])
            yield batch

folder = Path(sys.argv[1])
with joined_processes(torch.device("cpu")) as processes:
    spec = tiny_spec(folder / "run", optimise={"steps": 4, "ema": 0.9}, stop={"every": 2})
    loop = tiny_loop(spec, processes=processes)
    loop.loader = Loader()
    loop.carry_out()
    values = [value.detach().contiguous().numpy().tobytes() for value in loop.trainee.network.parameters()]
    state = hashlib.sha256(b"".join(values))
    report = {"seen": seen, "parameters": state.hexdigest(), "validated": loop.trainee.progress.validated}
    (folder / f"{processes.rank}.json").write_text(json.dumps(report))
"""


def run_processes(folder: Path, world: int) -> list[dict[str, Any]]:
    """Reports of processes as `torchrun` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": paths}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)},
        )
        for rank in range(world)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * world
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.slow
def test_two_processes_draw_the_patches_of_one_and_hold_one_network(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first, second = run_processes(tmp_path, 2)
    assert len(first["seen"]) == len(second["seen"]) == 4
    for step, shares in enumerate(zip(first["seen"], second["seen"], strict=True), start=1):
        one = [hashlib.sha256(patch.numpy().tobytes()).hexdigest() for patch in patches(step, range(4)).values]
        assert [one[0::2], one[1::2]] == list(shares)
    assert first["parameters"] == second["parameters"]
    assert first["validated"] == second["validated"] == 4
    stored, _ = read_checkpoint(tmp_path / "run" / "state")
    assert stored is not None
    assert stored.step == 4
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step", "1", "2", "3", "4"]


def test_a_batch_is_shared_equally_or_refused(tmp_path: Path) -> None:
    assert Processes(1, 4).share(tiny_spec(tmp_path).sampling.batch) == 1
    with pytest.raises(JobError, match=r"sampling.batch is 4, and 3 processes train; make it a multiple of 3"):
        Processes(0, 3).share(4)


def test_alone_there_is_one_process_and_its_sums_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_processes(torch.device("cpu")) as processes:
        assert processes == Processes(0, 1)
        assert processes.first
        assert processes.total(torch.tensor([2.0])).item() == 2
        network = torch.nn.Conv2d(1, 1, 1)
        assert processes.wrap(network, torch.device("cpu")) is network


def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device_of_process(torch.device("cuda:0")) == torch.device("cuda:3")
    assert device_of_process(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert device_of_process(torch.device("cuda:0")) == torch.device("cuda:0")
