"""Receptive field of a black box, measured by other pixels: how far a pixel changes a score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def perturbed_margin(
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    channels: int,
    multiple: int,
    *,
    size: int,
    cell: int | None = None,
    seed: int = 0,
    least: int = 0,
    cut: int = 0,
    tolerance: float = 0.0,
) -> int | None:
    """Lower bound of the margin of a network that is a black box: a TorchScript or ONNX file.

    All pixels beyond a distance from a cell are replaced by others; the smallest distance at which the cell's scores
    stay the same is its reach. It is a lower bound: float32 rounds small changes away, a rectifier at
    zero hides the pixels behind it, and the runtime must compute a pixel alike at every place of the patch. It can
    show that a margin is too narrow, not that it is wide enough.

    Args:
        predict: function from patches `(1, channels, size, size)` to scores.
        channels: bands of the input.
        multiple: the stride multiple.
        cell: side of the cell, a multiple of `multiple`; default: `multiple`.
        size: side of the patch; a reach beyond about half of it is not measured.
        seed: seed of the random pixels.
        least: smallest distance that is tried; the others are multiples of `multiple`.
        cut: number of pixels by which the scores are smaller on each side.
        tolerance: change that counts as none, as a share of the spread of the scores; 0: not a single bit.

    Returns:
        A distance, or None if the cell still changes with the farthest pixels.
    """
    generator = np.random.default_rng(seed)
    patch, other = generator.standard_normal((2, 1, channels, size, size)).astype(np.float32)
    start = size // 2 // multiple * multiple
    side = cell or multiple
    here = slice(start - cut, start - cut + side)
    scores = predict(patch)
    wanted, nearly = scores[..., here, here], tolerance * float(np.std(scores))

    def same(distance: int) -> bool:
        changed = 8 * other
        inside = slice(max(0, start - distance), start + side + distance)
        changed[..., inside, inside] = patch[..., inside, inside]
        found = predict(changed)[..., here, here]
        return bool(np.abs(found - wanted).max() <= nearly) if tolerance else np.array_equal(found, wanted)

    steps = range(-(-least // multiple) * multiple, size - start - side, multiple)
    return next((distance for distance in sorted({least, *steps}) if same(distance)), None)
