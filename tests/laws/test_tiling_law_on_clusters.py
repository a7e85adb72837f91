"""Law 2 with real processes and a real network: who does the work, and how it is cut, leaves no trace in the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import job_data, write_scene, write_unet_bundle

from tilesseg.planning.job import parse_job
from tilesseg.planning.stored_plan import open_run_directory
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SHAPE = (1100, 1000)
WORKERS: dict[str, dict[str, Any]] = {
    "serial": {"kind": "serial"},
    "two threads": {"kind": "threads", "threads": 2},
    "one process": {"kind": "local", "workers": 1, "threads": 2},
    "two processes": {"kind": "local", "workers": 2, "threads": 2},
    "three processes": {"kind": "local", "workers": 3, "threads": 1},
}
TILINGS: dict[str, dict[str, Any]] = {
    "crop": {"blend": "crop", "patch": 352, "batch": 1},
    "gaussian": {"blend": "gaussian", "patch": 256, "overlap": 64, "batch": 2},
}
CORES = {"crop": (256, 512, 1024, "auto"), "gaussian": (256, 448, 1024, "auto")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of depth 3, width 8: its stride multiple is 8, its margin 48."""
    statistics = {"kind": "mean_std", "mean": [120.0] * 3, "std": [60.0] * 3}
    return write_unet_bundle(tmp_path_factory.mktemp("unet"), depth=3, width=8, normalise=statistics)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bands with a nodata hole, so that some patches are not predicted by some tiles."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(1, 200, (3, SHAPE[0] // 20 + 1, SHAPE[1] // 20 + 1)).repeat(20, axis=1).repeat(20, axis=2)
    values = (coarse[:, : SHAPE[0], : SHAPE[1]] + rng.integers(0, 56, (3, *SHAPE))).astype(np.uint8)
    values[:, 300:900, 350:800] = 0
    folder = tmp_path_factory.mktemp("scene")
    names = ["b1", "b2", "b3"]
    return write_scene(folder / "scene.tif", values, names=names, nodata=0, tiled=True, blockxsize=256, blockysize=256)


def mask(folder: Path, scene: Path, bundle: Path, *, workers: str, tiling: dict[str, Any]) -> bytes:
    cluster = {**WORKERS[workers], "engine_threads": 1}
    job = parse_job(job_data(scene, bundle, folder, tiling=tiling, cluster=cluster), where="test")
    assert run_job(job).exit_code == 0
    directory, _ = open_run_directory(folder)
    store = directory.scene("scene")
    return store.read(Window(0, 0, *store.shape)).tobytes()


@pytest.mark.parametrize("blend", ["crop", "gaussian"])
def test_tiling_never_changes_the_result_across_executors_and_processes(
    tmp_path: Path, scene: Path, bundle: Path, blend: str
) -> None:
    tiling = TILINGS[blend]
    expected = mask(tmp_path / "expected", scene, bundle, workers="serial", tiling=tiling)
    assert len(set(expected)) > 2, "the network tells nothing apart, so the test shows nothing"
    assert 255 in expected
    for number, workers in enumerate(WORKERS):
        core = CORES[blend][number % len(CORES[blend])]
        found = mask(tmp_path / workers, scene, bundle, workers=workers, tiling={**tiling, "core": core})
        assert found == expected, f"{workers} with cores of {core}"


@pytest.mark.parametrize("blend", ["crop", "gaussian"])
def test_tiling_never_changes_the_result_across_cores(tmp_path: Path, scene: Path, bundle: Path, blend: str) -> None:
    found = {
        core: mask(tmp_path / str(core), scene, bundle, workers="two threads", tiling={**TILINGS[blend], "core": core})
        for core in CORES[blend]
    }
    assert len(set(found.values())) == 1
