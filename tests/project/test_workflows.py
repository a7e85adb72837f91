"""Every workflow runs as its README says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rio_cogeo import cog_validate

from tilesseg.cli import main as cli
from tilesseg.models.bundle import find_bundle
from tilesseg.models.load import load_model

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


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


def trained_by_its_spec(name: str, tmp_path: Path, make: list[str], changes: dict[str, Any]) -> Path:
    """Bundle that a workflow's training gives with some keys changed, so that it takes seconds."""
    folder = tmp_path / name
    shutil.copytree(WORKFLOWS / name, folder)
    subprocess.run([sys.executable, *make], check=True, capture_output=True, cwd=folder)
    spec = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    for section, keys in changes.items():
        spec[section] |= keys
    (folder / "train.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    assert cli.run(["train", str(folder / "train.yaml")]) == 0
    return folder / spec["output"]["dir"] / "bundle"


FEW = {"optimise": {"steps": 2}, "stop": {"every": 1}}


@pytest.mark.slow
def test_training_makes_a_bundle_of_the_demo_s_kind(tmp_path: Path) -> None:
    make = ["make_scenes.py", "scenes", "--scenes", "4", "--side", "256"]
    bundle = find_bundle(
        trained_by_its_spec("training", tmp_path, make, {**FEW, "split": {"validate": 0.25, "test": 0.25}})
    )
    shipped = find_bundle("landscape").spec
    for key in ("classes", "unet", "bands", "margin", "licence", "resolution", "dtype", "name"):
        assert getattr(bundle.spec, key) == getattr(shipped, key), key
    load_model(bundle, threads=1)


@pytest.mark.cluster
def test_water_segments_a_landsat_scene_by_its_job_file(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "water"
    shutil.copytree(WORKFLOWS / "water", folder)
    files = sorted((shared_data / "satellite" / "landsat8_iceland_greenland").glob("*_B[2345].tif"))
    command = [sys.executable, folder / "make_scene.py", *files, folder / "scene.tif"]
    subprocess.run([str(word) for word in command], check=True)
    assert cli.run(["run", str(folder / "job.yaml")]) == 0
    assert "scene: complete" in capsys.readouterr().out
    product = folder / "run" / "scenes" / "scene" / "scene.tif"
    assert cog_validate(product, strict=True, quiet=True)[0]
    with rasterio.open(product) as mask, rasterio.open(files[0]) as band:
        assert (mask.shape, mask.crs, mask.transform) == (band.shape, band.crs, band.transform)
        water = mask.read(1) == 1
    with rasterio.open(folder / "scene.tif") as scene:
        _, green, _, nir = scene.read().astype(np.float64) * 2e-5 - 0.1
    ndwi, east = (green - nir) / (green + nir), np.arange(water.shape[1]) >= 655  # the half it was not trained on
    assert water[(ndwi > 0.35) & (nir < 0.006) & east].mean() > 0.9
    assert water[(ndwi < 0) & east].mean() < 0.01


def test_water_evaluation_prints_the_table_of_the_readme(shared_data: Path) -> None:
    data = shared_data / "satellite"
    scenes = {
        "--landsat8": data / "landsat8_iceland_greenland",
        "--landsat5": data / "ukis_cloud" / "landsat5.npz",
        "--sentinel2": data / "ukis_cloud" / "sentinel2.npz",
    }
    options = [str(word) for option in scenes.items() for word in option]
    command = [sys.executable, str(WORKFLOWS / "water" / "evaluate.py"), *options]
    table = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    readme = (WORKFLOWS / "water" / "README.md").read_text(encoding="utf-8")
    said = {line.strip("| ").split(" | ")[0]: line.strip("| ").split(" | ") for line in readme.splitlines()}
    for name, *figures in rows:  # another processor may round a pixel's score to the other side of one half
        assert [float(figure) for figure in figures] == pytest.approx(list(map(float, said[name][1:])), abs=0.011)
    assert len(rows) == 3


@pytest.mark.slow
def test_water_trains_without_any_real_scene(tmp_path: Path) -> None:
    make = ["make_training.py", "scenes", "--scenes", "3"]
    bundle = find_bundle(trained_by_its_spec("water", tmp_path, make, {**FEW, "split": {"validate": 0.3}}))
    shipped = find_bundle(WORKFLOWS / "water" / "model").spec
    for key in ("classes", "unet", "bands", "margin", "licence", "dtype", "resolution", "name"):
        assert getattr(bundle.spec, key) == getattr(shipped, key), key
    load_model(bundle, threads=1)


@pytest.mark.parametrize("name", ["clouds", "water"])
def test_a_workflow_shows_its_picture(name: str) -> None:
    picture = WORKFLOWS / name / "picture.png"
    assert picture.stat().st_size <= 400_000
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{name}/picture.png" in (WORKFLOWS / "README.md").read_text(encoding="utf-8")
