"""Slides that tests generate: small tiled pyramids, and a slide that does not begin at its canvas's corner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray


def tissue(shape: tuple[int, int], *, channels: int = 3, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """A picture `(y, x, channel)` smooth enough for JPEG, and different everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(y / 7 + k) * np.cos(x / (5 + k)) * 90 + 120 for k in range(channels)]
    return (np.stack(waves, axis=-1) + rng.integers(0, 20, (*shape, channels))).astype(dtype)


def write_pyramid(path: Path, levels: list[NDArray[Any]], *, tile: int = 64, **options: Any) -> Path:
    """A tiled TIFF whose coarser levels are pages of their own, `(y, x, channel)` each: what scanners' exports are."""
    mpp = options.pop("mpp", 0.5)
    place = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(tile, tile),
                photometric="rgb",
                subfiletype=int(number > 0),
                metadata=None,
                **({"compression": "deflate"} | options),
                **place,
            )
    return path


def halved(values: NDArray[Any], count: int) -> list[NDArray[Any]]:
    """An image and its block means by 2, 4 and so on, rounded to whole numbers; odd rows and columns are left out."""
    levels = [values]
    for _ in range(count - 1):
        last = levels[-1].astype(np.float64)
        last = last[: last.shape[0] // 2 * 2, : last.shape[1] // 2 * 2]
        mean = (last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4
        levels.append(np.rint(mean).astype(values.dtype))
    return levels


def tile_place(path: Path, number: int, *, page: int = 0) -> tuple[int, int]:
    """Offset and length of a tile in its file."""
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        return int(found.dataoffsets[number]), int(found.databytecounts[number])


def damage(path: Path, number: int, *, page: int = 0) -> None:
    """Overwrite the middle of a tile with zeros; its beginning and its end stay as they were."""
    offset, count = tile_place(path, number, page=page)
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(bytes(count // 4))


def leave_out(path: Path, number: int, *, page: int = 0) -> None:
    """Make a tile one that was never scanned: no offset and no bytes."""
    with tifffile.TiffFile(path) as file:
        found = file.pages[page]
        offsets, counts = list(found.dataoffsets), list(found.databytecounts)
        offsets[number] = counts[number] = 0
        tags = found.tags["TileOffsets"], found.tags["TileByteCounts"]
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag, value in zip(tags, (offsets, counts), strict=True):
            file.pages[page].tags[tag.code].overwrite(value)


def write_leica(path: Path, levels: list[NDArray[Any]], *, canvas: tuple[int, int], corner: tuple[int, int]) -> Path:
    """A slide in Leica's format of 0.5 µm: one scanned region whose corner `(y, x)` lies on a larger canvas.

    Places are a multiple of the pixel size; the levels are `(y, x, 3)`.
    """
    nm = 500
    dimensions = "".join(
        f'<dimension sizeX="{one.shape[1]}" sizeY="{one.shape[0]}" r="{k}" ifd="{k}"/>' for k, one in enumerate(levels)
    )
    height, width = levels[0].shape[:2]
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{canvas[1] * nm}" sizeY="{canvas[0] * nm}"><barcode/>'
        f'<image name="i"><device model="m" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}">{dimensions}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{corner[1] * nm}" offsetY="{corner[0] * nm}"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
        "<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="deflate",
                metadata=None,
                description=text if number == 0 else None,
                subfiletype=int(number > 0),
            )
    return path
