"""Example of an exported model, its test tensors: an image of values that its spec states, and the scores for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilesseg.models.load import Model
from tilesseg.models.normalisation import mean_std, percentiles
from tilesseg.models.spec import ModelSpec

_BLOCK = 8


@dataclass(frozen=True, slots=True)
class ExampleTensors:
    """An image and its scores, each a batch of one."""

    image: NDArray[np.generic]
    """Values of the imagery `(1, channel, y, x)`, before normalisation, of the spec's dtype."""
    scores: NDArray[np.float32]
    """Activated scores `(1, score, y, x)`."""


def make_example_tensors(model: Model, side: int, *, eps: float) -> ExampleTensors:
    """Make an image of squares and noise within `input_range`, and compute its scores.

    Args:
        model: the loaded network.
        side: side of the image, a legal size of a patch.
        eps: number that is added to the divisor, where the normalisation takes statistics of the image.
    """
    spec = model.spec
    generator = np.random.default_rng(0)
    coarse = generator.random((1, len(spec.bands), -(-side // _BLOCK), -(-side // _BLOCK)))
    values = 0.7 * np.kron(coarse, np.ones((_BLOCK, _BLOCK)))[..., :side, :side]
    values += 0.3 * generator.random(values.shape)
    low, high = spec.input_range
    dtype = np.dtype(image_dtype(spec))
    raw = (low + (high - low) * values).astype(np.float32)
    image = np.round(raw).astype(dtype) if dtype.kind in "iu" else raw.astype(dtype)
    normalised = spec.normalisation(*_statistics(spec, image[0], eps)).apply(image)
    return ExampleTensors(image, model.predict(normalised))


def image_dtype(spec: ModelSpec) -> str:
    """Data type of the imagery, as NumPy names it; float32 where the spec names another type of another library."""
    known = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32")
    return spec.dtype if spec.dtype in known else "float32"


def _statistics(
    spec: ModelSpec, image: NDArray[np.generic], eps: float
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Values to subtract and to divide by, of an image `(channel, y, x)`; None for fixed numbers."""
    rule, bands = spec.normalise, len(spec.bands)
    if not rule.needs_scene:
        return None, None
    scaled = image.astype(np.float64) * spec.scaling[0] + spec.scaling[1]
    sample = scaled.reshape(1 if rule.joint else bands, -1)
    if rule.kind == "scene_mean_std":
        subtract, divide = mean_std(sample, eps=eps)
    else:
        assert isinstance(rule.low, int | float) and isinstance(rule.high, int | float)  # its spec refuses lists
        subtract, top = percentiles(sample, rule.low, rule.high)
        divide = tuple(high - low + eps for low, high in zip(subtract, top, strict=True))
    times = bands if rule.joint else 1
    return subtract * times, divide * times
