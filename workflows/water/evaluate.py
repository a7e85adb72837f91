"""Print the table of README.md: how well the water model and plain NDWI do on the east halves of real scenes.

The east halves are never trained on. References: the water class of the masks of ukis-csmask, where those say clear;
for the Landsat 8 scene, for which there is no mask, the teacher's own rule, in the half that it did not teach.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from country import IGNORED
from numpy.typing import NDArray
from real import CLOUD, SHADOW, WATER, archive_of, greenland, ndwi

from tilesseg.models.load import Model, load_model

HERE = Path(__file__).resolve().parent
THRESHOLDS = (0.0, -0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Half:
    """The east half of a scene, to be judged."""

    name: str
    bands: NDArray[np.float32]
    """Reflectance `(4, y, x)`."""
    truth: NDArray[np.bool_]
    known: NDArray[np.bool_]
    """`(y, x)`: False where the reference says nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--landsat8", type=Path, help="folder of LC80030172015001LGN00_B2.tif to _B5.tif")
    parser.add_argument("--landsat5", type=Path, help="landsat5.npz of ukis-csmask")
    parser.add_argument("--sentinel2", type=Path, help="sentinel2.npz of ukis-csmask")
    parser.add_argument("--model", type=Path, default=HERE / "model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(arguments.model, device="cpu", threads=1)
    heads = ["east half", "water pixels", "IoU", "precision", "recall", *(f"NDWI > {t:g}, IoU" for t in THRESHOLDS)]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for half in halves(arguments.landsat8, arguments.landsat5, arguments.sentinel2):
        print(line(half, segment(model, half.bands) == 1))


def halves(landsat8: Path | None, landsat5: Path | None, sentinel2: Path | None) -> list[Half]:
    """The halves of the scenes that are given."""
    found = []
    if landsat8:
        scene = greenland(landsat8, half="east")
        found.append(Half("Landsat 8, Greenland", scene.bands, scene.labels == 1, scene.labels != IGNORED))
    for archive in filter(None, (landsat5, sentinel2)):
        bands, reference = archive_of(archive, half="east")
        found.append(Half(archive.name, bands, reference == WATER, ~np.isin(reference, (SHADOW, CLOUD))))
    return found


def line(half: Half, found: NDArray[np.bool_]) -> str:
    """One row of the table."""
    iou, precision, recall = measure(found, half)
    plain = [measure(ndwi(half.bands) > threshold, half)[0] for threshold in THRESHOLDS]
    figures = " | ".join(f"{figure:.2f}" for figure in (iou, precision, recall, *plain))
    return f"| {half.name} | {int((half.truth & half.known).sum())} | {figures} |"


def measure(found: NDArray[np.bool_], half: Half) -> tuple[float, float, float]:
    """IoU, precision and recall of water, over the known pixels; 0 where undefined."""
    found, truth = found[half.known], half.truth[half.known]
    hits = int((found & truth).sum())
    return tuple(hits / max(1, int(of.sum())) for of in (found | truth, found, truth))  # type: ignore[return-value]


def segment(model: Model, bands: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels `(y, x)` of a whole scene at once, mirrored at its edges to a square that the network takes."""
    height, width = bands.shape[1:]
    side = model.spec.patch.at_least(max(height, width))
    square = np.pad(bands, ((0, 0), (0, side - height), (0, side - width)), mode="symmetric")
    scores = model.predict(model.spec.normalisation().apply(square)[None].astype(np.float32))
    return np.asarray(scores[0].argmax(0)[:height, :width])


if __name__ == "__main__":
    main()
