"""Grids of an OME-Zarr's levels: from scale and translation of pixel centres to grids that share a corner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tilesseg.formats.geozarr import conventions
from tilesseg.formats.ome_zarr.metadata import Dataset, Multiscale
from tilesseg.formats.reading.stated_size import StatedSize, find_size
from tilesseg.raster.grid import Grid

_HALF = 0.5 + 1e-6
_SCALE = "OME-Zarr's scale"


def finest_grid(
    where: str, multiscale: Multiscale, shape: tuple[int, int], attributes: Mapping[str, Any]
) -> tuple[Grid, tuple[str, ...], Mapping[str, Any]]:
    """The grid of the finest level, sentences on unusual facts about it, and entries of the description.

    Its corner is the level's own translation. Without a unit that is a length, lengths are in pixels.

    Args:
        where: name of the image in messages.
        multiscale: metadata of the image.
        shape: shape of the finest level.
        attributes: attributes of the group and the array; `spatial:` and `proj:` come before OME's.

    Raises:
        SourceError: the attributes contradict each other, or cannot be read.
    """
    placing = {key: value for key, value in attributes.items() if key.startswith(("spatial:", "proj:"))}
    grid = conventions.find_grid(where, shape, placing, {})
    if grid is not None:
        grid, note = conventions.placed(where, grid, placing, {})
        return grid, (() if note is None else (note,)), {}
    (sy, sx), (ty, tx) = _of_plane(multiscale, multiscale.datasets[0])
    y, x = _axes(multiscale)
    units = multiscale.axes[y].micrometres, multiscale.axes[x].micrometres
    transform = (1.0, 0.0, tx / sx, 0.0, sy / sx, ty / sx)
    if units[0] is not None and units[1] is not None:
        size = find_size([StatedSize((sy * units[0], sx * units[1]), _SCALE)])
        if size.mpp is None:
            return Grid(*shape, transform=transform), size.notes, size.properties
        transform = (sx * units[1], 0.0, tx * units[1], 0.0, sy * units[0], ty * units[0])
        grid = Grid(*shape, transform=transform, unit="micrometre", metres_per_unit=1e-6)
        return grid, size.notes, size.properties
    named = sorted({str(axis.raw.get("unit") or "none") for axis in (multiscale.axes[y], multiscale.axes[x])})
    unknown = "the size of a pixel is unknown" if sy == sx == 1 else f"the scale of {sx:g} is not taken as a size"
    note = f"axes y and x have no unit of length ({', '.join(named)}): {unknown}"
    return Grid(*shape, transform=transform), (note,), {}


def level_grid(finest: Grid, multiscale: Multiscale, number: int, shape: tuple[int, int]) -> Grid:
    """The grid of a level, with its own scale and the corner of the finest one."""
    scale, _ = _of_plane(multiscale, multiscale.datasets[number])
    full, _ = _of_plane(multiscale, multiscale.datasets[0])
    y, x = scale[0] / full[0], scale[1] / full[1]
    a, b, c, d, e, f = finest.transform
    transform = (a * x, b * y, c, d * x, e * y, f)
    if finest.transform[1] == finest.transform[3] == 0 and finest.unit == "micrometre":
        units = [multiscale.axes[axis].micrometres for axis in _axes(multiscale)]
        if units[0] is not None and units[1] is not None:  # the stored numbers, not products of ratios
            transform = (scale[1] * units[1], 0.0, c, 0.0, scale[0] * units[0], f)
    return replace(finest, height=shape[0], width=shape[1], transform=transform)


def displaced(multiscale: Multiscale, number: int) -> str | None:
    """Note on a level whose translation moves its corner by more than half a pixel from the finest level's; else None.

    Writers that give every level the same translation are within half a pixel.
    """
    (scale, at), (full, origin) = (_of_plane(multiscale, multiscale.datasets[k]) for k in (number, 0))
    off = [abs(t - (s - s0) / 2 - t0) / s for s, t, s0, t0 in zip(scale, at, full, origin, strict=True)]
    if max(off) <= _HALF:
        return None
    path = multiscale.datasets[number].path
    return f"level {path} is {max(off):.3g} of its pixels away from the finest one by its translation: not minded"


def misfit(multiscale: Multiscale, number: int, shape: tuple[int, int], full_shape: tuple[int, int]) -> str | None:
    """Contradiction of a level's size and its scale, by more than one of its pixels; None where there is none."""
    scale, _ = _of_plane(multiscale, multiscale.datasets[number])
    full, _ = _of_plane(multiscale, multiscale.datasets[0])
    wanted = [length * s0 / s for length, s0, s in zip(full_shape, full, scale, strict=True)]
    if all(abs(length - want) <= 1 + 1e-6 for length, want in zip(shape, wanted, strict=True)):
        return None
    return f"{shape[0]} × {shape[1]} pixels, and by its scale {wanted[0]:g} × {wanted[1]:g}"


def _axes(multiscale: Multiscale) -> tuple[int, int]:
    y, x = multiscale.axis("y"), multiscale.axis("x")
    assert y is not None and x is not None  # every valid multiscale has both
    return y, x


def _of_plane(multiscale: Multiscale, dataset: Dataset) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale and translation `(y, x)`, in the axes' own units."""
    y, x = _axes(multiscale)
    return (dataset.scale[y], dataset.scale[x]), (dataset.translation[y], dataset.translation[x])
