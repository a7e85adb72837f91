"""Tile index: cores, halos and patches of a scene as GeoJSON, to be shown over the image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tilesseg.atomic_write import published
from tilesseg.formats.reading.crs import to_lonlat
from tilesseg.raster.grid import Grid
from tilesseg.raster.tiling import Patch, Tiling, round_up
from tilesseg.raster.window import Window


def write_tile_index(path: Path, tiling: Tiling, grid: Grid) -> Path:
    """Write one feature for each core, each halo (the window that a tile reads) and each patch of the lattice.

    Coordinates are longitude and latitude where the grid has a CRS, as RFC 7946 requires, else those of the grid.
    """
    with published(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for number, (window, properties) in enumerate(_windows(tiling)):
            file.write(",\n" if number else "")
            json.dump(_feature(window, properties, grid), file)
        file.write("\n]}\n")
    return path


def _windows(tiling: Tiling) -> Iterator[tuple[Window, dict[str, Any]]]:
    for tile in tiling:
        yield tile.core, {"what": "core", "tile": tile.name}
        yield tile.outer, {"what": "halo", "tile": tile.name}
    for patch in lattice_patches(tiling):
        yield patch.window, {"what": "patch"}


def lattice_patches(tiling: Tiling) -> Iterator[Patch]:
    """All patches of the lattice, each once, in lattice order."""
    whole = Tiling(tiling.shape, tiling.lattice, _one_core(tiling), tiling.shard)
    return (patch for row in whole.tile(0, 0).patch_rows for patch in row.patches)


def _one_core(tiling: Tiling) -> tuple[int, int]:
    height, width = tiling.shape
    return round_up(height, tiling.shard), round_up(width, tiling.shard)


def _feature(window: Window, properties: dict[str, Any], grid: Grid) -> dict[str, Any]:
    corners = [
        (window.y, window.x),
        (window.y_stop, window.x),
        (window.y_stop, window.x_stop),
        (window.y, window.x_stop),
        (window.y, window.x),
    ]
    ring = to_lonlat([grid.to_world(y, x) for y, x in corners], grid.crs)
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [[[round(x, 9), round(y, 9)] for x, y in ring]]},
    }
