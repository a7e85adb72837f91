"""Validity of pixels, scale and offset: from raw values and masks to the pixels of an image, for every format."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tilesseg.formats.source import Pixels

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
"""Data types that can be segmented: real numbers that float32 holds well enough."""

Scaling = tuple[float, float]
"""Scale and offset."""

UNSCALED: Scaling = (1.0, 0.0)

Mask = NDArray[np.bool_]


def physical(channel: NDArray[Any], scaling: Scaling) -> NDArray[Any]:
    """A channel's raw values times scale plus offset, as float32; the channel itself where that changes nothing.

    Computed in float64, so that the type in which the raw values were stored makes no difference.
    """
    if scaling == UNSCALED:
        return channel
    exact = channel.astype(np.float64)
    with np.errstate(all="ignore"):  # values that are no longer finite are invalid
        exact *= scaling[0]
        exact += scaling[1]
        return exact.astype(np.float32)


AlphaUse = Literal["mask", "band"]
MaskKind = Literal["none", "nodata", "dataset", "bands"]


@dataclass(frozen=True, slots=True)
class MaskChoice:
    """Origin of the mask of a file, of all that its tags offer."""

    alpha: tuple[int, ...]
    """Indices of the bands that are the mask, from 0; they are no bands of the image."""
    kind: MaskKind
    """Origin beside alpha: none, the nodata values, one mask for all bands, or one mask for each band."""
    gaps: tuple[bool, ...]
    """Whether each band that is not alpha has a nodata value, or a mask of its own, that counts."""


def choose_mask(tagged: Sequence[bool], flags: Sequence[Collection[str]], use: AlphaUse | None = None) -> MaskChoice:
    """The origin of the mask of a file: alpha before nodata values, whatever the number of bands.

    A mask of the file (internal, or `.msk`) counts beside alpha: a pixel is covered where both say so. A file of which
    all bands are tagged alpha has bands, and no mask: `gdal_translate -b 4` keeps the tag of a near infrared band.

    Args:
        tagged: for each band, whether its colour interpretation is alpha.
        flags: for each band, GDAL's mask flags: `all_valid`, `nodata`, `per_dataset`, `alpha`; empty for a mask of its
            own.
        use: `band` where alpha is a band like any other; by default it is the mask.
    """
    masking = use != "band" and not all(tagged)
    alpha = tuple(index for index, is_alpha in enumerate(tagged) if is_alpha and masking)
    told = [set(flags[index]) for index in range(len(tagged)) if index not in alpha]
    told = [{"all_valid"} if "alpha" in words else words for words in told]  # alpha is told by `tagged`
    if any("per_dataset" in words and not (alpha and "nodata" in words) for words in told):
        return MaskChoice(alpha, "dataset", (False,) * len(told))
    gaps = tuple("all_valid" not in words and not alpha for words in told)
    if not any(gaps):
        return MaskChoice(alpha, "none", gaps)
    return MaskChoice((), "nodata" if all(words == {"nodata"} for words in told) else "bands", gaps)


def joined(covered: Sequence[Mask], data: Sequence[Mask] = ()) -> Mask:
    """Mask of an image: the one rule of which pixels are valid, whatever the number of files that hold the bands.

    A pixel is nodata where every selected band has its nodata value, and where one band is not covered: by alpha, by a
    mask of its file, by a tile or chunk that is not stored, or where it is NaN (see `finish`).

    Args:
        covered: masks `(y, x)`, at least one; a pixel is valid where all are True.
        data: for each selected band, where `(y, x)` it differs from its nodata value; empty where a selected band has
            no nodata value, and so has data everywhere.
    """
    valid = covered[0]
    for plane in covered[1:]:
        valid = valid & plane
    if len(data):
        some = data[0]
        for plane in data[1:]:
            some = some | plane
        valid = valid & some if any(valid.strides) or not valid.all() else some
    return valid


def finish(
    values: NDArray[Any],
    covered: Sequence[Mask],
    data: Sequence[Mask] = (),
    *,
    scalings: Sequence[Scaling],
    dtype: np.dtype[Any],
) -> Pixels:
    """Pixels of an image, from raw values and masks.

    Args:
        values: `(channel, y, x)`. Not copied where nothing changes them.
        covered: see `joined`.
        data: see `joined`.
        scalings: scale and offset of every channel.
        dtype: data type of the result.
    """
    if values.dtype != dtype or any(scaling != UNSCALED for scaling in scalings):
        raw, values = values, np.empty(values.shape, dtype)
        with np.errstate(over="ignore"):  # beyond float32: infinite, hence invalid
            for out, channel, scaling in zip(values, raw, scalings, strict=True):
                out[:] = physical(channel, scaling)
    valid = joined(covered, data)
    if dtype.kind == "f":
        for channel in values:
            valid = valid & np.isfinite(channel)
    return Pixels(values, valid)


def stacked(planes: Sequence[Mask]) -> Mask:
    """Masks `(y, x)` as one array `(mask, y, x)`, which takes no memory where all is valid."""
    if len(planes) == 1:
        return planes[0][None]
    if all(not any(plane.strides) and plane.all() for plane in planes):
        return np.broadcast_to(np.True_, (len(planes), *planes[0].shape))
    return np.stack(planes)
