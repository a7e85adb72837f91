"""A grid: an image's shape and its mapping from pixels to the world.

Satellite scenes and microscope slides differ in their grid alone. The grid goes unchanged from the source to the
writer of a product; one method coarsens it, so that every level of a pyramid has the right place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tilesseg.raster.window import Window

Transform = tuple[float, float, float, float, float, float]
"""Affine `(a, b, c, d, e, f)` as in the package `affine`: `x = a·column + b·row + c`, `y = d·column + e·row + f`."""

IDENTITY: Transform = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A ground control point: a position in the image and its position in the world."""

    y: float
    """Row, in pixels from the image's top edge."""
    x: float
    """Column, in pixels from its left edge."""
    world: tuple[float, float, float]
    """`(x, y, z)` in the CRS of the points."""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Place of an image by other means than a transform. Copied to the products unchanged; never computed with."""

    points: tuple[ControlPoint, ...] = ()
    crs: str | None = None
    """CRS of the points as WKT."""
    rpcs: Mapping[str, str] = field(default_factory=dict)
    """Rational polynomial coefficients, by GDAL's keys of the domain RPC."""

    def scaled(self, y: float, x: float) -> Placement:
        """The same place for pixels `y` and `x` times as large. RPCs count lines from the first pixel's centre."""
        points = tuple(replace(point, y=point.y / y, x=point.x / x) for point in self.points)
        return replace(self, points=points, rpcs=_scaled_rpcs(self.rpcs, LINE=y, SAMP=x) if self.rpcs else self.rpcs)


@dataclass(frozen=True, slots=True)
class Grid:
    """Shape of an image, and the place of its pixels in the world."""

    height: int
    width: int
    transform: Transform = IDENTITY
    """Pixel corner to world, in `unit`."""
    crs: str | None = None
    """Coordinate reference system as WKT, or None."""
    unit: str = "pixel"
    """Unit of the world coordinates: metre, degree, micrometre, pixel, or the CRS's own name for it."""
    metres_per_unit: float | None = None
    """Size of `unit`, where it is a length."""
    placement: Placement | None = None
    """Ground control points and RPCs, where the image has them."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a grid has at least one pixel, not {self.height} × {self.width}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def window(self) -> Window:
        """Window of all pixels."""
        return Window(0, 0, self.height, self.width)

    @property
    def georeferenced(self) -> bool:
        return self.crs is not None or self.transform != IDENTITY

    @property
    def resolution(self) -> tuple[float, float]:
        """Length of a pixel's sides `(y, x)`, in `unit`; right for rotated grids too."""
        a, b, _, d, e, _ = self.transform
        return float(np.hypot(b, e)), float(np.hypot(a, d))

    def to_world(self, y: float, x: float) -> tuple[float, float]:
        """World coordinates `(x, y)` of the pixel position `(y, x)`; `(0, 0)` is the first pixel's outer corner."""
        a, b, c, d, e, f = self.transform
        return a * x + b * y + c, d * x + e * y + f

    def coarsen(self, factor: float) -> Grid:
        """The grid of a pyramid level with pixels `factor` times as large, sharing the top-left corner."""
        a, b, c, d, e, f = self.transform
        return replace(
            self,
            height=_pixels(self.height / factor),
            width=_pixels(self.width / factor),
            transform=(a * factor, b * factor, c, d * factor, e * factor, f),
            placement=self.placement and self.placement.scaled(factor, factor),
        )


def _pixels(length: float) -> int:
    """Number of pixels that cover `length`; 21 / 0.7 = 30.000000000000004 takes 30."""
    return max(1, int(np.ceil(round(length, 6))))


def _scaled_rpcs(rpcs: Mapping[str, str], **factors: float) -> dict[str, str]:
    """Normalised line = (line − offset) / scale, where line 0 is a pixel's centre: only these two numbers change."""
    scaled = dict(rpcs)
    for axis, factor in factors.items():
        offset, scale = (float(rpcs[f"{axis}_{what}"].split()[0]) for what in ("OFF", "SCALE"))
        scaled[f"{axis}_OFF"] = repr((offset + 0.5) / factor - 0.5)
        scaled[f"{axis}_SCALE"] = repr(scale / factor)
    return scaled
