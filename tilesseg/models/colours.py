"""Colours of classes: `#rrggbb`, or one of a few names."""

from __future__ import annotations

import re

NAMED = {
    "black": "#000000", "white": "#ffffff", "grey": "#808080", "gray": "#808080", "silver": "#c0c0c0",
    "red": "#ff0000", "maroon": "#800000", "orange": "#ffa500", "yellow": "#ffff00", "olive": "#808000",
    "lime": "#00ff00", "green": "#008000", "aqua": "#00ffff", "cyan": "#00ffff", "teal": "#008080",
    "blue": "#0000ff", "navy": "#000080", "fuchsia": "#ff00ff", "magenta": "#ff00ff", "purple": "#800080",
    "brown": "#a52a2a", "tan": "#d2b48c", "pink": "#ffc0cb",
}  # fmt: skip


def hexadecimal(colour: str) -> str:
    """A colour as `#rrggbb` in lower case.

    Raises:
        ValueError: it is neither that nor a name of `NAMED`.
    """
    found = NAMED.get(colour.lower(), colour.lower())
    if not re.fullmatch(r"#[0-9a-f]{6}", found):
        raise ValueError(f"unknown colour {colour!r}; write #rrggbb or one of {', '.join(sorted(NAMED))}")
    return found


def red_green_blue(colour: str) -> tuple[int, int, int]:
    """The three parts, 0 … 255, of a colour given as `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
