"""What every source does alike: which bands are read, which windows may be, and what tells that a file has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tilesseg.errors import SourceError
from tilesseg.formats.stac.stac_items import member_state
from tilesseg.raster.window import Window


def selection(indices: Sequence[int], count: int, *, image: str) -> tuple[int, ...]:
    """The bands to read, of an image that has `count`.

    Raises:
        SourceError: no band, or one that the image does not have.
    """
    wrong = [i for i in indices if not 0 <= i < count]
    if wrong or not indices:
        asked = f"band {wrong[0]}" if wrong else "no band"
        raise SourceError(f"{image}: {asked} asked for, the image has 0 to {count - 1}")
    return tuple(indices)


def refuse_outside(window: Window, inside: Window) -> None:
    """Refuse a window of raw pixels that leaves the image.

    Raises:
        ValueError: it does.
    """
    if not inside.contains(window):
        raise ValueError(f"{window} leaves the image of {inside.height} × {inside.width}")


def file_state(path: str) -> list[int] | None:
    """`[size, mtime in ns]`, None where it is gone; of an item in a STAC item collection, its own size and checksum."""
    try:
        found = os.stat(path)
    except OSError:
        return member_state(path)
    return [found.st_size, found.st_mtime_ns]
