"""Law 11 for training: peak memory does not grow with the scene that is trained on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.windows import Window as Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.large,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"),
]

BLOCK = 512
TRAIN = """
import sys
from tilesseg import train
from tilesseg.process import peak_mb
train(sys.argv[1])
print(peak_mb())
"""


def write_pair(folder: Path, side: int) -> None:
    """A tiled, compressed image of 4 bands of uint16 and its labels, in a pattern that is soon written."""
    rng = np.random.default_rng(0)
    width = -(-side // 64)
    pattern = (rng.integers(0, 40, (4, 64, 64)) * 50 + 500).astype(np.uint16)
    truth = np.kron(rng.integers(0, 2, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    bands = {
        "image": np.tile(pattern, (1, 8, width))[:, :, :side],
        "labels": np.tile(truth, (8, width))[None, :, :side],
    }
    for name, rows in bands.items():
        shape = {"height": side, "width": side, "count": len(rows), "dtype": rows.dtype, "tiled": True}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)}
        stored = {"blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 1, "bigtiff": "yes"}
        with rasterio.open(folder / f"{name}.tif", "w", driver="GTiff", **shape, **place, **stored) as file:
            for y in range(0, side, BLOCK):
                height = min(BLOCK, side - y)
                file.write(rows[:, :height], window=Place(0, y, side, height))


def peak(folder: Path, side: int) -> float:
    """Peak memory in MB of a process that trains on a scene from beginning to end."""
    folder.mkdir()
    write_pair(folder, side)
    spec = {
        "name": "large",
        "licence": "CC0-1.0",
        "classes": [{"name": "background", "colour": "black"}, {"name": "square", "colour": "red"}],
        "data": {"scenes": "image.tif", "labels": "labels.tif"},
        "split": {"by": "lists", "validate": [], "test": []},
        "network": {"depth": 3, "width": 16},
        "sampling": {"patch": 128, "batch": 8},
        "optimise": {"steps": 6},
        "threads": 1,
        "output": {"dir": "run"},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(folder / "spec.yaml")],
        capture_output=True,
        text=True,
        check=True,
        timeout=1200,
    )
    return float(done.stdout)


def test_training_on_a_scene_sixteen_times_as_large_takes_no_more_memory(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 5_000), peak(tmp_path / "large", 20_000)
    assert large <= 1.1 * small, f"{small} MB and {large} MB"
    assert large <= 1200
