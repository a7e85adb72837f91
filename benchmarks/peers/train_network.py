"""The network of `bench.py`: a U-Net of base 16 and depth 4 (1.94 M parameters), trained on the slides' own kind.

    python -m benchmarks.peers.train_network FOLDER

writes its bundle and prints the intersection over union by class on a picture it was not trained on. `bench.py` does
it once, a few minutes on two cores, and keeps the bundle in its working folder: of 8 MB, it is not kept in git.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from benchmarks.peers.scene import CLASSES, tissue
from tilesseg import load_model, train
from tilesseg.raster.metrics import confusion, iou
from tilesseg.training.train_spec import parse_train_spec

COLOURS = ("#e8e8e8", "#e090b0", "#7040a0")
SIDE = 1536


def spec_of(folder: Path) -> dict[str, Any]:
    """Training spec of a picture `slide.tif` and its truth `slide_truth.tif`, in a folder."""
    return {
        "name": "bench-tissue",
        "description": "Glass, stroma and tumour of generated slides.",
        "licence": "CC0-1.0",
        "classes": [{"name": name, "colour": colour} for name, colour in zip(CLASSES, COLOURS, strict=True)],
        "data": {"scenes": str(folder / "slide.tif"), "labels": str(folder / "slide_truth.tif")},
        "bands": ["red", "green", "blue"],
        "input": {"tissue": "none"},
        "split": {"by": "block", "block": 256, "validate": 0.1},
        "network": {"depth": 4, "width": 16},
        "sampling": {"patch": 128, "batch": 4},
        "augment": {"scale": 0, "brightness": 0, "gamma": 0, "noise": 0},
        "optimise": {"steps": 220, "rate": 4e-3, "ema": 0.99},
        "stop": {"every": 110},
        "output": {"dir": str(folder / "run")},
    }


def main(folder: Path) -> None:
    picture, unseen = tissue(SIDE, seed=1), tissue(1024, seed=2)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tifffile.imwrite(work / "slide.tif", picture.pixels, photometric="rgb", tile=(256, 256))
        tifffile.imwrite(work / "slide_truth.tif", picture.truth, tile=(256, 256))
        result = train(parse_train_spec(spec_of(work), where="the benchmark"))
        shutil.copytree(result.bundle, folder, dirs_exist_ok=True)
    model = load_model(folder, device="cpu", engine="torch", precision="fp32")
    values = model.spec.normalisation().apply(unseen.pixels.transpose(2, 0, 1))
    mask = model.predict(values[None])[0].argmax(0).astype(np.uint8)
    found = zip(CLASSES, iou(confusion(unseen.truth, mask, len(CLASSES))), strict=True)
    print(f"intersection over union: {', '.join(f'{name} {value:.3f}' for name, value in found)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
