"""Worker processes on this machine: one for each GPU, each of which sees its own and no other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tilesseg.cluster import connect as cluster
from tilesseg.cluster import local_workers as nannies
from tilesseg.cluster.dask_executor import DaskExecutor
from tilesseg.planning.cluster_options import Cluster

if TYPE_CHECKING:
    from distributed import Worker

PROBE = '''
import os, sys

class Probe:
    """Writes down what a process sees at the moment when it first looks for torch."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            with open({where!r} + "/" + str(os.getpid()), "w") as file:
                file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))

sys.meta_path.insert(0, Probe())
'''


def import_torch() -> tuple[int, str]:
    import torch

    assert torch.tensor([1.0]).sum() == 1
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file for each process that imports torch: what CUDA would have been told then."""
    folder, start = tmp_path / "seen", tmp_path / "start"
    folder.mkdir()
    start.mkdir()
    (start / "sitecustomize.py").write_text(PROBE.format(where=str(folder)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(start), os.environ.get("PYTHONPATH", "")]))
    return folder


@pytest.mark.cluster
@pytest.mark.parametrize("given", [None, "4,GPU-1c2d,6,7"])
def test_each_worker_sees_one_gpu_of_four_before_it_imports_torch(
    seen: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    if given is None:
        monkeypatch.setattr(nannies, "visible_gpus", lambda: ["0", "1", "2", "3"])
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    expected = nannies.visible_gpus()
    asked = Cluster(workers=4, threads=1)
    with cluster.connect(asked, "cuda") as executor:
        answers = dict(cluster.ask_workers(executor, import_torch).values())
    assert sorted(answers.values()) == sorted(expected)
    assert {int(file.name): file.read_text() for file in seen.iterdir()} == answers


def test_one_process_for_each_gpu_is_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-1c2d,5")
    assert cluster.worker_count(Cluster(), "cuda") == 3
    specs = nannies.nanny_specs(Cluster(), workers=4, device="cuda")
    gpus = [spec["options"]["env"]["CUDA_VISIBLE_DEVICES"] for spec in specs.values()]
    assert gpus == ["2", "GPU-1c2d", "5", "2"]


def test_without_a_gpu_nothing_is_said_of_one() -> None:
    (spec,) = nannies.nanny_specs(Cluster(), workers=1, device="cpu").values()
    assert "CUDA_VISIBLE_DEVICES" not in spec["options"]["env"]


@pytest.mark.cluster
def test_workers_get_the_environment_and_the_folder_for_temporary_files_of_the_section(tmp_path: Path) -> None:
    def look(dask_worker: Worker) -> tuple[str | None, str | None, str]:
        return os.environ.get("GDAL_CACHEMAX"), os.environ.get("MODELS"), dask_worker.local_directory

    asked = Cluster(workers=2, threads=3, environment={"MODELS": "here", "GDAL_CACHEMAX": "32"}, spill=str(tmp_path))
    with cluster.connect(asked, "cpu") as executor:
        assert isinstance(executor, DaskExecutor)
        assert executor.slots == 6
        answers = executor.client.run(look)
    assert len(answers) == 2
    for cache, models, folder in answers.values():
        assert (cache, models) == ("32", "here")
        assert Path(folder).is_relative_to(tmp_path)
