"""Print the table of README.md: how well nuclei are found, tile by tile and with the whole image at once.

The images are those of BBBC038 (Data Science Bowl 2018, stage1_train) that show fluorescence: `ID.png`, and beside it
`ID_mask.tif` with a number for each nucleus. Dice is that of all their pixels together, `2 |A ∩ B| ÷ (|A| + |B|)`.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
import tifffile
import torch
from numpy.typing import NDArray

from tilesseg.planning.job import parse_job
from tilesseg.run.run_job import run_job

FLUORESCENCE = (
    "0ea221716cf1", "b61d3fb0d0eb", "dd54adb80393", "d52958107d0b", "bb8ebf465c96", "49edc2f77151", "4d09672bcf5a",
    "602f267432e7", "777f7c426927", "cfabf7379c55", "d7d12a2acc47", "c901794d1a42", "f728de042672", "20e209f6ffa1",
    "a102535b0e88", "cb4df20a83b2", "538b7673d507",
)  # fmt: skip
EMBRYOS = FLUORESCENCE[-3:]
"""Whole embryos of flies, which glow between their nuclei too."""
AROUND = 32
"""Pixels of reflection round the image, where the network sees it at once: as many as its halo."""
MULTIPLE = 16
"""Sides that the network takes are multiples of this: it halves them four times."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of ID.png and ID_mask.tif")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent / "unet2d_nuclei_broad")
    parser.add_argument("--weights", default="weights.pt", choices=["weights.pt", "weights.onnx"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = load(arguments.model / "weights.pt")
    found = segment(arguments.images, arguments.model / arguments.weights)
    print("| image | height × width | nuclei | Dice | Dice, whole image at once |\n| --- | --- | --- | --- | --- |")
    rows = {name: row(arguments.images, name, mask, network) for name, mask in found.items()}
    for names, title in ((FLUORESCENCE, "mean of all"), (FLUORESCENCE[:-3], "mean without the embryos")):
        means = np.mean([rows[one] for one in names], axis=0)
        print(f"| {title} | | | {means[0]:.3f} | {means[1]:.3f} |")


def segment(images: Path, model: Path) -> Mapping[str, NDArray[np.bool_]]:
    """Where tilesseg finds nuclei, by image: one job for all, as `job.yaml` would do it."""
    with tempfile.TemporaryDirectory() as folder:
        data = {
            "scenes": [str(images / f"{name}.png") for name in FLUORESCENCE],
            "model": str(model),
            "input": {"bands": [1]},
            "output": {"dir": folder, "products": [{"format": "cog"}], "preview": False},
            "cluster": {"kind": "serial", "engine_threads": 1, "device": "cpu"},
        }
        run_job(parse_job(data, where="evaluate.py"))
        return {name: read(Path(folder) / "scenes" / name / f"{name}.tif")[0] == 1 for name in FLUORESCENCE}


def row(images: Path, name: str, found: NDArray[np.bool_], network: torch.nn.Module) -> tuple[float, float]:
    """Print one row of the table; the two figures in it."""
    labels = tifffile.imread(images / f"{name}_mask.tif")
    whole = at_once(network, read(images / f"{name}.png")[0])
    figures = dice(found, labels > 0), dice(whole, labels > 0)
    size = f"{labels.shape[0]} × {labels.shape[1]}"
    print(f"| {name} | {size} | {len(np.unique(labels)) - 1} | {figures[0]:.3f} | {figures[1]:.3f} |")
    return figures


def at_once(network: torch.nn.Module, image: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where the bare network finds nuclei in the whole image `(y, x)`, without anything of tilesseg."""
    values = image.astype(np.float64)
    values = ((values - values.mean()) / (values.std() + 1e-6)).astype(np.float32)
    sides = [(AROUND, AROUND + -side % MULTIPLE) for side in values.shape]
    with torch.inference_mode():
        scores = network(torch.from_numpy(np.pad(values, sides, mode="reflect"))[None, None])
    height, width = values.shape
    return np.asarray(torch.sigmoid(scores[0, 0, AROUND:, AROUND:])[:height, :width] >= 0.5)


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def read(path: Path) -> NDArray[np.generic]:
    """All bands `(channel, y, x)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.asarray(file.read())


def load(path: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit.load is deprecated and still works
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
