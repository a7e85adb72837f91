"""Normalisation: from raw pixel values to the values that the network was trained on; the same for training and runs.

Never per tile: a tile-wise statistic makes brightness jump at tile borders, whatever the overlap. Statistics
that depend on the image are computed once per scene and stored in the plan as a `Normalisation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Normalisation:
    """`(value · scale + offset − subtract) ÷ divide` per band, then clipped to `clip`, then `sigmoid` or `binarize`."""

    subtract: tuple[float, ...]
    divide: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None
    sigmoid: bool = False
    """Whether the logistic function follows."""
    binarize: float | None = None
    """Threshold: values above it become 1, others 0; None leaves them."""

    def __post_init__(self) -> None:
        if len(self.subtract) != len(self.divide):
            raise ValueError(f"{len(self.subtract)} values to subtract, {len(self.divide)} to divide by")
        if not all(self.divide):
            raise ValueError(f"a normalisation cannot divide by zero: {self.divide}")

    def apply(self, values: NDArray[Any], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Normalise `values (…, channel, y, x)` of any dtype to float32, into `out` if given."""
        if values.shape[-3] != len(self.subtract):
            raise ValueError(f"{values.shape[-3]} channels, but statistics for {len(self.subtract)} bands")
        result = np.empty(values.shape, np.float32) if out is None else out
        np.copyto(result, values, casting="unsafe")
        if (self.scale, self.offset) != (1.0, 0.0):
            result *= np.float32(self.scale)
            result += np.float32(self.offset)
        result -= _per_band(self.subtract)
        result /= _per_band(self.divide)
        if self.clip is not None:
            np.clip(result, *self.clip, out=result)
        if self.sigmoid:
            np.copyto(result, 0.5 * (1 + np.tanh(0.5 * result)))  # the same function, and it cannot overflow
        if self.binarize is not None:
            np.copyto(result, result > self.binarize)
        return result


def mean_std(sample: NDArray[Any], *, eps: float = 0.0) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean of each band of `sample (channel, n)`, and its standard deviation + `eps`; 1 where that is 0 in float32."""
    sample = sample.astype(np.float64)
    spread = sample.std(axis=1) + eps
    large = spread > np.finfo(np.float32).tiny
    return tuple(map(float, sample.mean(axis=1))), tuple(map(float, np.where(large, spread, 1.0)))


def percentiles(sample: NDArray[Any], low: float, high: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Percentiles `low` and `high` (0–100) of each band of `sample (channel, n)`."""
    bottom, top = np.percentile(sample.astype(np.float64), [low, high], axis=1)
    return tuple(map(float, bottom)), tuple(map(float, top))


def _per_band(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)[:, None, None]
