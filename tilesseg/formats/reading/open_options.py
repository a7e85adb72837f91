"""How an image is opened: what its file does not say, or of what it says which part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tilesseg.errors import SourceError

TOLERANCE = 0.05
"""Pixels whose sides differ by less than this share from those wanted are taken as they are."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a user says of an image; None leaves it to the file."""

    scale: float | None = None
    """Multiply the values by this on reading."""
    offset: float | None = None
    """Add this after `scale`."""
    resolution: float | None = None
    """Resample to this pixel size, in the grid's unit (micrometres for slides)."""
    tolerance: float = TOLERANCE
    """Share by which a slide's pixels may differ from `resolution` without being resampled."""
    mpp: float | None = None
    """Micrometres per pixel of the image at its full resolution, where its file says none or a wrong one."""
    series: int | str | None = None
    """Of a file of several images, which: its number from 0, or its name."""
    level: int | None = None
    """Level of the pyramid to read, from 0, the finest."""
    t: int | None = None
    """Time point, from 0."""
    z: int | None = None
    """Plane of a stack, from 0."""

    def without_resolution(self) -> Opening:
        return replace(self, resolution=None)

    def refuse(self, image: str, *keys: str, why: str) -> None:
        """Refuse what a format cannot do.

        Raises:
            SourceError: one of these fields is given.
        """
        for key in keys:
            value = getattr(self, key)
            if value is not None:
                raise SourceError(f"{image}: {key} {value} is given, and {why}; leave it out")

    def check_numbers(self, image: str) -> None:
        """Refuse a scale, offset or size that is no number.

        Raises:
            SourceError: one is infinite or not a number, or a size is not above 0.
        """
        for key in ("scale", "offset", "resolution", "mpp"):
            value = getattr(self, key)
            if value is not None and not np.isfinite(value):
                raise SourceError(f"{image}: {key} {value}, a finite number needed")
        for key in ("resolution", "mpp"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise SourceError(f"{image}: {key} {value:g}, a length above 0 needed")
