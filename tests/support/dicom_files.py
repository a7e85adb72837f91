"""Slides in DICOM that tests generate: a file for each level, as uncompressed tiles, explicit and little-endian."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
_LONG = ("OB", "SQ")


def write_dicom(
    path: Path, pixels: NDArray[Any], *, series: str, number: int, kind: str = "VOLUME", mpp: float = 0.5
) -> Path:
    """A level `(y, x, 3)` of a slide, of the series with this UID; `kind` may be LABEL or OVERVIEW."""
    tile, (height, width) = 32, pixels.shape[:2]
    frames = [
        np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))).tobytes()
        for y in range(0, height, tile)
        for x in range(0, width, tile)
        for part in [pixels[y : y + tile, x : x + tile]]
    ]
    uid, side = f"{series}.{number}", mpp / 1000
    meta = [
        _element(2, 1, "OB", b"\0\1"),
        _element(2, 2, "UI", _WSI),
        _element(2, 3, "UI", uid),
        _element(2, 0x10, "UI", "1.2.840.10008.1.2.1"),
        _element(2, 0x12, "UI", "1.2.3"),
    ]
    referenced = _item(_element(0x20, 0xE, "UI", "9.9.9"))  # a series within a sequence is another one
    body = [
        _element(8, 8, "CS", f"DERIVED\\PRIMARY\\{kind}\\NONE"),
        _element(8, 0x16, "UI", _WSI),
        _element(8, 0x18, "UI", uid),
        _element(8, 0x60, "CS", "SM"),
        _endless(8, 0x1115, referenced),
        _element(0x20, 0xD, "UI", "1.2.3.4"),
        _element(0x20, 0xE, "UI", series),
        _element(0x20, 0x13, "IS", str(number)),
        _element(0x20, 0x52, "UI", "1.2.3.5"),
        _element(0x20, 0x9311, "CS", "TILED_FULL"),
        _element(0x28, 2, "US", 3),
        _element(0x28, 4, "CS", "RGB"),
        _element(0x28, 6, "US", 0),
        _element(0x28, 8, "IS", str(len(frames))),
        *(_element(0x28, where, "US", value) for where, value in ((0x10, tile), (0x11, tile))),
        *(_element(0x28, where, "US", value) for where, value in ((0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0))),
        _element(0x48, 1, "FL", struct.pack("<f", width * side)),
        _element(0x48, 2, "FL", struct.pack("<f", height * side)),
        _element(0x48, 6, "UL", struct.pack("<I", width)),
        _element(0x48, 7, "UL", struct.pack("<I", height)),
        _element(0x5200, 0x9229, "SQ", _item(_measures(side))),
        _element(0x7FE0, 0x10, "OB", b"".join(frames)),
    ]
    head = _element(2, 0, "UL", struct.pack("<I", sum(map(len, meta))))
    path.write_bytes(b"".join([bytes(128), b"DICM", head, *meta, *body]))
    return path


def _measures(side: float) -> bytes:
    return _element(0x28, 0x9110, "SQ", _item(_element(0x28, 0x30, "DS", f"{side}\\{side}")))


def _element(group: int, number: int, kind: str, value: bytes | str | int) -> bytes:
    data = struct.pack("<H", value) if isinstance(value, int) else value if isinstance(value, bytes) else value.encode()
    data += (b"\0" if kind in ("UI", "OB") else b" ") * (len(data) % 2)
    length = struct.pack("<2xI", len(data)) if kind in _LONG else struct.pack("<H", len(data))
    return struct.pack("<HH2s", group, number, kind.encode()) + length + data


def _endless(group: int, number: int, item: bytes) -> bytes:
    """A sequence without a length, which a mark ends."""
    return struct.pack("<HH2s2xI", group, number, b"SQ", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _item(*elements: bytes) -> bytes:
    data = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
