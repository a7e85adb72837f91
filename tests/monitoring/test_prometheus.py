"""A real Prometheus server scrapes a real scheduler, and answers questions about a run."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client, LocalCluster
from pretended import CORE, done, planned, story
from prometheus_client.parser import text_string_to_metric_families

from tilesseg.events import RunStarted
from tilesseg.monitoring.dashboard.publisher import Publisher, open_publisher

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.cluster


@pytest.fixture
def scheduler() -> Iterator[tuple[Client, str]]:
    """A client, and where its scheduler's HTTP server is."""
    here = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0", "processes": False}
    with LocalCluster(n_workers=1, **here) as cluster, Client(cluster, set_as_default=False) as client:
        yield client, f"127.0.0.1:{cluster.scheduler.http_server.port}"


@pytest.fixture
def prometheus(scheduler: tuple[Client, str], tmp_path: Path) -> Iterator[str]:
    """A server that looks at the scheduler every second, and its address."""
    if PROMETHEUS is None:
        pytest.skip("needs Debian's prometheus")
    jobs = [{"job_name": "dask", "scrape_interval": "1s", "static_configs": [{"targets": [scheduler[1]]}]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, question: str) -> list[dict[str, Any]]:
    """What the server answers to a question in its own language."""
    query = urllib.parse.urlencode({"query": question})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}") as answer:
        return list(json.load(answer)["data"]["result"])


def value(address: str, question: str, wanted: float) -> float:
    """The one number it answers, as soon as it is the one that is wanted."""
    until, found = time.monotonic() + 60, float("nan")
    while time.monotonic() < until:
        try:
            answers = ask(address, question)
        except urllib.error.URLError:  # it has not started yet
            answers = []
        if len(answers) == 1:
            found = float(answers[0]["value"][1])
            if found == pytest.approx(wanted):
                return found
        time.sleep(0.3)
    raise AssertionError(f"{question} is {found} and not {wanted}")


def opened(client: Client, run: Path) -> Publisher:
    publisher = open_publisher(client, run=run, quick_look=False)
    assert isinstance(publisher, Publisher), publisher
    return publisher


def test_a_prometheus_server_answers_what_became_of_a_run(
    scheduler: tuple[Client, str], prometheus: str, tmp_path: Path
) -> None:
    publisher = opened(scheduler[0], tmp_path)
    for event in story([planned("a", 4, 5), planned("b", 2, 2, work=1.5)], bad=["r001-c001"], job="autumn"):
        publisher(event)
    publisher.close()
    value(prometheus, 'up{job="dask"}', 1)
    value(prometheus, 'sum(tilesseg_tiles{exported_job="autumn",state="done"})', 22)
    value(prometheus, 'tilesseg_tiles{scene="a",state="failed"}', 1)
    value(prometheus, 'tilesseg_scenes{state="failed"}', 2)
    value(prometheus, 'tilesseg_pixels_total{scene="a"}', 19 * CORE**2)
    value(prometheus, "tilesseg_job_pixels_total", 22 * CORE**2)
    value(prometheus, 'sum by (part) (tilesseg_seconds_total{part="predict"})', 22 * 0.7)
    value(prometheus, 'tilesseg_work_factor{scene="b"}', 1.5)
    value(prometheus, 'tilesseg_worker_peak_bytes{worker="node1:17"}', 900e6)
    value(prometheus, "tilesseg_eta_seconds", 0)


def test_the_text_is_what_their_own_parser_reads_while_a_run_goes_on(
    scheduler: tuple[Client, str], tmp_path: Path
) -> None:
    publisher = opened(scheduler[0], tmp_path)
    publisher(RunStarted(2, job='autumn "floods"\n'))
    publisher(planned("a", 1, 2))
    publisher(done())
    publisher.close()
    with urllib.request.urlopen(f"http://{scheduler[1]}/metrics") as answer:
        families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
    assert families["tilesseg_tiles"].type == "gauge" and families["tilesseg_seconds"].type == "counter"
    found = {tuple(sorted(s.labels.items())): s.value for s in families["tilesseg_tiles"].samples}
    key = (("job", 'autumn "floods"\n'), ("scene", "a"), ("state", "done"))
    assert found[key] == 1
    assert {sample.labels["state"]: sample.value for sample in families["tilesseg_scenes"].samples} == {
        "waiting": 1,
        "running": 1,
        "complete": 0,
        "failed": 0,
        "refused": 0,
    }


def test_nothing_stays_in_the_registry_when_the_scheduler_ends(tmp_path: Path) -> None:
    from prometheus_client import REGISTRY

    here = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0", "processes": False}
    for _ in range(2):
        with LocalCluster(n_workers=1, **here) as cluster, Client(cluster, set_as_default=False) as client:
            publisher = opened(client, tmp_path)
            publisher(RunStarted(2, job="a"))
            publisher.close()
            assert [each.name for each in REGISTRY.collect()].count("tilesseg_tiles") == 1
        assert "tilesseg_tiles" not in [each.name for each in REGISTRY.collect()]
