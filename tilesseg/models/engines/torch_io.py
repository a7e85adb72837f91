"""Steps before and after a network in PyTorch, on the device, and the way of patches to a GPU and back.

Every step is rounded as NumPy rounds it and treats each element alone, so a result does not depend on its place.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tilesseg.models.normalisation import Normalisation

STREAMS = 2
"""Number of batches on the way to, on, and from a GPU."""


def as_tensor(patches: NDArray[Any]) -> torch.Tensor:
    """Patches as a tensor, without a copy if torch can use their memory."""
    # torch warns of read-only arrays, and supports no negative strides and no foreign byte order
    fit = patches.flags.writeable and patches.flags.c_contiguous and patches.dtype.isnative
    return torch.from_numpy(patches if fit else np.array(patches, patches.dtype.newbyteorder("="), order="C"))


def leaves(answer: Any, name: str = "") -> dict[str, Any]:
    """Values in the tuples, lists and dicts that a network gives, by their places such as `out` or `0.aux`."""
    if isinstance(answer, Mapping):
        parts = [leaves(part, f"{name}.{key}") for key, part in answer.items()]
    elif isinstance(answer, tuple | list):
        parts = [leaves(part, f"{name}.{number}") for number, part in enumerate(answer)]
    else:
        return {name.removeprefix("."): answer}
    return {place: value for part in parts for place, value in part.items()}


def normalise(patches: torch.Tensor, by: Normalisation, layout: torch.memory_format) -> torch.Tensor:
    """Normalised patches, float32, equal to the result of `Normalisation.apply`."""
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
    """Labels `(n, y, x)` uint8 from scores `(n, channel, y, x)`, equal to those of `raster.labels.decide`."""
    first, *others = scores.contiguous().unbind(1)
    best, labels = first.clone(), torch.zeros_like(first, dtype=torch.uint8)
    for label, channel in enumerate(others, start=1):
        labels.masked_fill_(channel > best, label)
        torch.maximum(best, channel, out=best)
    return labels if threshold is None else (labels + 1) * (best >= float(np.float32(threshold)))


def refuse_infinite(scores: torch.Tensor) -> None:
    """Raise ValueError if a score is NaN or infinite."""
    if not bool(torch.isfinite(torch.stack(torch.aminmax(scores))).all()):
        raise ValueError("the model gave scores that are not finite")


def _per_band(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]


class Streams:
    """Streams of a GPU: one batch is copied while another is computed, from and to pinned memory.

    Has not been run on a GPU.
    """

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._free: queue.SimpleQueue[torch.cuda.Stream] = queue.SimpleQueue()
        for _ in range(STREAMS):
            self._free.put(torch.cuda.Stream(place))  # type: ignore[no-untyped-call]

    def run(self, raw: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[Any]:
        """Compute `raw`, which lies in host memory, on the GPU; the result is a new array in host memory."""
        stream = self._free.get()
        try:
            with torch.cuda.stream(stream):
                scores = compute(raw.pin_memory().to(self._place, non_blocking=True))
                back = torch.empty(scores.shape, dtype=scores.dtype, pin_memory=True)
                back.copy_(scores, non_blocking=True)
            stream.synchronize()
        finally:
            self._free.put(stream)
        result: NDArray[Any] = back.numpy()
        return result
