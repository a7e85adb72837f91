"""The margin of a spec against the network, tried: pixels beyond the margin must not change a score.

`crop` needs the margin, and patches that begin at multiples of `patch.stride_multiple` score alike. Both are measured
on a single patch. What the network's layers say (`crop_safety`) comes first; this shows what no layer says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tilesseg.models.crop_safety.perturbed_margin import perturbed_margin
from tilesseg.models.spec import ModelSpec
from tilesseg.models.trial.trial_batches import SMALL, Run, normalised_patches, small_sides

LARGEST = 1024
"""Side of the largest patch on which a margin is tried."""
TOLERANCE = 1e-3
"""Change of a score that counts as rounding, as a share of the spread of the scores."""
PATIENCE = 0.5
"""Seconds of a measurement after which it is not repeated on a patch of twice the side."""
DARKER = np.float32(0.3)
"""Brightness of pixels around the middle of a patch, as a share of the usual one."""
STRIDES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class MarginTrial:
    """Findings about the margin and the stride multiple that a spec states."""

    needed: int | None = None
    """Margin that the network needs, at least; None where more than `seen` pixels."""
    seen: int = 0
    """Distance in pixels up to which the margin was tried; 0 where it was too large to be tried."""
    stride_multiple: int | None = None
    """Stride multiple that the network needs; None where it is the one of the spec, or was not tried."""

    def fits(self, spec: ModelSpec) -> bool:
        """Whether the margin of the spec is wide enough, as far as it was tried."""
        return not self.seen or (self.needed is not None and self.needed <= (spec.margin or 0))


def try_margin(spec: ModelSpec, run: Run) -> MarginTrial:
    """Try the margin that a spec states.

    Raises:
        ModelError: the network refuses a patch.
    """
    assert spec.margin is not None  # the caller tries no other spec
    multiple, margin = spec.patch.stride_multiple, spec.margin
    cell = multiple * -(-4 // multiple)
    size, seen = spec.patch.at_least(max(SMALL, 2 * margin + 4 * cell)), 0
    while size <= LARGEST:
        start = time.perf_counter()
        found = perturbed_margin(
            run,
            len(spec.bands),
            multiple,
            size=size,
            cell=cell,
            least=margin,
            cut=spec.patch.shrink // 2,
            tolerance=TOLERANCE,
        )
        seen = size // 2
        if found is not None:
            stride = _stride_multiple(spec, run, max(found, margin))
            return MarginTrial(_rounded(found, margin, multiple), seen, stride)
        if spec.patch.fixed or time.perf_counter() - start > PATIENCE:
            break
        size = spec.patch.at_least(2 * size)
    return MarginTrial(seen=seen)


def _rounded(found: int | None, margin: int, multiple: int) -> int | None:
    return found if found is None or found <= margin else -(-found // multiple) * multiple


def _stride_multiple(spec: ModelSpec, run: Run, margin: int) -> int | None:
    """Smallest stride multiple by which a shifted patch gives shifted scores; None if the one of the spec does."""
    stated, cut = spec.patch.stride_multiple, spec.patch.shrink // 2
    tried = [stated, *(stride for stride in STRIDES if stride > stated and stride % stated == 0)]
    side = spec.patch.at_least(2 * margin + 2 * max(STRIDES))
    if spec.patch.fixed or side > LARGEST:
        return None
    image = normalised_patches(spec, side + max(STRIDES), number=1, seed=2)
    first = run(image[..., :side, :side])
    nearly, edge = TOLERANCE * float(np.std(first)), margin - cut
    for stride in tried:
        shifted = run(np.ascontiguousarray(image[..., stride : stride + side, stride : stride + side]))
        stop = first.shape[-1] - edge
        here = first[..., edge + stride : stop, edge + stride : stop]
        there = shifted[..., edge : stop - stride, edge : stop - stride]
        if np.abs(here - there).max() <= nearly:
            return None if stride == stated else stride
    return None  # no stride is known: the layers and the margin decide


def share_that_changes(spec: ModelSpec, run: Run, decide_labels: Run) -> float:
    """Share of labels in the middle of a patch that change if the pixels beyond half of the patch are darker ones.

    Args:
        spec: spec of the network.
        run: network.
        decide_labels: function from raw scores to labels `(n, y, x)`.

    Raises:
        ModelError: the network refuses a patch.
    """
    side, _ = small_sides(spec)
    patch, other = normalised_patches(spec, side, seed=3).reshape(2, 1, len(spec.bands), side, side)
    changed = other.min() + DARKER * (other - other.min())
    quarter = side // 4
    changed[..., quarter : side - quarter, quarter : side - quarter] = patch[
        ..., quarter : side - quarter, quarter : side - quarter
    ]
    inside = slice(3 * side // 8 - spec.patch.shrink // 2, max(5 * side // 8 - spec.patch.shrink // 2, 1))
    before, after = (decide_labels(run(np.ascontiguousarray(each)))[:, inside, inside] for each in (patch, changed))
    return float((before != after).mean()) if before.size else 0.0
