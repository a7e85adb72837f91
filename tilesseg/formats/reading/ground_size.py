"""Size of a pixel on the Earth: a doubt where no satellite has it, because CRS and transform are not of one image."""

from __future__ import annotations

from tilesseg.doubts import doubt
from tilesseg.raster.grid import Grid

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
