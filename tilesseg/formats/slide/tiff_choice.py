"""Choice of an image in a TIFF of several: by `series`, by `z` or `t`, else the largest.

The images are those of tifffile's series. Where pages of one size follow each other and the file does not say why, each
page is an image: nobody but the user knows whether they are planes, time points or something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tifffile

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.reading.pixel_size import downsample
from tilesseg.formats.slide.tiff_pages import nameless

LARGE = 0.25
"""Share of the pixels above which another image may be the one that is meant: no label, no overview."""
_LISTED = 10


class TiffImage(NamedTuple):
    """An image of a file."""

    series: int
    """Number of its series in tifffile."""
    page: int | None
    """Its number on the axes without a name; None where the series is one image."""


def choose_image(
    series: Sequence[tifffile.TiffPageSeries], opening: Opening, path: str
) -> tuple[TiffImage, tuple[str, ...]]:
    """The image that is read, and notes on the choice.

    Raises:
        SourceError: the requested image is not there, or images of one size have to be chosen from.
    """
    if opening.series is not None:
        return _requested(series, opening.series, path), ()
    areas = [_area(one) for one in series]
    # scanners put the slide first, even where the picture of its label is larger
    scanner = series[0].kind in ("svs", "qpi")
    number = 0 if scanner else areas.index(max(areas))
    count = nameless(series[number])
    page = None if count == 1 else _page(series, number, opening, path)
    return TiffImage(number, page), () if scanner else _notes(series, number)


def listed(series: Sequence[tifffile.TiffPageSeries]) -> str:
    """Numbers, names and sizes of the images, the first ten of them."""
    images = _images(series)
    shown = [" ".join([str(k), *_called(series[one.series])]) for k, one in enumerate(images[:_LISTED])]
    return ", ".join(shown) + (f" and {len(images) - _LISTED} more" if len(images) > _LISTED else "")


def image_names(series: Sequence[tifffile.TiffPageSeries]) -> tuple[str, ...]:
    """Name of each image, or its size where it has none, for the description; empty where there is one image."""
    images = _images(series)
    return tuple(series[one.series].name or _size(series[one.series]) for one in images) if len(images) > 1 else ()


def _images(series: Sequence[tifffile.TiffPageSeries]) -> list[TiffImage]:
    """All images of a file, in the order of their numbers."""
    counts = [nameless(one) for one in series]
    return [TiffImage(k, page if n > 1 else None) for k, n in enumerate(counts) for page in range(n)]


def _page(series: Sequence[tifffile.TiffPageSeries], number: int, opening: Opening, path: str) -> int:
    """The page of a series of several images, by `z` or `t`."""
    first = sum(nameless(one) for one in series[:number])
    count = nameless(series[number])
    given = {key: value for key in ("z", "t") if (value := getattr(opening, key)) is not None}
    if len(set(given.values())) > 1:
        raise SourceError(f"{path}: its pages lie on one axis, and z {opening.z} and t {opening.t} differ; give one")
    if not given:
        ways = "series, z or t, 0" if first == 0 else f"series ({first} to {first + count - 1}), z or t, 0"
        raise SourceError(
            f"{path}: {count} images of {_size(series[number])}, and no word whether they are planes, time points or "
            f"channels; choose one by {ways} to {count - 1} (or write channels with axes CYX)"
        )
    key, page = next((key, int(value)) for key, value in given.items())
    if not 0 <= page < count:
        raise SourceError(f"{path}: {key} {page} is requested, of {count} images; choose 0 to {count - 1}")
    return page


def _notes(series: Sequence[tifffile.TiffPageSeries], number: int) -> tuple[str, ...]:
    """Note on the images that are not read, where the user may mean one of them."""
    area = _area(series[number])
    others = [one for k, one in enumerate(series) if k != number and not _is_reduced(one, series[number])]
    rivals = [one for one in others if _area(one) >= LARGE * area]
    if not rivals and number == 0:
        return ()
    first = sum(nameless(one) for one in series[:number])
    text = f"{len(_images(series))} images in the file ({listed(series)}): number {first} is read, the largest"
    if rivals:
        share = max(_area(one) for one in rivals) / area
        text = f"{text}; another has {share:.0%} of its pixels"
        return (doubt("image-of-several", f"{text}; choose another by series"),)
    return (f"{text}; choose another by series",)


def _requested(series: Sequence[tifffile.TiffPageSeries], requested: int | str, path: str) -> TiffImage:
    images = _images(series)
    named = [one for one in images if series[one.series].name == requested]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise SourceError(f"{path}: {len(named)} images are named {requested!r}: {listed(series)}; give a number")
    number = int(requested) if isinstance(requested, int) or requested.isdecimal() else -1
    if not 0 <= number < len(images):
        raise SourceError(f"{path}: series {requested} is requested; choose one of {listed(series)}")
    return images[number]


def _is_reduced(one: tifffile.TiffPageSeries, full: tifffile.TiffPageSeries) -> bool:
    """Whether an image is marked as a reduced picture, and of the proportions of another one: a level of it."""
    shapes = [(int(each.keyframe.imagelength), int(each.keyframe.imagewidth)) for each in (full, one)]
    return bool(one.keyframe.is_reduced) and downsample(*shapes) is not None


def _called(series: tifffile.TiffPageSeries) -> list[str]:
    return [*([repr(series.name)] if series.name else []), _size(series)]


def _area(series: tifffile.TiffPageSeries) -> int:
    return int(series.keyframe.imagelength) * int(series.keyframe.imagewidth)


def _size(series: tifffile.TiffPageSeries) -> str:
    return f"{series.keyframe.imagelength} × {series.keyframe.imagewidth}"
