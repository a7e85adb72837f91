"""Opening an image: the format is detected, the options are applied, and the image is resampled where requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.source import Source
from tilesseg.paths import source

if TYPE_CHECKING:
    from tilesseg.formats.reading.image import Image


class OpenSource(Protocol):
    """Function that opens images of one format, named by `opens` in its row of `FORMATS`."""

    def __call__(self, paths: Sequence[str], opening: Opening) -> Image:
        """Open an image; refuse every option that the format does not have, see `Opening.refuse`."""


def open_source(image: str | Sequence[str], opening: Opening | None = None) -> Source:
    """Open an image for reading by window. Every file that no other format claims is tried by rasterio.

    Args:
        image: a path, a Zarr, a folder of single-band files, or a list of files that together make one image.
        opening: options that replace or complete the facts of the file; None takes the file as it is.

    Raises:
        SourceError: missing, unreadable, or of a kind that cannot be segmented.
    """
    from tilesseg.formats.detect import format_of, format_of_list

    paths, opening = _meant([image] if isinstance(image, str) else image), opening or Opening()
    if not paths:
        raise SourceError("cannot open an image: the list of files is empty; name one file at least")
    name = format_of(paths[0]) if len(paths) == 1 else format_of_list(paths)
    opener: OpenSource = resolve(str(FORMATS[name].opens))
    if name in ("geotiff", "zarr") and opening.mpp is None:
        opened = opener(paths, opening)  # resamples by itself: its bands may have pixels of several sizes
    else:
        opened = _at_resolution(opener(paths, opening.without_resolution()), opening, paths[0])
    return replace(opened, fill_damage=opening.damaged == "coarser")


def _meant(paths: Sequence[str]) -> list[str]:
    """The paths as they are opened, see `paths.source`."""
    try:
        return [source(path) for path in paths]
    except ValueError as error:
        raise SourceError(str(error)) from None


def _at_resolution(image: Image, opening: Opening, path: str) -> Image:
    """The image with the user's micrometres per pixel, at the requested pixel size."""
    from tilesseg.formats.reading.pixel_size import at_pixel_size, with_mpp

    if opening.mpp is not None:
        image = with_mpp(image, opening.mpp)
    if opening.resolution is None:
        return image
    if image.grid.unit == "pixel":
        raise SourceError(
            f"{path}: pixels of {opening.resolution:g} µm are requested, and the file gives no size of its own pixels; "
            "give input.mpp (--mpp)"
        )
    return at_pixel_size(image, opening.resolution, tolerance=opening.tolerance)
