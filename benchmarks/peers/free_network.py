"""A network that costs nothing, for tilesseg and for geo-inference: what is left is the pipeline itself."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import yaml

CLASSES = {"red": "#f00000", "green": "#00f000", "blue": "#0000f0"}


def write_bundle(folder: Path) -> Path:
    """A bundle of TorchScript: the scores of three classes are the three bands."""
    import torch

    class Scripted(torch.nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            return patches.to(torch.float32) / 255.0

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "network.ts"
    torch.jit.script(Scripted()).save(str(weights))
    spec = {
        "name": "bench-identity",
        "licence": "CC0-1.0",
        "engine": "torchscript",
        "weights": {"file": weights.name, "sha256": sha256(weights.read_bytes()).hexdigest()},
        "bands": ["red", "green", "blue"],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "activation": "none",
        "classes": [{"name": name, "colour": colour} for name, colour in CLASSES.items()],
        "patch": {"multiple": 16, "stride_multiple": 16},
        "margin": 0,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder
