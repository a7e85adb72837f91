"""Network of a scene: the steps fused into it, its activation, and its reference in NumPy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.normalisation import Normalisation
from tilesseg.models.shape_advice import score_problem
from tilesseg.models.spec import ModelSpec
from tilesseg.raster.labels import decide

Activation = Literal["softmax", "sigmoid", "none"]


def activate(scores: NDArray[Any], activation: Activation) -> NDArray[np.float32]:
    """Activate `scores (n, score, y, x)`; softmax is over the scores of a pixel. The result is contiguous float32."""
    result = np.ascontiguousarray(scores, np.float32)
    if activation == "softmax":
        result = np.exp(result - result.max(axis=1, keepdims=True))
        result /= result.sum(axis=1, keepdims=True)
    elif activation == "sigmoid":
        small = np.exp(-np.abs(result))  # of a negative number only: it cannot overflow
        result = np.where(result >= 0, np.float32(1), small) / (1 + small)
    return result


Network = Callable[[NDArray[Any]], NDArray[Any]]
"""Function from raw patches `(n, channel, P, Q)` of the call's dtype to labels `(n, p, q)` uint8, or to activated
scores `(n, score, p, q)` float32, p being P − shrink − 2 · margin, in new memory. `n` should be the same at every
call: each shape may be compiled anew. Raises ValueError if a score is not finite, OutOfDeviceMemory,
DeviceLost, ModelError."""

V = TypeVar("V", bound=Any)

_STRIP = 64
"""Rows that are computed at a time."""


@dataclass(frozen=True, slots=True)
class Call:
    """Steps that a scene needs around its network, fixed by its plan: input type, normalisation, decision, margin."""

    dtype: np.dtype[Any]
    """Data type of raw patches."""
    normalisation: Normalisation
    labels: bool
    """Whether the result is labels (every pixel is predicted once), else activated scores, to be blended or stored."""
    margin: int = 0
    """Unused pixels on each side of a prediction: the network leaves them out."""
    others: tuple[Normalisation, ...] = ()
    """Normalisations of the further networks of an ensemble."""


def plain(predict: Callable[[NDArray[np.float32]], NDArray[np.float32]], call: Call, spec: ModelSpec) -> Network:
    """Network of a call, for an engine that takes normalised patches and gives activated scores."""
    own = threading.local()  # a buffer for each calling thread: the engine itself limits how many compute at a time

    def network(patches: NDArray[Any]) -> NDArray[Any]:
        buffer: NDArray[np.float32] | None = getattr(own, "buffer", None)
        if buffer is None or buffer.shape != patches.shape:
            buffer = own.buffer = np.empty(patches.shape, np.float32)
        for number, values in enumerate(patches):
            for y in range(0, values.shape[1], _STRIP):  # intermediate values stay in the processor's cache
                call.normalisation.apply(values[:, y : y + _STRIP], out=buffer[number, :, y : y + _STRIP])
        scores = centre(predict(buffer), call.margin)
        if np.may_share_memory(scores, buffer):  # a network that passes its input on
            scores = scores.copy()
        if not call.labels:
            refuse_infinite(scores)
            return np.ascontiguousarray(scores)
        return decide_patches(scores, spec.decision.threshold)

    return network


def decide_patches(scores: NDArray[np.float32], threshold: float | None) -> NDArray[np.uint8]:
    """Labels `(n, y, x)` from scores `(n, channel, y, x)`; raises ValueError if a score is not finite."""
    return np.stack([_decided(each, threshold) for each in scores])


def centre(values: V, margin: int) -> V:
    """View of an array or a tensor without `margin` pixels on each side of the last two axes."""
    inner: V = values[..., margin:-margin, margin:-margin] if margin else values
    return inner


def _decided(scores: NDArray[np.float32], threshold: float | None) -> NDArray[np.uint8]:
    """Labels `(y, x)` from scores `(channel, y, x)`; raises ValueError if a score is not finite."""
    labels = np.empty(scores.shape[1:], np.uint8)
    for y in range(0, len(labels), _STRIP):
        rows = scores[:, y : y + _STRIP]
        refuse_infinite(rows)
        labels[y : y + _STRIP] = decide(rows, threshold)
    return labels


def refuse_infinite(scores: NDArray[np.float32]) -> None:
    """Raise ValueError if a score is NaN or infinite."""
    if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        raise ValueError("the model gave scores that are not finite")


def refuse_other_bands(spec: ModelSpec, bands: int) -> None:
    """Compare the number of bands of patches with the spec.

    Raises:
        ModelError: the model takes another number of bands.
    """
    if bands != len(spec.bands):
        raise ModelError(f"model {spec.name} takes {len(spec.bands)} bands, not {bands}; give it these bands")


def refuse_other_shape(spec: ModelSpec, given: tuple[int, ...], scores: tuple[int, ...], *, margin: int = 0) -> None:
    """Compare the shape of scores for patches `given` with the spec: a wrong shape would shift or mislabel the mask.

    Args:
        spec: spec of the model.
        given: shape of patches `(n, channel, P, Q)`.
        scores: shape of scores that lack `margin` pixels on each side.
        margin: see `Call`.

    Raises:
        ModelError: the network gives another shape than its spec promises, or takes another number of bands.
    """
    refuse_other_bands(spec, given[1])
    problem = score_problem(spec, given, scores, margin=margin)
    if problem:
        raise ModelError(problem)


def repeated(corner: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Patches of the shape `(n, channel, y, x)`, filled with the same square `(channel, y, x)` side by side."""
    side = corner.shape[-1]
    rows, columns = (-(-size // side) for size in shape[2:])
    return np.tile(corner, (shape[0], 1, rows, columns))[..., : shape[2], : shape[3]].copy()
