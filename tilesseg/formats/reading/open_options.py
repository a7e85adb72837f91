"""Options of opening an image: facts that its file lacks, and the choice of a part of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tilesseg.errors import SourceError, cannot
from tilesseg.formats.reading.validity import AlphaUse

TOLERANCE = 0.05
"""Pixels whose sides differ by less than this share from the requested size are taken as they are."""


Missing = Literal["nodata", "fill"]


@dataclass(frozen=True, slots=True)
class Opening:
    """Options of the user for an image; None leaves the fact to the file."""

    scale: float | None = None
    """Factor of the values on reading."""
    offset: float | None = None
    """Number that is added after `scale`."""
    resolution: float | None = None
    """Pixel size to which the image is resampled, in the grid's unit (micrometres for slides)."""
    tolerance: float = TOLERANCE
    """Share by which a slide's pixels may differ from `resolution` without being resampled."""
    mpp: float | None = None
    """Micrometres per pixel of the image at its full resolution, where its file has no or a wrong number."""
    series: int | str | None = None
    """Image of a file of several, or page of a TIFF: its number from 0, or its name."""
    level: int | None = None
    """Level of the pyramid that is read, from 0, the finest."""
    t: int | None = None
    """Time point, from 0."""
    z: int | None = None
    """Plane of a stack, from 0."""
    damaged: Literal["mark", "coarser"] = "mark"
    """Treatment of pixels that cannot be decoded: they are marked in the mask, or taken from a coarser level."""
    alpha: AlphaUse | None = None
    """Use of a band that is tagged alpha: the mask, or a band like any other; None: the mask."""
    missing: Missing | None = None
    """Pixels of a Zarr in chunks that are not stored: nodata, or the fill value; None: the fill value."""

    def without_resolution(self) -> Opening:
        return replace(self, resolution=None)

    def refuse(self, image: str, *keys: str, why: str) -> None:
        """Refuse options that a format does not have.

        Raises:
            SourceError: one of these fields is given.
        """
        for key in keys:
            value = getattr(self, key)
            if value is not None:
                raise SourceError(cannot(f"open {image} with {key} {value}", why, f"leave {key} out"))

    def check_numbers(self, image: str) -> None:
        """Refuse a scale, offset or size that is not a usable number.

        Raises:
            SourceError: one is infinite or not a number, or a size is not above 0.
        """
        for key in ("scale", "offset", "resolution", "mpp"):
            value = getattr(self, key)
            if value is not None and not np.isfinite(value):
                raise SourceError(f"{image}: {key} is {value}, not a finite number; correct {key}")
        for key in ("resolution", "mpp"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise SourceError(f"{image}: {key} is {value:g}, not a length above 0; correct {key}")
