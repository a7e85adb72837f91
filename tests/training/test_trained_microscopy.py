"""Law of a trained network on real images: its bundle segments others of the same data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import job_data

from tilesseg import train
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job
from tilesseg.training.train_spec import parse_train_spec


@pytest.mark.slow
def test_a_network_of_twelve_microscopy_images_segments_five_others(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "microscopy" / "dsb2018"
    pictures = sorted(folder.glob("*.png"))
    spec = {
        "name": "nuclei",
        "licence": "CC0-1.0",
        "classes": [{"name": "background", "colour": "black"}, {"name": "nucleus", "colour": "lime"}],
        "data": {
            "scenes": [str(picture) for picture in pictures[:12]],
            "labels": str(folder / "{scene}_mask.tif"),
            "values": {0: "background", "other": "nucleus"},
        },
        "split": {"by": "lists", "validate": [picture.stem for picture in pictures[10:12]]},
        "network": {"depth": 1, "width": 4},
        "sampling": {"patch": 64, "batch": 2},
        "optimise": {"steps": 3},
        "stop": {"every": 3},
        "output": {"dir": str(tmp_path / "training")},
    }
    result = train(parse_train_spec(spec, where="test"))
    scenes = json.loads((result.bundle / "evaluation.json").read_text())["validate"]["scenes"]
    assert [*scenes] == [picture.stem for picture in pictures[10:12]]
    card = (result.bundle / "CARD.md").read_text()
    assert all(f"| {picture.stem} | " in card for picture in pictures[:12])
    others = [str(picture) for picture in pictures[12:17]]
    job = parse_job(job_data(others, result.bundle, tmp_path / "run"), where="test")
    report = run_job(job, executor=SerialExecutor())
    assert report.exit_code == 0 and len(report.scenes) == len(others) == 5
