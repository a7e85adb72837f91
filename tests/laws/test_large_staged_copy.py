"""Staging at full size: the mask stays the same, a gigabyte is enough for each process, and SIGKILL loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.harness import ENVIRONMENT, tilesseg
from benchmarks.parts import memory, staging
from tilesseg.formats.open import open_source
from tilesseg.raster.window import Window

pytestmark = [
    pytest.mark.slow,
    pytest.mark.large,
    pytest.mark.cluster,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"),
]
SIZE = 16384
GIGABYTE = 1000.0  # MB


def test_a_one_strip_image_of_16384_pixels_gives_one_mask_staged_and_not_within_a_gigabyte(tmp_path: Path) -> None:
    scene = staging.write(tmp_path / "scene.tif", SIZE, **staging.KINDS["one-strip"])
    model = memory.write_model(tmp_path / "model", margin=32)
    peaks = {}
    for stage in ("never", "always"):
        (tmp_path / stage).mkdir()
        ran = memory.measure(tmp_path / stage, scene, model, tiling={"blend": "crop"}, workers=2, stage=stage)
        peaks[stage] = max(ran.client, ran.worker)
    assert staging.same_masks(tmp_path / "never" / "run", tmp_path / "always" / "run", scene="scene", size=SIZE)
    assert peaks["always"] <= GIGABYTE


@pytest.mark.parametrize("kind", ["one-strip-rgb", "striped"])
def test_staging_takes_no_more_than_a_gigabyte_in_any_process(kind: str, tmp_path: Path) -> None:
    scene = staging.write(tmp_path / "scene.tif", SIZE, **staging.KINDS[kind])
    _, peak = staging.staged(scene, tmp_path / "scene.zarr")
    assert peak <= GIGABYTE
    window = Window(9000, 9000, 300, 300)
    copy, image = open_source(str(tmp_path / "scene.zarr")), open_source(str(scene))
    if kind == "striped":  # the other would be decoded whole here
        assert (copy.read(window).values == image.read(window).values).all()


@pytest.mark.kill
def test_a_killed_copying_goes_on_and_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    scene, out = staging.write(tmp_path / "scene.tif", 8192, **staging.KINDS["striped"]), tmp_path / "scene.zarr"
    done = tmp_path / ".scene.zarr.stage" / "done"
    process = subprocess.Popen(tilesseg("stage", scene, out, "--workers", "1"), env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not done.is_dir() or not list(done.glob("r*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in done.glob("r*.json")}
    regions = 8192 // 2048
    assert 0 < len(before) < regions and not out.exists()
    again = subprocess.run(
        tilesseg("stage", scene, out, "--workers", "1"), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert f"regions to copy: {regions - len(before)}" in again.stderr
    copy, image = open_source(str(out)), open_source(str(scene))
    for y in range(0, 8192, 2048):
        window = Window(y, 0, 2048, 8192)
        assert (copy.read(window).values == image.read(window).values).all()
