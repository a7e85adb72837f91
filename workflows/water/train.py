"""Make the water model, `workflows/water/model`, from made-up country and three real scenes, if they are given.

The call that made the model is in README.md. Takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from country import BANDS, BRIGHTEST, CLASSES, country
from real import greenland, masked, ponds, varied, watered

from tilesseg.models.spec import ClassSpec, ModelSpec, UNetShape
from tilesseg.models.training.train_unet import LabelledScene, Step, Training, train, write_bundle

MODEL = Path(__file__).resolve().parent / "model"
SEEDS = range(2000, 2030)
SIDE = 320
COLOURS = {"land": "#d9cf8b", "water": "#2b6cb8"}
TRAINING = Training(
    name="water",
    description="Open water in Landsat- and Sentinel-2-like scenes, learnt from made-up country and three real scenes: "
    "see workflows/water/README.md for how well that does on real scenes.",
    licence="Apache-2.0",
    bands=BANDS,
    classes=tuple(ClassSpec(name=name, colour=COLOURS[name]) for name in CLASSES),
    dtype="float32",
    unet=UNetShape(depth=3, width=8),
    core=512,
    patch=112,
    batch=12,
    steps=1000,
    rate=6e-3,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL, help="folder of the bundle")
    parser.add_argument("--steps", type=int, default=TRAINING.steps)
    parser.add_argument("--scenes", type=int, default=len(SEEDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--landsat8", type=Path, help="folder of LC80030172015001LGN00_B2.tif to _B5.tif")
    parser.add_argument("--landsat5", type=Path, help="landsat5.npz of ukis-csmask")
    parser.add_argument("--sentinel2", type=Path, help="sentinel2.npz of ukis-csmask")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scenes = [country(SIDE, seed) for seed in SEEDS[: arguments.scenes]]
    if arguments.landsat8:
        scenes += [varied(greenland(arguments.landsat8), seed) for seed in range(4)]
    for archive in filter(None, (arguments.landsat5, arguments.sentinel2)):
        scenes += _green(archive)
    spec, network = train(scenes, TRAINING.model_copy(update={"steps": arguments.steps}), progress=show)
    write_bundle(arguments.out, bounded(spec), network)


def _green(archive: Path) -> list[LabelledScene]:
    """The west half of a scene with water put in, twelve times over, and what few real ponds it has, by themselves."""
    scene = masked(archive, half="west")
    draw = np.random.default_rng(0)
    real = [varied(pond, seed) for seed, pond in enumerate(ponds(scene, TRAINING.patch, 200, draw))]
    return [varied(watered(scene, seed), seed) for seed in range(12)] + real


def bounded(spec: ModelSpec) -> ModelSpec:
    """The spec with values cut off where those of the training ended, and a range that says reflectance."""
    mean, std = spec.normalise.mean, spec.normalise.std
    assert mean is not None and std is not None  # train() writes them
    highest = max((BRIGHTEST - m) / s for m, s in zip(mean, std, strict=True))
    lowest = min(-m / s for m, s in zip(mean, std, strict=True))
    clip = (round(lowest, 3), round(highest, 3))
    normalise = spec.normalise.model_copy(update={"clip": clip})
    return spec.model_copy(update={"normalise": normalise, "input_range": (0.0, 1.0)})


def show(step: Step) -> None:
    if step.number % 20 == 0 or step.number == step.of:
        print(f"step {step.number} of {step.of}: loss {step.loss:.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
