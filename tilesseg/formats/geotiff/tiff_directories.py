"""Images of a file of several that GDAL reads, such as the directories of a TIFF, of which GDAL opens the first one.

The largest is meant: a label or a coarser picture may come first. Directories of one size are refused without a choice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from rasterio.errors import RasterioError

from tilesseg.doubts import doubt
from tilesseg.errors import SourceError
from tilesseg.formats.geotiff.raster_file import one_line_errors, open_dataset, settled

_MOST = 64
"""Number of directories that are examined."""
_LARGE = 0.25
"""Share of the pixels above which another image may be the one that is meant."""


class Directory(NamedTuple):
    """One image of the file."""

    name: str
    """The name by which GDAL opens it."""
    shape: tuple[int, int]


def choose_directory(path: str, requested: int | str | None) -> tuple[str, tuple[str, ...]]:
    """Name by which GDAL opens the image that is read, and notes on the choice; the path where there is one image.

    Raises:
        SourceError: the requested image is not there, or images of one size have to be chosen from.
    """
    images = _directories(path)
    if requested is not None:
        return _requested(images, requested, path), ()
    if len(images) < 2:
        return path, ()
    areas = [one.shape[0] * one.shape[1] for one in images]
    number = areas.index(max(areas))
    height, width = images[number].shape
    if areas.count(max(areas)) > 1:
        raise SourceError(
            f"{path}: {len(images)} images in the file, {areas.count(max(areas))} images of {height} × {width}, the "
            f"largest, and no word on which is meant; choose one by series, 0 to {len(images) - 1}"
        )
    share = sorted(areas)[-2] / areas[number]
    text = f"{len(images)} images in the file ({_listed(images)}): number {number} is read, the largest"
    if share >= _LARGE:
        text = f"{text}; another has {share:.0%} of its pixels"
        return images[number].name, (doubt("image-of-several", f"{text}; choose another by series"),)
    return images[number].name, (f"{text}; choose another by series",)


def _requested(images: list[Directory], requested: int | str, path: str) -> str:
    number = int(requested) if isinstance(requested, int) or requested.isdecimal() else -1
    if not 0 <= number < max(1, len(images)):
        listed = _listed(images) or "0, the only image"
        raise SourceError(f"{path}: series {requested} is requested; choose one of {listed}")
    return images[number].name if images else path


def _listed(images: list[Directory]) -> str:
    return ", ".join(f"{k} {one.shape[0]} × {one.shape[1]}" for k, one in enumerate(images[:10]))


def _directories(path: str) -> list[Directory]:
    """Images of a file; empty where GDAL sees one image with its overviews."""
    with one_line_errors(f"{path}: not an image that GDAL can open", "give a raster image, or repair this file"):
        dataset = open_dataset(path)
        names = list(settled(lambda: dataset.subdatasets))
        if not names and dataset.driver == "GTiff" and dataset.count and _misread(dataset, path):
            names = [f"GTIFF_DIR:{number}:{path}" for number in range(1, _MOST + 1)]
    images = []
    for name in names[:_MOST]:
        with suppress(RasterioError):  # the end of the list, or a picture that GDAL cannot read
            images.append(Directory(name, tuple(open_dataset(name).shape)))
    return images


def _misread(dataset: Any, path: str) -> bool:
    """Whether GDAL counts pages as overviews that are none, or leaves a larger image out: it goes by their tag."""
    factors = dataset.overviews(1)
    if any(factor < 2 for factor in factors) or factors != sorted(set(factors)):
        return True
    try:
        height, width = open_dataset(f"GTIFF_DIR:2:{path}").shape
    except RasterioError:  # the usual file: one image
        return False
    return bool(height * width > dataset.height * dataset.width)
