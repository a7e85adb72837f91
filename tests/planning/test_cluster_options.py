"""The section `cluster`: what a kind does not take is refused by name, and so is what it lacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tilesseg.errors import JobError, first_problem
from tilesseg.planning.cluster_options import ALWAYS, TAKES, Cluster, bytes_of, clock, seconds_of
from tilesseg.planning.job import read_job
from tilesseg.planning.yaml_file import read_yaml

SLURM = {"kind": "slurm", "workers": 2, "cores": 4, "memory": "16GiB"}
LEAST: dict[str, dict[str, Any]] = {
    "serial": {},
    "threads": {},
    "local": {},
    "address": {"address": "tcp://node1:8786"},
    "ssh": {"hosts": ["node1"]},
    "slurm": {"workers": 2, "cores": 4, "memory": "16GiB"},
    "pbs": {"workers": 2, "cores": 4, "memory": "16GiB"},
    "lsf": {"workers": 2, "cores": 4, "memory": "16GiB"},
    "sge": {"workers": 2, "cores": 4, "memory": "16GiB"},
    "kubernetes": {"workers": 2, "image": "tilesseg:1"},
    "gateway": {"workers": 2, "address": "https://gateway"},
    "package.module:Class": {},
}
"""What each kind needs, and no more."""
ANY: dict[str, Any] = {
    "workers": 3,
    "threads": 3,
    "address": "tcp://a:1",
    "hosts": ["a"],
    "cores": 2,
    "memory": "1GB",
    "gpus": 1,
    "walltime": "01:00:00",
    "queue": "q",
    "account": "a",
    "image": "i",
    "adaptive": {"maximum": 3},
    "lifetime": "10m",
    "patience": "10m",
    "restart": True,
    "environment": {"A": "b"},
    "setup": ["true"],
    "directives": ["-x"],
    "driver": {"cores": 4},
    "spill": "/scratch",
    "options": {"a": 1},
}
"""A value of every key that not all kinds take."""


def refusal(**data: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Cluster(**data)
    line = first_problem(caught.value)
    assert "\n" not in line
    return line


def test_every_key_is_taken_by_some_kind_and_every_kind_is_tested_here() -> None:
    assert set().union(*TAKES.values()) | ALWAYS == set(Cluster.model_fields)
    assert set(ANY) | ALWAYS == set(Cluster.model_fields)
    assert LEAST.keys() == TAKES.keys()


@pytest.mark.parametrize("kind", LEAST)
def test_a_kind_takes_its_keys_and_refuses_the_others_by_name(kind: str) -> None:
    least = {"kind": kind, **LEAST[kind]}
    Cluster(**least, device="cpu", engine_threads=2)
    for key, value in ANY.items():
        data = {**least, key: value}
        if key == "adaptive":
            data.pop("workers", None)
        if key in TAKES[kind]:
            Cluster(**data)
        else:
            assert f"kind {kind} takes no {key}, only " in refusal(**data)


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, least in LEAST.items() for key in least if key != "workers"]
)
def test_what_a_kind_needs_is_asked_for_by_name(kind: str, key: str) -> None:
    assert f"kind {kind} needs {key}" in refusal(kind=kind, **{k: v for k, v in LEAST[kind].items() if k != key})


@pytest.mark.parametrize("kind", ["slurm", "pbs", "lsf", "sge", "kubernetes", "gateway"])
def test_a_cluster_that_could_have_any_size_is_refused_without_one(kind: str) -> None:
    least = {key: value for key, value in LEAST[kind].items() if key != "workers"}
    assert f"kind {kind} cannot choose workers: auto; give a number" in refusal(kind=kind, **least)
    assert Cluster(kind=kind, **least, adaptive={"maximum": 9}).adaptive.minimum == 1  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "slum"}, "there is no kind slum; give one of serial, threads, local, address, ssh, slurm"),
        ({"kind": "dask_cuda.LocalCUDACluster"}, "package.module:Class"),
        ({"adaptive": {"maximum": 3}}, "workers 2 is a fixed number"),
        ({"workers": "auto", "adaptive": {"minimum": 4, "maximum": 3}}, "minimum 4 is more than maximum 3"),
        ({"workers": "auto", "adaptive": {"minimum": 0, "maximum": 3}}, "greater than or equal to 1"),
        ({"walltime": "01:00:00", "lifetime": "60m"}, "lifetime 60m does not end before walltime 01:00:00"),
        ({"walltime": "2h"}, "walltime"),
        ({"lifetime": "soon"}, "lifetime"),
        ({"patience": "1:00"}, "patience"),
        ({"memory": "16"}, "memory"),
        ({"memory": "16G"}, "memory"),
        ({"gpus": 2}, "less than or equal to 1"),
        ({"cores": 0}, "cores"),
        ({"environment": {"OMP": 1}}, "environment"),
        ({"environment": {"A; rm": "1"}}, "environment"),
    ],
)
def test_an_impossible_value_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**{**SLURM, **changes})


def test_a_wall_time_that_yaml_reads_as_a_number_is_what_was_written() -> None:
    assert yaml.safe_load("12:30:05") == 45005
    clock = yaml.safe_load("{walltime: 12:30:05}")
    asked = Cluster(**{**SLURM, **clock, "driver": clock})
    assert asked.walltime == asked.driver.walltime == "12:30:05"


@given(st.integers(0, 10**7))
def test_a_clock_says_the_seconds_it_was_made_from(seconds: int) -> None:
    assert seconds_of(clock(min(seconds, 999 * 3600))) == min(seconds, 999 * 3600)


@pytest.mark.parametrize(
    ("text", "seconds"), [("55m", 3300), ("1.5h", 5400), ("30 s", 30), ("2d", 172800), ("1-02:03:04", 93784)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["16GiB", "1.5 GB", "512MiB", "100kB", "1TiB", "7B", "2MB"])
def test_memory_is_read_as_dask_reads_it(text: str) -> None:
    from dask.utils import parse_bytes

    assert bytes_of(text) == parse_bytes(text)


def test_a_cluster_can_be_a_file_beside_the_job(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(SLURM))
    job = {"scenes": "a.tif", "model": "clouds", "output": {"dir": "run"}, "cluster": "cluster.yaml"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert read_job(tmp_path / "job.yaml").cluster == Cluster(**SLURM)  # type: ignore[arg-type]


@pytest.mark.parametrize(("content", "said"), [(None, "cannot read the cluster file "), ("kind: [", " as YAML: ")])
def test_a_cluster_file_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "cluster.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JobError, match=said):
        read_yaml(path, "cluster file")


def test_the_sections_shown_on_the_page_of_clusters_are_taken() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "cluster.md"
    shown = [yaml.safe_load(part) for part in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    kinds = {Cluster(**one["cluster"]).kind for one in shown}
    assert {"local", "ssh", "slurm", "kubernetes", "gateway", "address"} <= kinds
