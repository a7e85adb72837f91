"""Choice of an image in a TIFF: its series, and the pages of its bands, time point and plane in depth."""

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
    """Pages of a series that are read."""

    numbers: tuple[int, ...]
    """Numbers of pages of the series, one for each channel."""
    separate: bool
    """Whether samples are planes of their own."""
    samples: int
    """Number of samples in a channel, with alpha."""


def choose_pages(series: tifffile.TiffPageSeries, opening: Opening, path: str) -> TiffPages:
    """The pages of the channels, in their order.

    Raises:
        SourceError: no choice among several time points or planes, a missing time point or plane, or an axis without a
            meaning.
    """
    axes, shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    front, _, back = axes.partition("Y")
    if back not in ("X", "XS"):
        raise SourceError(f"{path}: axes {axes}, where YX or YXS is expected last; convert it first")
    separate = front.endswith("S")
    front = front.removesuffix("S")
    lengths = dict(zip(axes, shape, strict=True))
    chosen = {axis: _place(axis, lengths[axis], opening, path) for axis in front if axis != "C"}
    channels = range(lengths["C"] if "C" in front else 1)
    planes = math.prod(lengths[axis] for axis in front)
    if len(series) != planes:
        raise SourceError(f"{path}: {len(series)} pages for {planes} planes ({axes}: {shape}); export it again")
    numbers = tuple(_number(front, lengths, {**chosen, "C": channel}) for channel in channels)
    return TiffPages(numbers, separate, lengths.get("S", 1))


def _place(axis: str, length: int, opening: Opening, path: str) -> int:
    """Number on an axis that is no channel."""
    key = axis.lower()
    requested = getattr(opening, key, None) if axis in _NAMES else None
    name = _NAMES.get(axis, f"images along an axis {axis}")
    if requested is None and length == 1:
        return 0
    if requested is None and axis in _NAMES:
        raise SourceError(f"{path}: {length} {name}, of which 1 is read; choose {key} from 0 to {length - 1}")
    if requested is None:
        raise SourceError(f"{path}: {length} {name}, of which 1 is read; split the file")
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
        if requested not in (None, 0) and key.upper() not in axes:
            raise SourceError(f"{path}: {key} {requested} is requested, and there is only {key} 0; leave {key} out")


def _number(front: str, lengths: dict[str, int], place: dict[str, int]) -> int:
    number = 0
    for axis in front:
        number = number * lengths[axis] + place[axis]
    return number


_LARGE = 0.25
"""Share of the pixels above which another image is an image of its own, not a label or an overview."""


def choose_series(
    series: Sequence[tifffile.TiffPageSeries], requested: int | str | None, path: str
) -> tuple[int, tuple[str, ...]]:
    """Number of the image that is read, and notes on the choice.

    Raises:
        SourceError: the requested image is not there.
    """
    if requested is not None:
        return _requested_series(series, requested, path), ()
    areas = [_area(one) for one in series]
    # scanners put the slide first, even where the picture of its label is larger
    number = 0 if series[0].kind in ("svs", "qpi") else areas.index(max(areas))
    rivals = [k for k, area in enumerate(areas) if k != number and area >= _LARGE * areas[number]]
    if not rivals or series[0].kind in ("svs", "qpi"):
        return number, ()
    note = f"{len(series)} images in the file ({listed(series)}): number {number} is read; choose another by series"
    return number, (note,)


def listed(series: Sequence[tifffile.TiffPageSeries]) -> str:
    """Numbers, names and sizes of the images, the first ten of them."""
    shown = [f"{k} {one.name!r} {_size(one)}" for k, one in enumerate(series[:10])]
    return ", ".join(shown) + (f" and {len(series) - 10} more" if len(series) > 10 else "")


def _requested_series(series: Sequence[tifffile.TiffPageSeries], requested: int | str, path: str) -> int:
    names = [one.name for one in series]
    if isinstance(requested, str) and names.count(requested) == 1:
        return names.index(requested)
    if isinstance(requested, str) and names.count(requested) > 1:
        raise SourceError(
            f"{path}: {names.count(requested)} images are named {requested!r}: {listed(series)}; give a number"
        )
    number = int(requested) if isinstance(requested, int) or requested.isdecimal() else -1
    if not 0 <= number < len(series):
        raise SourceError(f"{path}: series {requested!r} is requested; choose one of {listed(series)}")
    return number


def _area(series: tifffile.TiffPageSeries) -> int:
    return int(series.keyframe.imagelength) * int(series.keyframe.imagewidth)


def _size(series: tifffile.TiffPageSeries) -> str:
    return f"{series.keyframe.imagelength} × {series.keyframe.imagewidth}"
