"""Every workflow runs as its README says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from rio_cogeo import cog_validate

from tilesseg import cli
from tilesseg.models import find_bundle, load_model

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(importlib.util.find_spec("ukis_csmask") is None, reason="needs extra clouds")
def test_clouds_segments_a_landsat_scene_by_its_job_file(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clouds"
    shutil.copytree(WORKFLOWS / "clouds", folder)
    archive = shared_data / "satellite" / "ukis_cloud" / "landsat5.npz"
    subprocess.run([sys.executable, str(folder / "make_scene.py"), str(archive), str(folder / "scene.tif")], check=True)
    assert cli.run(["run", str(folder / "job.yaml")]) == 0
    assert "scene: complete, 1 of 1 tiles done" in capsys.readouterr().out
    product = folder / "run" / "scenes" / "scene" / "scene.tif"
    assert cog_validate(product, strict=True, quiet=True)[0]
    with rasterio.open(product) as mask, rasterio.open(folder / "scene.tif") as scene:
        assert (mask.shape, mask.crs, mask.transform) == (scene.shape, scene.crs, scene.transform)
        assert set(mask.read(1).ravel()) == {0, 1, 2}


@pytest.mark.slow
def test_training_makes_a_bundle_that_loads(tmp_path: Path) -> None:
    script = WORKFLOWS / "training" / "landscape.py"
    command = [sys.executable, str(script), "--steps", "2", "--out", str(tmp_path / "bundle")]
    subprocess.run(command, check=True, capture_output=True)
    assert find_bundle(tmp_path / "bundle").spec.classes == find_bundle("landscape").spec.classes
    load_model(tmp_path / "bundle", threads=1)
