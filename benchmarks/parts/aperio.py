"""JPEG-tiled pyramids as Aperio's scanners write them, from tiles that are encoded already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE, LEVELS, MPP = 256, (1, 4, 16), 0.5
"""Side of a tile; how many times coarser each level is; micrometres per pixel of the first."""
MAKER = "Aperio Image Library v11.2.1"


def write_pyramid(
    path: Path,
    shape: tuple[int, int],
    tiles: Callable[[int, tuple[int, int]], Iterable[bytes]],
    *,
    thumbnail: NDArray[np.uint8],
    subsampling: tuple[int, int],
    kind: str = "JPEG/RGB",
    reduced: bool = False,
) -> None:
    """Write a slide.

    Args:
        path: of the file.
        shape: height and width of the first level.
        tiles: of a level, given how many times coarser it is and its shape, from left to right and top to bottom.
        thumbnail: `(y, x, 3)`, the second image of such a file, in strips.
        subsampling: of the colours in the tiles.
        kind: how the description calls the compression.
        reduced: whether the thumbnail says that it is one. A scanner's does not, and GDAL then says that the file has
            images beside the first.
    """
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for factor in LEVELS:
            height, width = (max(1, side // factor) for side in shape)
            file.write(
                iter(tiles(factor, (height, width))),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=subsampling,
                compression="jpeg",
                description=f"{MAKER}\r\n{width}x{height} ({TILE}x{TILE}) {kind}|AppMag = 20|MPP = {MPP}",
                metadata=None,
                software=False,
            )
            if factor == 1:
                file.write(
                    thumbnail,
                    photometric="rgb",
                    rowsperstrip=16,
                    subfiletype=1 if reduced else None,
                    description=MAKER,
                    metadata=None,
                    software=False,
                )
