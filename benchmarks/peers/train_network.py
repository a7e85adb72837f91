"""The network of `bench.py`: a U-Net of base 16 and depth 4 (1.94 M parameters), trained on the slides' own kind.

    python -m benchmarks.peers.train_network FOLDER

writes its bundle and prints the intersection over union by class on a picture it was not trained on. `bench.py` does
it once, a few minutes on two cores, and keeps the bundle in its working folder: of 8 MB, it is not kept in git.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.scene import CLASSES, tissue
from tilesseg.models.spec import ClassSpec, UNetShape
from tilesseg.models.training.train_unet import LabelledScene, Step, Training, train, write_bundle

TRAINING = Training(
    name="bench-tissue",
    description="Glass, stroma and tumour of generated slides.",
    licence="CC0-1.0",
    bands=("red", "green", "blue"),
    dtype="uint8",
    classes=tuple(
        ClassSpec(name=name, colour=colour)
        for name, colour in zip(CLASSES, ("#e8e8e8", "#e090b0", "#7040a0"), strict=True)
    ),
    unet=UNetShape(depth=4, width=16),
    patch=128,
    batch=4,
    steps=220,
)
SIDE = 1536


def overlap(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[float, ...]:
    """Intersection over union by class."""
    both = [
        ((mask == k) & (truth == k)).sum() / max(1, ((mask == k) | (truth == k)).sum()) for k in range(len(CLASSES))
    ]
    return tuple(float(one) for one in both)


def main(folder: Path) -> None:
    start = time.monotonic()
    picture = tissue(SIDE, seed=1)
    scene = LabelledScene(
        np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)), picture.truth, np.ones(picture.truth.shape, np.bool_)
    )

    def say(step: Step) -> None:
        if step.number % 25 == 0:
            print(
                f"step {step.number} of {step.of}, loss {step.loss:.3f}, {time.monotonic() - start:.0f} s", flush=True
            )

    spec, network = train([scene], TRAINING, progress=say)
    spec = write_bundle(folder, spec.model_copy(update={"input_range": (0.0, 255.0)}), network)
    unseen = tissue(1024, seed=2)
    values = spec.normalisation().apply(unseen.pixels.transpose(2, 0, 1))
    with torch.inference_mode():
        mask = network(torch.from_numpy(values)[None])[0].argmax(0).numpy().astype(np.uint8)
    found = ", ".join(f"{name} {one:.3f}" for name, one in zip(CLASSES, overlap(mask, unseen.truth), strict=True))
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters; intersection over union: {found}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
