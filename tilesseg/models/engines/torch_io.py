"""The two ends of a network in PyTorch, on the device: raw values to its input, its output to labels.

Every step is rounded as NumPy rounds it and treats each element alone, so a result does not depend on its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilesseg.models.normalisation import Normalisation


def as_tensor(patches: NDArray[Any]) -> torch.Tensor:
    """Patches as a tensor, without a copy where torch can look at their memory."""
    # torch warns of arrays that it could write to but must not, and knows no strides below 0 and no other byte order
    fit = patches.flags.writeable and patches.flags.c_contiguous and patches.dtype.isnative
    return torch.from_numpy(patches if fit else np.array(patches, patches.dtype.newbyteorder("="), order="C"))


def normalise(patches: torch.Tensor, by: Normalisation, layout: torch.memory_format) -> torch.Tensor:
    """Raw patches as the network takes them, float32: what `Normalisation.apply` gives."""
    values = patches.to(torch.float32, memory_format=layout, copy=True)
    if (by.scale, by.offset) != (1.0, 0.0):
        values.mul_(by.scale).add_(by.offset)
    values.sub_(_per_band(by.subtract, values)).div_(_per_band(by.divide, values))
    if by.clip is not None:
        values.clamp_(*by.clip)
    if by.sigmoid:
        values.sigmoid_()
    return values if by.binarize is None else (values > by.binarize).float()


def decide(scores: torch.Tensor, threshold: float | None) -> torch.Tensor:
    """Labels `(n, y, x)` uint8 from scores `(n, channel, y, x)`, as `blend.decide` gives them."""
    if threshold is not None:
        return (scores[:, 0] >= float(np.float32(threshold))).to(torch.uint8)
    first, *others = scores.contiguous().unbind(1)
    best, labels = first.clone(), torch.zeros_like(first, dtype=torch.uint8)
    for label, channel in enumerate(others, start=1):
        labels.masked_fill_(channel > best, label)
        torch.maximum(best, channel, out=best)
    return labels


def refuse_infinite(scores: torch.Tensor) -> None:
    """Raises ValueError where a score is NaN or infinite."""
    if not bool(torch.isfinite(torch.stack(torch.aminmax(scores))).all()):
        raise ValueError("the model gave scores that are not finite")


def _per_band(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]
