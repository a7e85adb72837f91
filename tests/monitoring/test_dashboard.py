"""The dashboard of a real scheduler: what the driver tells arrives in batches, and a run never suffers from it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from fakes import job_data, write_bundle, write_scene
from pretended import done, failed, planned, sleep_tile, story, tiles_of
from small_runs import SmallRun

from tilesseg.events import RunStarted, SceneFinished
from tilesseg.monitoring.dashboard import page, plugin, publisher
from tilesseg.monitoring.dashboard.boards import KEPT_RUNS, Boards
from tilesseg.monitoring.dashboard.plugin import Dashboard, answer
from tilesseg.monitoring.dashboard.publisher import BATCH, LARGEST, Publisher, open_publisher

pytestmark = pytest.mark.cluster

HERE = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0", "processes": False}


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **HERE) as cluster,
        Client(cluster, set_as_default=False) as one,
    ):
        yield one


def get(publisher: Publisher, path: str = "/tilesseg/status.json") -> str:
    base = publisher.link.partition("/tilesseg")[0]
    with urllib.request.urlopen(base + path) as answer:
        return str(answer.read().decode())


def status(publisher: Publisher, query: str = "") -> Any:
    return json.loads(get(publisher, "/tilesseg/status.json" + query))


def opened(client: Client, run: Path, **options: Any) -> Publisher:
    publisher = open_publisher(client, run=run, **{"quick_look": False, **options})
    assert isinstance(publisher, Publisher), publisher
    return publisher


def tell(publisher: Publisher, **options: Any) -> None:
    for event in story([planned("a", 4, 5), planned("b", 2, 2)], **options):
        publisher(event)
    publisher.close()


def wait_for(what: Any) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_json_page_tab_and_metrics_are_there_and_tell_what_the_driver_told(client: Client, tmp_path: Path) -> None:
    publisher = opened(client, tmp_path)
    assert publisher.note is None
    tell(publisher, bad=["r001-c001"], job="autumn")
    found = status(publisher, "?scene=a")
    assert (found["job"], found["tiles"]["done"], found["tiles"]["failed"]) == ("autumn", 22, 2)
    assert found["map"]["lines"] == ["#####", "#!###", "#####", "#####"]
    assert found["run"] == str(tmp_path)
    assert "tilesseg" in get(publisher, "/tilesseg")
    assert '<a href="tilesseg">' in get(publisher, "/status")
    assert '<a href="tilesseg">' in get(publisher, "/workers")
    assert 'tilesseg_tiles{job="autumn",scene="a",state="done"} 19.0' in get(publisher, "/metrics")


def test_runs_one_after_the_other_and_at_the_same_time_have_boards_of_their_own(client: Client, tmp_path: Path) -> None:
    first = opened(client, tmp_path / "first")
    tell(first, job="first")
    second, third = opened(client, tmp_path / "second"), opened(client, tmp_path / "third")
    second(RunStarted(1, job="second"))
    third(RunStarted(2, job="third"))
    second.close()
    third.close()
    found = status(third)
    assert found["runs"] == [str(tmp_path / name) for name in ("first", "second", "third")]
    assert found["job"] == "third"
    assert status(third, f"?run={tmp_path / 'first'}")["tiles"]["done"] == 24
    assert 'tilesseg_scenes{job="second",state="waiting"} 1.0' in get(third, "/metrics")

    again = opened(client, tmp_path / "first")  # the run goes on: what was told before is not counted twice
    tell(again, job="first")
    assert (status(again)["job"], status(again)["tiles"]["done"]) == ("first", 24)

    for number in range(KEPT_RUNS):
        last = opened(client, tmp_path / str(number))
        tell(last)
    assert len(status(last)["runs"]) == KEPT_RUNS


def test_a_run_that_goes_on_is_not_forgotten_for_those_that_ended() -> None:
    boards = Boards()
    boards.take("long", [("event", 1.0, RunStarted(1))])
    for number in range(KEPT_RUNS + 2):
        boards.take(f"short{number}", [("event", 2.0, RunStarted(1)), ("left", 3.0, None)])
    assert "long" in boards.by_run and len(boards.by_run) == KEPT_RUNS


def test_what_workers_do_right_now_comes_with_their_heartbeats(client: Client, tmp_path: Path) -> None:
    publisher = opened(client, tmp_path)
    publisher(RunStarted(1, job="now"))
    publisher(planned("a", 2, 2))
    futures = [client.submit(sleep_tile, ("a", tile, 4.0, False)) for tile in tiles_of(planned("a", 2, 2))]
    seen: set[str] = set()

    def saw_predicting() -> bool:
        seen.update("".join(status(publisher, "?scene=a")["map"]["lines"]) if status(publisher)["runs"] else "")
        return "p" in seen

    wait_for(saw_predicting)
    for future in futures:
        publisher(future.result())
    publisher(SceneFinished("a", "complete"))
    publisher.close()
    assert status(publisher, "?scene=a")["map"]["lines"] == ["s#", "s#"]


def test_tiles_of_an_earlier_run_are_looked_up_in_its_ledger(client: Client, tmp_path: Path) -> None:
    ledger = tmp_path / "scenes" / "a" / "done"
    ledger.mkdir(parents=True)
    for tile in ("r000-c000", "r001-c001"):
        (ledger / f"{tile}.json").write_text("{}")
    publisher = opened(client, tmp_path)
    publisher(RunStarted(1))
    publisher(planned("a", 2, 2, done=2))
    publisher.close()
    found = status(publisher, "?scene=a")
    assert (found["map"]["lines"], found["tiles"]["done"]) == (["#·", "·#"], 2)


def test_events_go_in_batches_and_the_driver_never_waits(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    sizes: list[int] = []

    def slowly(client: Client, run: str, batch: list[Any]) -> None:
        sizes.append(len(batch))
        time.sleep(0.2)

    monkeypatch.setattr(plugin, "deliver", slowly)
    publisher = opened(client, tmp_path)
    for _ in range(4 * BATCH):
        publisher(done())
    publisher.close()
    assert sum(sizes) == 4 * BATCH + 1
    assert max(sizes) <= 2 * BATCH and len(sizes) <= 6


def test_a_scheduler_that_takes_nothing_costs_the_page_and_not_the_run(
    client: Client, tmp_path: Path, monkeypatch: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(plugin, "deliver", refuse)
    publisher = opened(client, tmp_path)
    publisher(RunStarted(1))
    wait_for(lambda: publisher.trouble)
    publisher(failed())
    publisher.close()
    assert publisher.trouble is not None and "no route to host" in publisher.trouble

    monkeypatch.setattr(plugin, "deliver", lambda *_: time.sleep(1.5))
    publisher = opened(client, tmp_path)
    for _ in range(LARGEST + 3 * BATCH):
        publisher(done())
    publisher.close()
    assert publisher.trouble is not None and str(LARGEST) in publisher.trouble


def test_a_scheduler_without_dashboard_has_the_figures_still(tmp_path: Path) -> None:
    from distributed import Scheduler, SpecCluster

    options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    cluster = SpecCluster(workers={}, scheduler={"cls": Scheduler, "options": options})
    with cluster, Client(cluster, set_as_default=False) as client:
        publisher = opened(client, tmp_path)
        assert publisher.note is not None and "status.json" in publisher.note
        port = cluster.scheduler.http_server.port
        tell(publisher, job="bare")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/tilesseg/status.json") as answer:
            assert json.load(answer)["job"] == "bare"


def test_names_of_dask_that_are_gone_cost_the_page_alone(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    def gone(*_: Any) -> None:
        raise AttributeError("http_application")

    monkeypatch.setattr(page, "add_page", gone)
    publisher = opened(client, tmp_path)
    assert publisher.note is not None and "AttributeError: http_application" in publisher.note
    assert publisher.link.endswith("/tilesseg/status.json")
    tell(publisher)
    assert status(publisher)["tiles"]["done"] == 24


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'tilesseg'", name="tilesseg"), "has no tilesseg; install"),
        (OSError("gone"), "the scheduler refuses it (OSError: gone); see its log"),
    ],
)
def test_a_scheduler_that_cannot_have_the_page_is_told_in_one_sentence(
    client: Client, tmp_path: Path, monkeypatch: Any, error: Exception, words: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(client, "run_on_scheduler", fail)
    said = open_publisher(client, run=tmp_path)
    assert isinstance(said, str) and said.startswith("no page /tilesseg: ") and words in said and "\n" not in said


def test_another_version_on_the_scheduler_is_said(client: Client, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(client, "run_on_scheduler", lambda *_: {"version": "0.0.1", "problems": None})
    assert "has tilesseg 0.0.1" in str(open_publisher(client, run=tmp_path))


@contextmanager
def scheduler_without(package: str, folder: Path) -> Iterator[Client]:
    """A scheduler in a process that cannot import a package, and a client of it."""
    file = folder / "scheduler.json"
    code = f"import sys; sys.modules[{package!r}] = None; from distributed.cli.dask_scheduler import main; main()"
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        str(file),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", code, *options], **quiet)  # type: ignore[call-overload]
    try:
        wait_for(lambda: file.exists() and file.read_text())
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def test_a_real_scheduler_without_tilesseg_is_told_from_one_with_it(tmp_path: Path) -> None:
    with scheduler_without("tilesseg", tmp_path) as client:
        said = open_publisher(client, run=tmp_path)
    assert isinstance(said, str) and "the scheduler has no tilesseg" in said


def test_a_real_scheduler_without_bokeh_has_the_figures_still(tmp_path: Path) -> None:
    with scheduler_without("bokeh", tmp_path) as client:
        publisher = opened(client, tmp_path)
        assert publisher.note is not None and "bokeh" in publisher.note
        tell(publisher, job="bare")
        assert publisher.trouble is None
        port = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/tilesseg/status.json") as got:
            assert json.load(got)["tiles"]["done"] == 24


def test_an_image_without_overviews_that_is_very_large_is_not_read_for_its_picture(
    tmp_path: Path, monkeypatch: Any
) -> None:
    run = tmp_path / "run"
    write_scene(tmp_path / "a.tif", np.ones((1, 64, 64), np.uint8))
    data = job_data(str(tmp_path / "a.tif"), write_bundle(tmp_path / "model"), run)
    small = SmallRun({**data, "input": {"check_range": False}})
    small.plan_scenes()
    assert str(publisher.picture_of(run / "scenes" / "a")).startswith("data:image/jpeg")
    monkeypatch.setattr("tilesseg.formats.writing.preview.SLOW", 1000)
    assert publisher.picture_of(run / "scenes" / "a") is None


def test_no_picture_is_no_trouble(tmp_path: Path) -> None:
    assert publisher.picture_of(tmp_path) is None


def test_the_plugin_travels_and_is_the_same_one_for_all_drivers(client: Client) -> None:
    client.register_plugin(Dashboard())
    client.register_plugin(Dashboard())
    assert client.run_on_scheduler(answer)["problems"] == {}
    assert client.run_on_scheduler(pages).count("tilesseg") == 1


def pages(dask_scheduler: Any) -> list[str]:
    from distributed.dashboard.scheduler import template_variables

    return list(template_variables(dask_scheduler)["pages"])
