"""Tissue: where a stained slide is not bare glass, from a small view of it. For choosing where to look, not to measure.

Glass is grey, stain is not: the difference between a pixel's highest and lowest channel, its chroma, tells them apart
on H&E and on immunohistochemistry, whatever the brightness of the lamp. What is wrong costs time in one direction and
tissue in the other, so every choice here leans to looking at more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FAINTEST, PALEST = 8.0, 14.0
"""Of 255: chroma that glass may have, and chroma that only stain has. The threshold is looked for in between, so that
all glass gives no tissue, and dark nuclei do not make the pale stroma around them glass."""
DARK = 128
"""Of 255: what is darker than this in every channel is no glass, though it may be grey: pigment, ink, silver."""
FLECK, HOLE = 16, 1024
"""Areas in pixels of the view: tissue that is smaller is dust, and a smaller hole in tissue is part of it."""
AROUND = 2
"""Pixels of the view by which tissue is grown, so that no edge of it is lost."""


def tissue(rgb: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where there is tissue.

    Args:
        rgb: the view, `(3, y, x)`, 0 … 255; a thousand pixels along a side are enough.
        valid: `(y, x)`, False where nothing was scanned: no tissue.

    Returns:
        `(y, x)`. All False for bare glass.
    """
    smooth = np.stack([ndimage.uniform_filter(channel.astype(np.float32), 3) for channel in rgb])
    highest, lowest = smooth.max(axis=0), smooth.min(axis=0)
    chroma = highest - lowest
    found = ((chroma > stain_threshold(chroma[valid])) | (highest < DARK)) & valid
    found &= ~_small(found, FLECK)
    found |= _small(~found, HOLE) & ndimage.binary_fill_holes(found)
    return np.asarray(ndimage.binary_dilation(found, _disc(AROUND)), np.bool_)


def stain_threshold(chroma: NDArray[np.float32]) -> float:
    """The chroma above which something is stained, between `FAINTEST` and `PALEST`."""
    return float(np.clip(otsu(chroma), FAINTEST, PALEST)) if chroma.size else FAINTEST


def otsu(values: NDArray[np.float32]) -> float:
    """The threshold between two kinds of values 0 … 255 that leaves the least variance within each (Otsu 1979)."""
    counts = np.histogram(values, 256, (0, 256))[0].astype(np.float64)
    levels = np.arange(256) + 0.5
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(np.argmax(np.nan_to_num(between)) + 1)


def _small(found: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """What is connected, also over corners, to fewer than `area` pixels in all."""
    labels, _ = ndimage.label(found, np.ones((3, 3)))
    small = np.bincount(labels.ravel()) < area
    small[0] = False
    return np.asarray(small[labels], np.bool_)


def _disc(radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2 + 1, np.bool_)
