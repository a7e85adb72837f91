"""What was measured of a network on the machine that computes: how fast it is, and what it takes, by patch size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PatchSpeed:
    """One size of patch, at the batch that goes with it."""

    patch: int
    """Side, in pixels."""
    mpx_per_s: float
    """Predicted pixels a second, in millions, of one process."""
    memory_mb: float
    """Peak resident memory of a process that predicts such patches, in millions of bytes."""
