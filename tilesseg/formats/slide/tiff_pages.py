"""Choice of pages in a TIFF: the pages of an image's bands, its time point and its plane in depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tifffile

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening

_NAMES = {"T": "time points", "Z": "planes in depth"}
_KNOWN = "TZCYXS"
"""Axes with a meaning: the others of tifffile (I, Q, …) only say that there are several."""


@dataclass(frozen=True, slots=True)
class TiffPages:
    """Pages of a series that are read."""

    numbers: tuple[int, ...]
    """Numbers of pages of the series, one for each channel."""
    separate: bool
    """Whether samples are planes of their own."""
    samples: int
    """Number of samples in a channel, with alpha."""


def choose_pages(series: tifffile.TiffPageSeries, opening: Opening, path: str, page: int | None = None) -> TiffPages:
    """The pages of the channels, in their order.

    Args:
        series: the image, or several images whose axis has no name.
        opening: chooses the time point and the plane in depth.
        path: names the file in messages.
        page: number on all axes without a name, counted as one axis; None where there is none.

    Raises:
        SourceError: no choice among several time points or planes, a missing time point or plane, or planes that do
            not fit the axes.
    """
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    front, _, back = axes.partition("Y")
    if back not in ("X", "XS"):
        raise SourceError(f"{path}: axes {axes}, where YX or YXS is expected last; convert it first")
    separate = front.endswith("S")
    front = front.removesuffix("S")
    lengths = shape[: len(front)]
    places = _on_nameless(front, lengths, page or 0)
    for number, (axis, length) in enumerate(zip(front, lengths, strict=True)):
        if axis in _NAMES:
            places[number] = _place(axis, length, opening, path)
    channel = front.find("C")
    channels = range(lengths[channel] if channel >= 0 else 1)
    together = len(series) == 1 and series.dataoffset is not None  # all planes lie behind the only page
    if len(series) != math.prod(lengths) and not together:
        because = f"{len(series)} pages for {math.prod(lengths)} planes ({axes}: {shape})"
        raise SourceError(f"{path}: {because}; export it again")
    numbers = tuple(_number(lengths, [k if n == channel else at for n, at in enumerate(places)]) for k in channels)
    samples = shape[axes.index("S")] if "S" in axes else 1
    return TiffPages(numbers, separate, samples)


def _on_nameless(front: str, lengths: Sequence[int], page: int) -> list[int]:
    """Places on all axes before y: a page's on the axes without a name, and 0 on the others."""
    places = [0] * len(front)
    for number in reversed(range(len(front))):
        if front[number] not in _KNOWN:
            page, places[number] = divmod(page, lengths[number])
    return places


def _place(axis: str, length: int, opening: Opening, path: str) -> int:
    """Number on the axis of time or depth."""
    key, name = axis.lower(), _NAMES[axis]
    requested = getattr(opening, key)
    if requested is None and length == 1:
        return 0
    if requested is None:
        raise SourceError(f"{path}: {length} {name}, of which 1 is read; choose {key} from 0 to {length - 1}")
    if not 0 <= requested < length:
        raise SourceError(f"{path}: {key} {requested} is requested, of {length} {name}; choose 0 to {length - 1}")
    return int(requested)


def refuse_missing(series: tifffile.TiffPageSeries, opening: Opening, path: str) -> None:
    """Refuse a number on an axis that the image does not have.

    Raises:
        SourceError: a number above 0 on an axis of length 1.
    """
    axes = series.get_axes(squeeze=False)
    for key in ("t", "z"):
        requested = getattr(opening, key)
        if requested not in (None, 0) and key.upper() not in axes and nameless(series) == 1:
            raise SourceError(f"{path}: {key} {requested} is requested, and there is only {key} 0; leave {key} out")


def nameless(series: tifffile.TiffPageSeries) -> int:
    """Number of images along the axes whose meaning the file does not state; 1 where it states all."""
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    return math.prod(length for axis, length in zip(axes, shape, strict=True) if axis not in _KNOWN)


def _number(lengths: Sequence[int], places: Sequence[int]) -> int:
    number = 0
    for length, at in zip(lengths, places, strict=True):
        number = number * length + at
    return number
