"""What rectangular patches would save with `crop`: predicted pixels for each pixel of a scene, against squares.

    python benchmarks/rectangles.py

Arithmetic, no network: for each scene the best square, and the best rectangle of at most the same area and at most
twice as long as wide, both of sides that reach from edge to edge. See docs/decisions/0020-patches-are-square.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MARGIN, MULTIPLE, LEAST = 96, 16, 512
MOST = (1216, 2240)
"""Side of the largest square that the memory of a worker allows."""


def strides(size: int, most: int) -> set[int]:
    """Those of which a whole number reaches from edge to edge, rounded up to the network's multiple."""
    counts = range(1, size // 256 + 1)
    sides = {-(-size // count // MULTIPLE) * MULTIPLE for count in counts}
    return {side for side in sides if 256 <= side <= 2 * most}


def factor(size: int, stride: NDArray[np.int64]) -> NDArray[np.float64]:
    """Predicted ÷ wanted, along an axis."""
    return -(-size // stride) * (stride + 2 * MARGIN) / size


def best(height: int, width: int, most: int) -> tuple[float, float]:
    """Work factor with squares, and with rectangles."""
    sides = np.array(sorted({*strides(height, most), *strides(width, most), *range(LEAST, most, 256)}))
    tall, wide, patch = factor(height, sides), factor(width, sides), sides + 2 * MARGIN
    square = float((tall * wide)[patch <= most].min())
    down, across = patch[:, None], patch[None, :]
    fit = (down * across <= most**2) & (down <= 2 * across) & (across <= 2 * down)
    return square, float((tall[:, None] * wide[None, :])[fit].min())


def main() -> None:
    random = np.random.default_rng(0)
    scenes = {
        "Sentinel-2, 10980²": [(10980, 10980)],
        "Landsat, 7801 × 7681": [(7801, 7681)],
        "orthophotos, 5–40 thousand a side": random.integers(5_000, 40_000, (300, 2)).tolist(),
        "slides, 15–120 thousand a side": random.integers(15_000, 120_000, (300, 2)).tolist(),
        "strips, 2–4 by 10–60 thousand": random.integers((2_000, 10_000), (4_000, 60_000), (300, 2)).tolist(),
        "8192²": [(8192, 8192)],
        "32768²": [(32768, 32768)],
    }
    for most in MOST:
        print(f"patches of at most {most}² pixels")
        for name, shapes in scenes.items():
            found = np.array([best(*shape, most) for shape in shapes])
            saved = 1 - found[:, 1] / found[:, 0]
            square, rectangle = found.mean(0)
            print(f"  {name:34s} {square:.3f} → {rectangle:.3f}, saved {saved.mean():.1%}, at most {saved.max():.1%}")


if __name__ == "__main__":
    main()
