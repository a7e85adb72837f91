"""A doubt stands with its code in every account of a run, and fails the run of who asks for it; masks are written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import write_bundle, write_scene

from tilesseg.cli.main import run


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of a scene without names of bands, for a model of two bands."""
    values = np.random.default_rng(3).integers(0, 250, (2, 90, 70)).astype(np.uint8)
    data = {
        "scenes": str(write_scene(tmp_path / "scene.tif", values)),
        "model": str(write_bundle(tmp_path / "model", "Positional", bands=2)),
        "output": {"dir": str(tmp_path / "run")},
        "cluster": {"kind": "serial"},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--fail-on", "any"], 3),
        (["--fail-on", "bands-by-order"], 3),
        (["--fail-on", "empty-mask"], 0),
        (["--fail-on", "empty-mask", "--fail-on", "bands-by-order"], 3),
    ],
)
def test_a_run_fails_on_the_doubts_that_are_named(job: Path, options: list[str], code: int) -> None:
    assert run(["run", str(job), *options]) == code
    assert (job.parent / "run" / "scenes" / "scene" / "scene.tif").exists()
    assert run(["run", str(job), *options]) == code, "a finished scene keeps its doubts"


def test_a_doubt_stands_in_every_account_of_the_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["run", str(job)])
    out, err = capsys.readouterr()
    note = next(line.split("doubt: ")[1] for line in out.splitlines() if "doubt: " in line)
    assert note.endswith(" [bands-by-order]") and f"scene: {note}" in err
    folder = job.parent / "run"
    (scene,) = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["scenes"]
    assert scene["doubts"] == ["bands-by-order"] and note in scene["notes"]
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as file:
        assert [row["doubts"] for row in csv.DictReader(file)] == ["bands-by-order"]
    assert run(["status", str(folder), "--json"]) == 0
    (scene,) = json.loads(capsys.readouterr().out)["scenes"]
    assert scene["doubts"] == ["bands-by-order"]
    assert "[bands-by-order]" in (folder / "report.html").read_text(encoding="utf-8")


def test_an_unknown_code_is_refused_before_anything_is_done(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(job), "--fail-on", "bands"]) == 1
    assert "cannot fail on bands: no doubt has this code; choose any, or among " in capsys.readouterr().err
    assert not (job.parent / "run").exists()


def test_segment_fails_on_a_doubt_too(job: Path) -> None:
    scene, model, mask = (str(job.parent / name) for name in ("scene.tif", "model", "mask.tif"))
    assert run(["segment", scene, "--model", model, "--out", mask, "--workers", "1", "--fail-on", "any"]) == 3
    assert Path(mask).exists()
