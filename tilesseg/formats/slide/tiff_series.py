"""Which image of a TIFF of several is read, and what the others are."""

from __future__ import annotations

from collections.abc import Sequence

import tifffile

from tilesseg.errors import SourceError

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
