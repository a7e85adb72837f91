"""What was measured of a network on the machine that computes: how fast it is, and what it takes, by patch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    inferred: bool = False
    """Whether it was not measured, but lies between two that were."""


def speed_at(patch: int, measured: Sequence[PatchSpeed]) -> PatchSpeed | None:
    """What is known of a size of patch, between its two neighbours that were measured; None beyond them.

    Args:
        patch: side, in pixels.
        measured: by growing patch.
    """
    for one in measured:
        if one.patch == patch:
            return one
    for below, above in pairwise(measured):
        if below.patch < patch < above.patch:
            return _between(below, above, patch)
    return None


def fitting(measured: Sequence[PatchSpeed], fits: Callable[[PatchSpeed], bool], *, step: int) -> tuple[PatchSpeed, ...]:
    """The sizes that fit and, inferred, the largest that would between the last of them and the next that does not.

    Args:
        measured: by growing patch.
        fits: whether a size may be used.
        step: between sizes that are tried.
    """
    found = tuple(one for one in measured if fits(one))
    if not found or len(found) == len(measured):
        return found
    last, beyond = found[-1], measured[len(found)]
    for patch in range(beyond.patch - step, last.patch, -step):
        one = _between(last, beyond, patch)
        if fits(one):
            return (*found, one)
    return found


def _between(below: PatchSpeed, above: PatchSpeed, patch: int) -> PatchSpeed:
    """Speed goes with the logarithm of the side, memory with the area."""
    share = log(patch / below.patch) / log(above.patch / below.patch)
    speed = below.mpx_per_s + share * (above.mpx_per_s - below.mpx_per_s)
    share = (patch**2 - below.patch**2) / (above.patch**2 - below.patch**2)
    return PatchSpeed(patch, speed, below.memory_mb + share * (above.memory_mb - below.memory_mb), inferred=True)
