"""To a GPU and back: pinned memory and two streams, so that one batch travels while another is computed.

Has not been run on a GPU.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

STREAMS = 2


class Streams:
    """Streams of one device; a batch takes one for its way there, its computing and its way back."""

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._free: queue.SimpleQueue[torch.cuda.Stream] = queue.SimpleQueue()
        for _ in range(STREAMS):
            self._free.put(torch.cuda.Stream(place))  # type: ignore[no-untyped-call]

    def run(self, raw: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[Any]:
        """Compute `raw`, which lies in host memory, on the device; the result lies in memory of its own."""
        stream = self._free.get()
        try:
            with torch.cuda.stream(stream):
                found = compute(raw.pin_memory().to(self._place, non_blocking=True))
                back = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
                back.copy_(found, non_blocking=True)
            stream.synchronize()
        finally:
            self._free.put(stream)
        result: NDArray[Any] = back.numpy()
        return result
