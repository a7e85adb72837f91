"""Remote images have an identity: a change is found, and an address counts without its signature."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from fakes import job_data, write_bundle, write_scene
from numpy.typing import NDArray

from tilesseg.cli.main import run
from tilesseg.cluster.executors import SerialExecutor
from tilesseg.events import Event, TileDone
from tilesseg.formats.open import open_source
from tilesseg.formats.source import file_state
from tilesseg.planning.job import parse_job
from tilesseg.run.copy_to_zarr import stage_image
from tilesseg.run.run_job import run_job

LABELS: NDArray[np.uint8] = np.random.default_rng(7).integers(0, 3, (1, 60, 80)).astype(np.uint8)
FIRST, SECOND = "sig=validSECRET1&se=2026", "sig=validSECRET2&se=2027"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "model", input_range=[0, 2])


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The scene as the server has it, by the way in which it is served."""
    for folder in ("open", "private", "plain"):
        (tmp_path / folder).mkdir()
        write_scene(tmp_path / folder / "scene.tif", LABELS)
    return tmp_path


def read(path: str) -> dict[str, Any]:
    return open_source(path).identity()


WAYS = [
    "{url}/open/scene.tif",
    "/vsicurl/{url}/open/scene.tif",
    "{url}/plain/scene.tif",
    "/vsicurl/{url}/private/scene.tif?sig=valid",
    "vrt://{url}/open/scene.tif?bands=1",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_remote_image_has_a_state_that_changes_with_it(served: Path, url: str, way: str) -> None:
    states = read(way.format(url=url))
    assert None not in states.values() and len(states) >= 1
    assert read(way.format(url=url)) == states
    for folder in ("open", "private", "plain"):
        write_scene(served / folder / "scene.tif", np.concatenate([LABELS] * 2))
    changed = {path: file_state(f"{path}?sig=valid" if "private" in path else path) for path in states}
    assert all(changed[path] != state for path, state in states.items())


def test_a_signed_address_counts_without_its_signature(served: Path, url: str) -> None:
    states = [read(f"{url}/private/scene.tif?{signature}") for signature in (FIRST, SECOND)]
    assert states[0] == states[1] and list(states[0]) == [f"{url}/private/scene.tif"]
    assert states[0][f"{url}/private/scene.tif"][0] == (served / "private" / "scene.tif").stat().st_size


@pytest.mark.parametrize("address", ["{url}/private/scene.tif", "{url}/missing.tif", "http://127.0.0.1:1/x.tif"])
def test_without_an_answer_nothing_is_known(served: Path, url: str, address: str) -> None:
    assert file_state(address.format(url=url)) is None


@pytest.mark.parametrize("way", ["/vsizip/{folder}/a.zip/scene.tif", "zip://{folder}/a.zip!scene.tif"])
def test_an_image_in_an_archive_has_the_state_of_the_archive(served: Path, way: str) -> None:
    archive = served / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(served / "open" / "scene.tif", "scene.tif")
    status = archive.stat()
    assert list(read(way.format(folder=served)).values()) == [[status.st_size, status.st_mtime_ns]]


def write_job(folder: Path, bundle: Path, address: str) -> str:
    output = {"dir": str(folder / "run"), "products": [{"format": "cog", "path": str(folder / "mask.tif")}]}
    job = folder / "job.yaml"
    job.write_text(yaml.safe_dump(job_data(address, bundle, folder, output=output)))
    return str(job)


def test_a_run_goes_on_with_a_newer_signature(
    served: Path, url: str, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["run", write_job(served, bundle, f"{url}/private/scene.tif?{FIRST}")]) == 0
    events = (served / "run" / "events.jsonl").read_text().count("tile_done")
    (served / "mask.tif").unlink()
    assert run(["run", write_job(served, bundle, f"{url}/private/scene.tif?{SECOND}")]) == 0
    assert (served / "run" / "events.jsonl").read_text().count("tile_done") == events, "no tile was done again"
    plan = json.loads((served / "run" / "scenes" / "scene" / "plan.json").read_text())
    assert plan["scene"]["paths"] == [f"{url}/private/scene.tif?{SECOND}"]
    write_scene(served / "private" / "scene.tif", LABELS[:, ::-1])
    os.utime(served / "private" / "scene.tif", (1, 1))
    (served / "mask.tif").unlink()
    capsys.readouterr()
    assert run(["run", write_job(served, bundle, f"{url}/private/scene.tif?{SECOND}")]) == 1
    assert "scene has changed since this run began" in capsys.readouterr().err


def test_no_product_and_no_report_has_a_secret(
    served: Path, url: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(served, bundle, f"{url}/private/scene.tif?{FIRST}")
    assert run(["run", job]) == 0
    assert run(["export", str(served / "run"), "--format", "ome-tiff", "--out", str(served / "m.ome.tif")]) == 0
    assert run(["status", str(served / "run"), "--json"]) == 0
    assert run(["report", str(served / "run")]) == 0
    assert run(["plan", job]) == 0 and run(["plan", job, "--json"]) == 0
    events: list[Event] = []
    image, copy = f"{url}/private/scene.tif?{FIRST}", served / "copy.zarr"
    stage_image(image, copy, executor=SerialExecutor(), listeners=[events.append])
    out, err = capsys.readouterr()
    with rasterio.open(served / "mask.tif") as file:
        assert file.tags()["TILESSEG_SOURCE"] == "scene.tif"
    texts = {"out": out, "err": err, "events of copying": str(events)}
    for path in served.rglob("*"):
        if path.is_file() and path.name not in ("job.yaml", "scenes.jsonl", "plan.json"):  # with which the run goes on
            texts[str(path)] = path.read_bytes().decode("latin-1")
    assert [name for name, text in texts.items() if "SECRET" in text] == []
    assert run(["inspect", f"{url}/private/scene.tif?sig=wrongSECRET"]) == 1
    assert "SECRET" not in capsys.readouterr().err
    assert run(["inspect", "--json", f"{url}/private/scene.tif?{FIRST}"]) == 0
    assert "SECRET" not in capsys.readouterr().out


@pytest.mark.parametrize("remote", [True, False])
def test_a_change_during_a_run_is_found(served: Path, url: str, bundle: Path, remote: bool) -> None:
    folder = served / "open"
    address = f"{url}/open/scene.tif" if remote else str(folder / "scene.tif")
    data = job_data(address, bundle, served / "run")

    def change(event: Event) -> None:
        if isinstance(event, TileDone):
            write_scene(folder / "scene.tif", LABELS[:, ::-1])
            os.utime(folder / "scene.tif", (1, 1))

    report = run_job(parse_job(data, where="test"), listeners=[change])
    assert report.exit_code == 3 and not list((served / "run").rglob("*.tif"))
    assert "has changed while it was segmented" in str(report.scenes[0].problem)
