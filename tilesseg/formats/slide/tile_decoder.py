"""Decoding of the tiles of a TIFF: JPEG by libjpeg-turbo, strictly, and everything else by tifffile.

Warnings of libjpeg-turbo are taken for errors, so that a damaged tile is refused. The pixels are those of
tifffile, which ignores warnings: of 130 tiles of a slide with eight bytes changed at random it noticed 8, this decoder
118. OpenSlide notices as many, and is six times as slow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Decode = Callable[[bytes, int, bytes | None], NDArray[Any]]
"""Pixels `(y, x, sample)` of a tile, from its bytes, its number and the tables that tiles share."""
_START, _ADOBE = b"\xff\xd8", b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""The beginning of any JPEG, and of Adobe's marker: the next byte is 1 where its colours are YCbCr."""
_COMPRESSIONS = (6, 7)
_GREY, _RGB, _YCBCR = 1, 2, 6


def tile_decoder(page: Any) -> Decode:
    """Decoder of the tiles of a page; tifffile reads the first tile for it, so that the file has to be open."""
    strict = _strict_decoder(page)
    if strict is not None:
        return strict
    handle = page.parent.filehandle
    closed = handle.closed
    if closed:
        handle.open()  # of a set of files tifffile keeps one open
    try:
        decode: Any = page.decode
    finally:
        if closed:
            handle.close()
    return lambda data, number, tables: np.asarray(decode(data, number, jpegtables=tables)[0][0])


def _strict_decoder(page: Any) -> Decode | None:
    """Strict decoder of the tiles of a page; None where they are no JPEG of 8-bit grey or colours."""
    kind = int(page.photometric), int(page.samplesperpixel)
    plain = page.compression in _COMPRESSIONS and page.bitspersample == 8 and page.planarconfig == 1
    if not plain or kind not in ((_GREY, 1), (_RGB, 3), (_YCBCR, 3)):
        return None
    colours, mark = ("GRAY", b"") if kind[1] == 1 else ("RGB", _ADOBE + bytes([kind[0] == _YCBCR]))

    def decode(data: bytes, number: int, tables: bytes | None) -> NDArray[Any]:
        import simplejpeg

        shared = tables[len(_START) : -2] if tables else b""  # without its own beginning and end
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(_START + mark + shared + data[len(_START) :], colours)
        return np.asarray(pixels)

    return decode
