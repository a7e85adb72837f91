"""Bands, and the pixels of a window as a format reads them: raw values, and masks of two kinds.

A mask says where bands are covered, or where a band differs from its nodata value; `validity.joined` makes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.reading.validity import Scaling


@dataclass(frozen=True, slots=True)
class ImageBand:
    """One band of an image: its name and data type, its place in the files, and its scale and offset."""

    name: str | None
    dtype: str
    """Data type of its values in the file."""
    file: str
    """File or array that holds it."""
    scale: float = 1.0
    offset: float = 0.0
    layer: int = 0
    """Number of its file or array, among the files or arrays of the image."""
    index: int = 0
    """Its number in that file or array, from 0, alpha not counted."""
    mask: int = 0
    """Number of the mask that says where it is covered, among the masks of the image; bands may share one."""
    gaps: int | None = None
    """Number of the mask that says where it differs from its nodata value, None where it has no nodata value."""
    nodata: float | None = None
    """Raw value that means nodata, by the metadata; where alpha is the mask it does not count."""
    resampled: bool = False
    """Whether its raw values are float32 because they are resampled, or were before they were stored."""

    @property
    def scaling(self) -> Scaling:
        return self.scale, self.offset

    @property
    def raw_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32 if self.resampled else self.dtype)


class Planes(NamedTuple):
    """Raw values of a window, with the masks of the files."""

    values: NDArray[Any]
    """`(channel, y, x)`: the requested bands, in their order."""
    valid: Sequence[NDArray[np.bool_]]
    """Masks `(y, x)` of where bands are covered: one for each number that these bands have, in the numbers' order."""
    data: Sequence[NDArray[np.bool_]] = ()
    """Masks `(y, x)` of where bands differ from their nodata values, in the order of the numbers `ImageBand.gaps`."""


def masks_of(planes: Planes) -> list[NDArray[np.bool_]]:
    """All masks of a window: of where bands are covered, then of where they differ from their nodata values."""
    return [*planes.valid, *planes.data]


def values_and_masks(planes: Planes) -> tuple[NDArray[Any], list[NDArray[np.bool_]]]:
    """Values of a window, and all its masks, see `masks_of`."""
    return planes.values, masks_of(planes)


def mask_count(bands: Sequence[ImageBand]) -> int:
    """Number of the masks that these bands have, see `masks_of`."""
    return len({band.mask for band in bands}) + len({band.gaps for band in bands} - {None})


def planes_of(values: NDArray[Any], masks: Sequence[NDArray[np.bool_]], bands: Sequence[ImageBand]) -> Planes:
    """Values and the masks of `masks_of`, as planes again."""
    covers = len({band.mask for band in bands})
    return Planes(values, masks[:covers], masks[covers:])


def voting(planes: Planes, bands: Sequence[ImageBand]) -> Sequence[NDArray[np.bool_]]:
    """Masks of nodata values that decide on a pixel: none where a band has no nodata value, and so data everywhere."""
    return planes.data if all(band.gaps is not None for band in bands) else ()


def finite_only(planes: Planes) -> Sequence[NDArray[np.bool_]]:
    """Masks of where bands are covered, without the pixels where a value is not finite."""
    if planes.values.dtype.kind != "f":
        return planes.valid
    finite = np.isfinite(planes.values).all(axis=0)
    return [plane & finite for plane in planes.valid]
