"""Which series of a TIFF is the image, and which of its pages are its bands, time point and plane in depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tifffile

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening

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


_LARGE = 0.25
"""Images of at least this share of the pixels are images of their own, not a label or an overview."""


def choose_series(
    series: Sequence[tifffile.TiffPageSeries], asked: int | str | None, path: str
) -> tuple[int, tuple[str, ...]]:
    """Number of the image that is read, and notes on the choice.

    Raises:
        SourceError: the one asked for is not there.
    """
    if asked is not None:
        return _asked(series, asked, path), ()
    areas = [_area(one) for one in series]
    # scanners put the slide first, whatever the size of the pictures of its label
    number = 0 if series[0].kind in ("svs", "qpi") else areas.index(max(areas))
    rivals = [k for k, area in enumerate(areas) if k != number and area >= _LARGE * areas[number]]
    if not rivals or series[0].kind in ("svs", "qpi"):
        return number, ()
    told = f"{len(series)} images in the file ({listed(series)}): number {number} is read; choose another by series"
    return number, (told,)


def listed(series: Sequence[tifffile.TiffPageSeries]) -> str:
    """Numbers, names and sizes of the images, the first ten of them."""
    shown = [f"{k} {one.name!r} {_size(one)}" for k, one in enumerate(series[:10])]
    return ", ".join(shown) + (f" and {len(series) - 10} more" if len(series) > 10 else "")


def _asked(series: Sequence[tifffile.TiffPageSeries], asked: int | str, path: str) -> int:
    names = [one.name for one in series]
    if isinstance(asked, str) and names.count(asked) == 1:
        return names.index(asked)
    if isinstance(asked, str) and names.count(asked) > 1:
        raise SourceError(f"{path}: {names.count(asked)} images are named {asked!r}: {listed(series)}; give a number")
    number = int(asked) if isinstance(asked, int) or asked.isdecimal() else -1
    if not 0 <= number < len(series):
        raise SourceError(f"{path}: series {asked!r} is asked for, and the file has {listed(series)}")
    return number


def _area(series: tifffile.TiffPageSeries) -> int:
    return int(series.keyframe.imagelength) * int(series.keyframe.imagewidth)


def _size(series: tifffile.TiffPageSeries) -> str:
    return f"{series.keyframe.imagelength} × {series.keyframe.imagewidth}"
