"""Size of a pixel as a file states it: which entry is taken, and which is refused because no microscope has it.

The one place for every source of a size in micrometres: descriptions of scanners, ImageJ, OME, OME-Zarr, resolution
tags, DICOM. A format lists what its file states, in the order in which it is to be trusted. A place on the Earth is
plausible or in doubt: CRS and transform are all that states its size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tilesseg.doubts import doubt
from tilesseg.raster.grid import Grid

Sides = tuple[float, float]
"""Sides of a pixel in micrometres, `(y, x)`."""

COARSEST = 100.0
"""Largest pixel of a microscope in µm: mass spectrometry and overviews end there."""
COARSEST_PRINT = 10.0
"""Largest pixel in µm that is taken from dots per inch and other tags that printers and screens use, too."""
FINEST = 1e-5
"""Smallest pixel in µm: a tenth of an ångström."""
_UNLIKE = 10.0
"""Largest ratio of the two sides of a pixel."""
_DIFFER = 1.1
"""Factor between two entries of one file from which on they contradict each other."""
_INCH = 25400.0
_DOTS = (72, 96, 100, 120, 144, 150, 180, 200, 220, 240, 250, 300, 350, 360, 400, 600, 720, 1200, 1440, 2400)
"""Dots per inch of screens, printers and cameras, which programs also convert to micrometres."""


@dataclass(frozen=True, slots=True)
class StatedSize:
    """A size that one entry of a file states."""

    sides: Sides
    source: str
    """The entry, as the beginning of a sentence: `MPP of Aperio`."""
    printed: bool = False
    """Whether printers and screens use the entry, too."""


@dataclass(frozen=True, slots=True)
class FoundSize:
    """The size that is taken, and what is to be said about it."""

    mpp: Sides | None = None
    source: str | None = None
    """Entry that the size comes from."""
    refused: str | None = None
    """Sentences on the sizes that are not taken, where none is."""
    notes: tuple[str, ...] = ()

    @property
    def properties(self) -> dict[str, Any]:
        """Entries of the description."""
        own = {"mpp_from": self.source, "mpp_refused": self.refused}
        return {key: value for key, value in own.items() if value is not None}


_UNITS = {
    "Å": 1e-4, "angstrom": 1e-4, "ångström": 1e-4, "pm": 1e-6, "picometer": 1e-6, "nm": 1e-3, "nanometer": 1e-3,
    "µm": 1.0, "μm": 1.0, "\\u00B5m": 1.0, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3,
    "cm": 1e4, "centimeter": 1e4, "dm": 1e5, "decimeter": 1e5, "m": 1e6, "meter": 1e6, "kilometer": 1e9,
    "in": _INCH, "inch": _INCH, "inche": _INCH, "foot": 304800.0, "yard": 914400.0, "mile": 1609344000.0,
}  # fmt: skip
"""Micrometres of the units of length that OME, OME-Zarr and ImageJ write; both signs for micro are in use."""


def micrometres(unit: object) -> float | None:
    """Micrometres of a unit of length; None of anything else."""
    name = str(unit or "").strip().replace("metre", "meter")
    for one in (name, name.removesuffix("s"), name.lower().removesuffix("s")):
        if one in _UNITS and (one == name or len(one) > 2):  # Mm is no mm
            return _UNITS[one]
    return None


def find_size(stated: Iterable[StatedSize | None]) -> FoundSize:
    """The first size that a microscope can have.

    Args:
        stated: sizes by entry, the most trusted first; None where an entry is missing.
    """
    there = [one for one in stated if one is not None]
    wrong = [(one, why) for one in there if (why := _why_not(one)) is not None]
    right = [one for one in there if _why_not(one) is None]
    if not right:
        refused = "; ".join(why for _, why in wrong) or None
        return FoundSize(refused=refused, notes=tuple(f"{why}: not taken" for _, why in wrong))
    taken = right[0]
    before = [why for one, why in wrong if there.index(one) < there.index(taken)]
    notes = [f"{why}: {taken.source} is taken in its place" for why in before]
    notes += [_contradiction(taken, other) for other in right[1:] if _factor(taken, other) > _DIFFER]
    return FoundSize(taken.sides, taken.source, notes=tuple(notes))


def number_above_0(value: object) -> float | None:
    """A finite number above 0, of a number or of text with a decimal point or comma; None of anything else."""
    try:
        number = float(value.strip().replace(",", ".") if isinstance(value, str) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def sides_of(y: float | None, x: float | None) -> Sides | None:
    """Both sides, or None where one is missing."""
    return (y, x) if y and x else None


def _why_not(stated: StatedSize) -> str | None:
    """Reason why no microscope has a size; None where one can."""
    small, large = min(stated.sides), max(stated.sides)
    says = f"{stated.source} says {_text(stated.sides)} a pixel"
    if large > COARSEST_PRINT and (dots := _dots(stated.sides)):
        return f"{says}, which is {dots} dots an inch of a screen or printer and no microscope's"
    if large > (COARSEST_PRINT if stated.printed else COARSEST) or small < FINEST:
        return f"{says}, which is no microscope's"
    return f"{says}, sides too unlike for a microscope's" if large > _UNLIKE * small else None


def _dots(sides: Sides) -> int | None:
    return next((dots for dots in _DOTS if all(abs(side * dots / _INCH - 1) < 2e-3 for side in sides)), None)


def _factor(one: StatedSize, two: StatedSize) -> float:
    return max(max(a / b, b / a) for a, b in zip(one.sides, two.sides, strict=True))


def _contradiction(taken: StatedSize, other: StatedSize) -> str:
    return doubt(
        "pixel-size-contradicted",
        f"{taken.source} says {_text(taken.sides)} a pixel and {other.source} says {_text(other.sides)}: the first is "
        f"taken, {_factor(taken, other):.3g} times apart; input.mpp (--mpp) says which is right",
    )


def _text(sides: Sides) -> str:
    y, x = sides
    return f"{x:.4g} µm" if f"{x:.4g}" == f"{y:.4g}" else f"{x:.4g} × {y:.4g} µm"


FINEST_GROUND, COARSEST_GROUND = 1e-4, 5e5
"""Smallest and largest pixel in metres of an image of the Earth: of a drone close up, and of a model of the climate."""
_MOST_DEGREES = 10.0


def ground_doubt(grid: Grid) -> str | None:
    """Doubt of a georeferenced image whose pixels no satellite has: its CRS or its transform is another image's."""
    if grid.crs is None:
        return None
    side = max(grid.resolution)
    if grid.unit == "degree":
        corners = [grid.to_world(y, x) for y in (0, grid.height) for x in (0, grid.width)]
        latitude = max(abs(y) for _, y in corners)
        wrong = side > _MOST_DEGREES or latitude > 90 + side
        says = f"pixels of {side:.4g} degrees up to {latitude:.6g} degrees north or south"
    else:
        metres = side * (grid.metres_per_unit or 1.0)
        wrong, says = not FINEST_GROUND <= metres <= COARSEST_GROUND, f"pixels of {metres:.4g} m"
    if not wrong:
        return None
    text = f"its CRS and transform say {says}, which no satellite has: one of them is wrong, and so are areas"
    return doubt("pixel-size-implausible", text)
