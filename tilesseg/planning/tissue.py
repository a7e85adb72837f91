"""Tissue of a stained slide, found in a small view of it. For choosing the region of interest, not for measuring.

Glass is grey, stain is not: the difference between a pixel's highest and lowest channel, its chroma, tells them apart
on H&E and on immunohistochemistry, whatever the brightness of the lamp. Glass taken for tissue costs time, tissue
taken for glass is lost, so every choice here leans to more tissue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FAINTEST, PALEST = 8.0, 14.0
"""Chroma (0 … 255) that glass may have, and chroma that only stain has. The threshold lies between them, so that
bare glass gives no tissue, and dark nuclei do not make glass of the pale stroma around them."""
DARK = 128
"""Value (0 … 255) below which a pixel, dark in every channel, is not glass, even if grey: pigment, ink, silver."""
FLECK, HOLE = 16, 1024
"""Areas in pixels of the view: smaller tissue is dust, and a smaller hole in tissue is filled."""
AROUND = 2
"""Number of pixels of the view by which tissue is grown, so that no edge is lost."""


def tissue(rgb: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask of the tissue in a view.

    Args:
        rgb: the view, `(3, y, x)`, 0 … 255; a thousand pixels along a side are enough.
        valid: `(y, x)`, False where nothing was scanned.

    Returns:
        Mask `(y, x)`, all False for bare glass.
    """
    smooth = np.stack([ndimage.uniform_filter(channel.astype(np.float32), 3) for channel in rgb])
    highest, lowest = smooth.max(axis=0), smooth.min(axis=0)
    chroma = highest - lowest
    mask = ((chroma > stain_threshold(chroma[valid])) | (highest < DARK)) & valid
    mask &= ~_small_parts(mask, FLECK)
    mask |= _small_parts(~mask, HOLE) & ndimage.binary_fill_holes(mask)
    return np.asarray(ndimage.binary_dilation(mask, _disc(AROUND)), np.bool_)


def stain_threshold(chroma: NDArray[np.float32]) -> float:
    """Chroma above which a pixel is stained, between `FAINTEST` and `PALEST`."""
    return float(np.clip(otsu(chroma), FAINTEST, PALEST)) if chroma.size else FAINTEST


def otsu(values: NDArray[np.float32]) -> float:
    """Threshold between two classes of values 0 … 255 with the least variance within the classes (Otsu 1979)."""
    counts = np.histogram(values, 256, (0, 256))[0].astype(np.float64)
    levels = np.arange(256) + 0.5
    below, above = np.cumsum(counts), counts.sum() - np.cumsum(counts)
    sums = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(np.argmax(np.nan_to_num(between)) + 1)


def _small_parts(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Mask of the connected parts, over edges and corners, of fewer than `area` pixels."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    small = np.bincount(labels.ravel()) < area
    small[0] = False
    return np.asarray(small[labels], np.bool_)


def _disc(radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(y**2 + x**2 <= radius**2 + 1, np.bool_)
