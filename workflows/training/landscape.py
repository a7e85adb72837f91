"""Make the demo model, `tilesseg/bundles/landscape`, from made-up landscapes: `make weights`.

Takes about five minutes on one core. The seeds of the scenes are training's alone: the demo and the tests use others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from tilesseg.models.spec import ClassSpec, UNetShape
from tilesseg.models.training.train_unet import LabelledScene, Step, Training, train, write_bundle
from tilesseg.training.synthetic_landscape import BANDS, CLASSES, landscape

BUNDLE = Path(__file__).resolve().parents[2] / "tilesseg" / "bundles" / "landscape"
SEEDS = range(1000, 1020)
SIDE = 1024
COLOURS = {"open": "#d9cf8b", "water": "#2b6cb8", "field": "#e8a33d", "forest": "#1f7a3f"}
TRAINING = Training(
    name="landscape",
    description="Open land, water, fields and forest in the made-up landscapes of tilesseg.synthetic. "
    "It has seen nothing real: use it to try tilesseg out, not to map anything.",
    licence="Apache-2.0",
    bands=BANDS,
    classes=tuple(ClassSpec(name=name, colour=COLOURS[name]) for name in CLASSES),
    resolution=10.0,
    unet=UNetShape(depth=3, width=8),
    core=1024,
    patch=192,
    batch=8,
    steps=900,
    rate=8e-3,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLE, help="folder of the bundle")
    parser.add_argument("--steps", type=int, default=TRAINING.steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scenes = [LabelledScene(*landscape((SIDE, SIDE), seed)) for seed in SEEDS]
    training = TRAINING.model_copy(update={"steps": arguments.steps})
    spec, network = train(scenes, training, device=arguments.device, progress=show)
    write_bundle(arguments.out, spec, network)


def show(step: Step) -> None:
    if step.number % 20 == 0 or step.number == step.of:
        print(f"step {step.number} of {step.of}: loss {step.loss:.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
