"""Opening an image: the format is detected, options are applied, and the source is resampled where asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tilesseg.errors import SourceError
from tilesseg.formats.reading.open_options import Opening
from tilesseg.formats.registry import FORMATS, resolve
from tilesseg.formats.source import Source


class OpenSource(Protocol):
    """What a row's `opens` names."""

    def __call__(self, paths: Sequence[str], opening: Opening) -> Source:
        """Open an image. What of the opening a format cannot do it refuses, see `Opening.refuse`."""


def open_source(image: str | Sequence[str], opening: Opening | None = None) -> Source:
    """Open an image for reading by window. Everything that is not another format's is tried by rasterio.

    Args:
        image: a path, a Zarr, a folder of single-band files, or a list of files that together make one image.
        opening: what the file does not say, or says too much of; None takes it as it is.

    Raises:
        SourceError: missing, unreadable, or of a kind that cannot be segmented.
    """
    from tilesseg.formats.detect import format_of
    from tilesseg.formats.reading.resampled_source import rescaled, with_mpp

    paths, opening = [image] if isinstance(image, str) else list(image), opening or Opening()
    if not paths:
        raise SourceError("no image given: an empty list of files")
    name = format_of(paths[0]) if len(paths) == 1 else "geotiff"
    opener: OpenSource = resolve(str(FORMATS[name].opens))
    if name in ("geotiff", "zarr") and opening.mpp is None:
        return opener(paths, opening)  # resamples by itself: its bands may have pixels of several sizes
    source = opener(paths, opening.without_resolution())
    if opening.mpp is not None:
        source = with_mpp(source, opening.mpp, image=paths[0])
    if opening.resolution is None:
        return source
    if source.grid.unit == "pixel":
        raise SourceError(
            f"{paths[0]}: pixels of {opening.resolution:g} µm are wanted and it does not say how large its own are; "
            "give input.mpp (--mpp)"
        )
    return rescaled(source, opening.resolution, tolerance=opening.tolerance)


def to_lonlat(points: Sequence[tuple[float, float]], crs: str | None) -> list[tuple[float, float]]:
    """World coordinates `(x, y)` of a CRS given as WKT as longitude and latitude; without a CRS as they are."""
    if crs is None:
        return list(points)
    from rasterio.warp import transform

    longitudes, latitudes = transform(crs, "OGC:CRS84", *zip(*points, strict=True))
    return list(zip(longitudes, latitudes, strict=True))
