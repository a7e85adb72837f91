"""The real job is as right as the package that its network comes from: tiles and blending cost no accuracy."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fakes import job_data
from numpy.typing import NDArray

from tilesseg.cluster.executors import SerialExecutor
from tilesseg.models.bundle import find_bundle
from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ukis_csmask") is None, reason="needs extra clouds")

MAKE_SCENE = Path(__file__).resolve().parents[2] / "workflows" / "clouds" / "make_scene.py"
CLASS_OF_TRUTH = np.array([2, 0, 0, 0, 1], np.uint8)
"""Their `msk`: 4 cloud, 0 shadow, 1 to 3 clear. Ours: 0 clear, 1 cloud, 2 shadow, which is also that of `csm`."""


def by_tilesseg(archive: Path, folder: Path, tiling: dict[str, Any]) -> NDArray[np.uint8]:
    scene = folder / "scene.tif"
    runpy.run_path(str(MAKE_SCENE))["make_scene"](archive, scene)
    job = job_data(scene, "clouds", folder / "run", tiling=tiling, cluster={"kind": "serial", "engine_threads": 2})
    report = run_job(parse_job(job, where="test"), executor=SerialExecutor())
    assert report.exit_code == 0, report
    with rasterio.open(report.products[0]) as mask:
        labels: NDArray[np.uint8] = mask.read(1)
    return labels


def by_csmask(archive: Path) -> NDArray[np.uint8]:
    from ukis_csmask.mask import CSmask

    with np.load(archive) as data:
        image = data["img"].astype(np.float32)
    bands = list(find_bundle("clouds").spec.bands)
    options = {"providers": ["CPUExecutionProvider"], "intra_op_num_threads": 2}
    csm: NDArray[np.uint8] = CSmask(img=image, band_order=bands, product_level="l1c", **options).csm[..., 0]
    return csm


@pytest.mark.parametrize("scene", ["landsat5", "sentinel2"])
def test_real_scenes_are_segmented_as_accurately_as_by_the_package_itself(
    shared_data: Path, tmp_path: Path, scene: str
) -> None:
    archive = shared_data / "satellite" / "ukis_cloud" / f"{scene}.npz"
    with np.load(archive) as data:
        truth = CLASS_OF_TRUTH[data["msk"][..., 0]]
    ours = by_tilesseg(archive, tmp_path, {"patch": 256, "overlap": 64, "blend": "gaussian"})
    theirs = by_csmask(archive)
    figures = {
        "tilesseg": float(np.mean(ours == truth)),
        "ukis-csmask": float(np.mean(theirs == truth)),
        "agreement": float(np.mean(ours == theirs)),
    }
    print(f"{scene}: {figures}")
    assert abs(figures["tilesseg"] - figures["ukis-csmask"]) <= 0.005, f"{scene}: {figures}"
    assert figures["agreement"] > 0.95, f"{scene}: {figures}"
