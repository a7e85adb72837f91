"""The workflow of nuclei runs as its README says, and finds what the network alone finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tilesseg.cli import main as cli

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "nuclei"
Rows = dict[str, list[str]]


def table(text: str) -> Rows:
    """The rows of a table with five columns, by their first one."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines if len(cells) == 5}


@pytest.mark.slow
def test_tiles_find_what_the_whole_image_gives_and_the_readme_says_it(shared_data: Path) -> None:
    images, model = shared_data / "microscopy" / "dsb2018", shared_data / "weights" / "unet2d_nuclei_broad"
    command = [sys.executable, WORKFLOW / "evaluate.py", images, "--model", model]
    printed = subprocess.run([str(word) for word in command], check=True, capture_output=True, encoding="utf-8").stdout
    found, said = table(printed), table((WORKFLOW / "README.md").read_text(encoding="utf-8"))
    images_in_it = [name for name in found if len(name) == 12]
    assert len(images_in_it) == 17
    for name in images_in_it:
        tiles, whole = map(float, found[name][2:])
        assert tiles == pytest.approx(whole, abs=0.01)
        assert found[name][:2] == said[name][:2]
        assert [tiles, whole] == pytest.approx(list(map(float, said[name][2:])), abs=0.003)
    for mean in ("mean of all", "mean without the embryos"):
        assert list(map(float, found[mean][2:])) == pytest.approx(list(map(float, said[mean][2:])), abs=0.003)


@pytest.mark.slow
def test_the_job_finds_the_nuclei_of_a_made_up_image(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nuclei"
    shutil.copytree(WORKFLOW, folder)
    shutil.copytree(shared_data / "weights" / "unet2d_nuclei_broad", folder / "unet2d_nuclei_broad")
    job = folder / "job.yaml"
    job.write_text(job.read_text(encoding="utf-8").replace("kind: local", "kind: serial"), encoding="utf-8")
    make = [sys.executable, folder / "make_image.py", folder / "cells.tif", folder / "truth.tif"]
    subprocess.run([str(word) for word in make], check=True)
    assert cli.run(["run", str(job)]) == 0
    assert "cells: complete" in capsys.readouterr().out
    products = folder / "run" / "scenes" / "cells"
    found, truth = tifffile.imread(products / "cells.ome.tif"), tifffile.imread(folder / "truth.tif")
    assert found.shape == truth.shape and set(np.unique(found)) == {0, 1}
    both = int(((found == 1) & (truth == 1)).sum())
    assert 2 * both / (int((found == 1).sum()) + int(truth.sum())) == pytest.approx(0.91, abs=0.01)
    assert (products / "cells.geojson").is_file()


def test_it_shows_its_picture() -> None:
    picture = WORKFLOW / "picture.png"
    assert picture.stat().st_size <= 400_000 and picture.read_bytes().startswith(b"\x89PNG")
    assert "nuclei/picture.png" in (WORKFLOW.parent / "README.md").read_text(encoding="utf-8")
