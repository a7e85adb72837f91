"""What was measured of a network on the machine that computes: how fast it is, and what it takes, by patch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log


@dataclass(frozen=True, slots=True)
class PatchSpeed:
    """One size of patch, at the batch that goes with it."""

    patch: int
    """Side, in pixels."""
    mpx_per_s: float
    """Predicted pixels a second, in millions, of one process."""
    memory_mb: float
    """Peak resident memory of a process that predicts such patches, in millions of bytes."""


def speed_of(patch: int, measured: Sequence[PatchSpeed]) -> float | None:
    """Predicted Mpx/s at a size of patch, between its two neighbours that were measured; None beyond them.

    Args:
        patch: side, in pixels.
        measured: by growing patch.
    """
    for one in measured:
        if one.patch == patch:
            return one.mpx_per_s
    for below, above in pairwise(measured):
        if below.patch < patch < above.patch:
            share = log(patch / below.patch) / log(above.patch / below.patch)
            return below.mpx_per_s + share * (above.mpx_per_s - below.mpx_per_s)
    return None
