"""Which pages of a series are read: one time point, one plane of the stack, all channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tifffile

from tilesseg.errors import SourceError
from tilesseg.formats.opening import Opening

_NAMES = {"T": "time points", "Z": "planes in depth"}


@dataclass(frozen=True, slots=True)
class TiffPages:
    """What is read of a series."""

    numbers: tuple[int, ...]
    """Pages of the series, one for each channel."""
    separate: bool
    """Samples are planes of their own."""
    samples: int
    """In a channel, alpha too."""


def choose_pages(series: tifffile.TiffPageSeries, opening: Opening, path: str) -> TiffPages:
    """The pages of the channels, in their order.

    Raises:
        SourceError: several time points or planes and none chosen, one that is not there, or an axis without a
            meaning.
    """
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    front, _, back = axes.partition("Y")
    if back not in ("X", "XS"):
        raise SourceError(f"{path}: axes {axes}, and an image ends in YX or YXS")
    separate = front.endswith("S")
    front = front.removesuffix("S")
    lengths = dict(zip(axes, shape, strict=True))
    chosen = {axis: _one(axis, lengths[axis], opening, path) for axis in front if axis != "C"}
    channels = range(lengths["C"] if "C" in front else 1)
    planes = math.prod(lengths[axis] for axis in front)
    if len(series) != planes:
        raise SourceError(f"{path}: {len(series)} pages for {planes} planes ({axes}: {shape}); not readable by plane")
    numbers = tuple(_number(front, lengths, {**chosen, "C": channel}) for channel in channels)
    return TiffPages(numbers, separate, lengths.get("S", 1))


def _one(axis: str, length: int, opening: Opening, path: str) -> int:
    """The place on an axis that is no channel."""
    key = axis.lower()
    asked = getattr(opening, key, None) if axis in _NAMES else None
    what = _NAMES.get(axis, f"images along an axis {axis}")
    if asked is None and length == 1:
        return 0
    if asked is None and axis in _NAMES:
        raise SourceError(f"{path}: {length} {what} and one is read: choose {key} from 0 to {length - 1}")
    if asked is None:
        raise SourceError(f"{path}: {length} {what}, and one is read; split the file")
    if not 0 <= asked < length:
        raise SourceError(f"{path}: {key} {asked} is asked for, and it has {length} {what}, counted from 0")
    return int(asked)


def refuse_missing(series: tifffile.TiffPageSeries, opening: Opening, path: str) -> None:
    """Refuse a place on an axis that the image does not have at all.

    Raises:
        SourceError: above 0 on an axis of length 1.
    """
    axes = series.get_axes(squeeze=False)
    for key in ("t", "z"):
        asked = getattr(opening, key)
        if asked not in (None, 0) and key.upper() not in axes:
            raise SourceError(f"{path}: {key} {asked} is asked for, and it has one image, {key} 0")


def _number(front: str, lengths: dict[str, int], place: dict[str, int]) -> int:
    number = 0
    for axis in front:
        number = number * lengths[axis] + place[axis]
    return number
