"""A run ends early where its model fails from the beginning, or where more tiles fail than its job allows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.errors import ModelError
from tilesseg.events import Event, Note, TileDone, TileFailed
from tilesseg.planning.job import Job, parse_job
from tilesseg.reporting.results import Report
from tilesseg.run.fault_limits import FaultLimits
from tilesseg.run.run_job import run_job

TILING = {"patch": 32, "overlap": 8, "blend": "gaussian", "core": 64, "batch": 4}


def job_of(tmp_path: Path, bad: list[tuple[int, int]], **faults: Any) -> Job:
    """A job of 16 tiles; the network fails on those of some rows and columns."""
    pixels: NDArray[np.uint8] = np.full((1, 256, 256), 20, np.uint8)
    for row, column in bad:
        pixels[0, row * 64 + 32, column * 64 + 32] = 13
    image = tmp_path / "scene.tif"
    if not image.exists():  # a file that is written again is another one
        write_scene(image, pixels)
    cursed = write_bundle(tmp_path / "cursed", "Broken", classes=250)
    data = {**job_data(str(image), cursed, tmp_path / "run", tiling=TILING), "faults": faults}
    return parse_job(data, where="test")


def carried_out(job: Job) -> tuple[Report, list[Event]]:
    events: list[Event] = []
    return run_job(job, executor=SerialExecutor(), listeners=[events.append]), events


def test_more_failed_tiles_than_the_job_allows_end_the_run(tmp_path: Path) -> None:
    job = job_of(tmp_path, [(0, 1), (0, 3), (1, 1), (3, 3)], max_failed=2)
    report, events = carried_out(job)
    assert report.exit_code == 3
    assert sum(isinstance(event, TileFailed) for event in events) == 3
    assert sum(isinstance(event, TileDone) for event in events) == 3
    (note,) = (event.text for event in events if isinstance(event, Note) and "ends early" in event.text)
    assert "failed tiles: 3, and faults.max_failed is 2" in note
    assert report.scenes[0].state == "unfinished"
    report, _ = carried_out(job_of(tmp_path, [(0, 1), (0, 3), (1, 1), (3, 3)], max_failed=4))
    assert (report.exit_code, report.scenes[0].done, len(report.scenes[0].failed)) == (3, 12, 4)


def test_as_many_failed_tiles_as_the_job_allows_do_not_end_it(tmp_path: Path) -> None:
    report, events = carried_out(job_of(tmp_path, [(0, 1), (0, 3)], max_failed=2))
    assert (report.scenes[0].done, len(report.scenes[0].failed)) == (14, 2)
    assert not any(isinstance(event, Note) and "ends early" in event.text for event in events)


def test_a_network_that_fails_on_the_first_two_tiles_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"first tiles, scene r000-c000 and scene r000-c001: RuntimeError"):
        carried_out(job_of(tmp_path, [(0, 0), (0, 1)]))


def test_a_run_whose_network_has_worked_goes_on_with_bad_tiles(tmp_path: Path) -> None:
    job = job_of(tmp_path, [(0, 1), (0, 2)])
    assert carried_out(job)[0].scenes[0].done == 14
    again, events = carried_out(job)  # its first two tiles fail now
    assert again.exit_code == 3
    assert not any(isinstance(event, TileDone) for event in events)


def test_tiles_that_cannot_be_read_are_no_failures_of_the_network() -> None:
    limits = FaultLimits(None, lambda: False)
    for number in range(5):
        assert not limits.exceeded(TileFailed("scene", f"r{number}", 1, "cannot read"))


def test_the_plan_says_the_limit_of_a_tile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value, seconds, text in (
        ("auto", 600.0, "without a step for 600 s, or 20 times its worker's longest step, is given up"),
        ("90s", 90.0, "without a step for 90 s is given up (faults.tile_timeout 90s)"),
        ("none", None, "a tile may take for ever (faults.tile_timeout none)"),
    ):
        path = tmp_path / f"{value}.json"
        job = job_of(tmp_path, [], tile_timeout=value)
        path.write_text(json.dumps(job.model_dump(mode="json")))
        assert run(["plan", str(path)]) == 0
        assert text in capsys.readouterr().out
        assert run(["plan", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["tile_timeout"] == seconds


def test_the_automatic_limit_grows_with_the_longest_step() -> None:
    limit = parse_job({"scenes": "a", "model": "b", "output": {"dir": "c"}}, where="test").faults.tile_limit
    assert [limit.after(longest) for longest in (0.0, 1.0, 60.0)] == [600.0, 600.0, 1200.0]
