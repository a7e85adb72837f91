"""A network that costs nothing, for tilesseg and for geo-inference: what is left is the pipeline itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from tilesseg.models.spec import ModelSpec

CLASSES = {"red": "#f00000", "green": "#00f000", "blue": "#0000f0"}


class Identity:
    """The scores of three classes are the three bands."""

    device = "cpu"

    def __init__(self, spec: ModelSpec, weights: Path | None = None, *, device: str = "cpu", threads: int = 1) -> None:
        pass

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return patches


def write_bundle(folder: Path) -> Path:
    """A bundle of it, and its TorchScript beside."""
    import torch

    class Scripted(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return patches.to(torch.float32) / 255.0

    spec = {
        "name": "bench-identity",
        "licence": "CC0-1.0",
        "engine": "bench_free:Identity",
        "bands": ["red", "green", "blue"],
        "input_range": [0, 255],
        "normalise": {"kind": "mean_std", "mean": [0.0] * 3, "std": [255.0] * 3},
        "activation": "none",
        "classes": [{"name": name, "colour": colour} for name, colour in CLASSES.items()],
        "patch": {"multiple": 16, "stride_multiple": 16},
        "margin": 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    torch.jit.script(Scripted()).save(str(folder / "network.ts"))
    return folder
