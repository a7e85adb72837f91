"""What a weights file fixes of its input: the batch is divided to fit, a side or channels that disagree are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.spec import ModelSpec


def compare_input(shape: Sequence[int | None], spec: ModelSpec, weights: Path) -> int | None:
    """Compare an input `(n, channel, y, x)` with the spec where it is fixed, None being free.

    Returns:
        The batch size that the file fixes, or None.

    Raises:
        ModelError: another number of axes, of channels, or another patch than the spec says.
    """
    if len(shape) != 4:
        raise ModelError(f"{weights} takes an array of {len(shape)} axes, not (n, channel, y, x); export it so")
    batch, channels, *sides = shape
    if channels is not None and channels != len(spec.bands):
        raise ModelError(f"{weights} takes {channels} channels, its spec names {len(spec.bands)} bands; correct bands")
    for side in sides:
        if side is not None and side != spec.patch.fixed:
            raise ModelError(
                f"{weights} takes patches of {side} only, its spec {spec.patch.rule}; set patch.fixed: {side}"
            )
    return batch


def parts(patches: NDArray[Any], batch: int | None) -> list[NDArray[Any]]:
    """Batches of the size that the file fixes, the last one filled up with its own last patch."""
    if batch is None:
        return [patches]
    missing = -len(patches) % batch
    full = np.concatenate([patches, np.repeat(patches[-1:], missing, axis=0)]) if missing else patches
    return [full[i : i + batch] for i in range(0, len(full), batch)]
