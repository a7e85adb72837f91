"""The network of a bundle as TorchScript that takes raw pixels and ends in softmax: what geo-inference runs.

python -m benchmarks.peers.torchscript BUNDLE network.ts
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent


class Whole(nn.Module):
    """Normalisation, network, softmax."""

    def __init__(self, bundle: Path) -> None:
        super().__init__()
        sys.path.insert(0, str(HERE / "scripts"))
        import network

        self.network, mean, std = network.load(bundle)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.softmax(self.network((pixels.float() - self.mean) / self.std), 1)


def main() -> None:
    with torch.no_grad():
        traced = torch.jit.trace(Whole(Path(sys.argv[1])).eval(), torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
        traced.save(sys.argv[2])


if __name__ == "__main__":
    main()
