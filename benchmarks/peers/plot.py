"""The picture of `bench.py`'s results: rates as bars, work by work, drawn with Pillow, which Bokeh brings along."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.peers.results import Row

WIDTH, LEFT, RIGHT, BAR, GAP = 1100, 380, 210, 22, 8
COLOURS = {"tilesseg": "#0072b2", "bare": "#9a9a9a"}
PLAIN = str.maketrans({"²": "^2", "×": "x", "÷": "/"})
"""What Pillow's own font does not have."""
OTHER, INK, QUIET = "#d55e00", "#222222", "#666666"


def draw(path: Path, rows: Sequence[Row], headline: str) -> None:
    """Bars of Mpx/s on one scale for each work; those of no network may end at its end, what failed says so."""
    small, plain, bold = (ImageFont.load_default(size=size) for size in (13, 15, 19))
    works = list(dict.fromkeys(row.work for row in rows))
    lines = textwrap.wrap(headline, 150)
    height = 60 + 18 * len(lines) + sum(64 + (BAR + GAP) * sum(row.work == work for row in rows) for work in works)
    image = Image.new("RGB", (WIDTH, height), "white")
    pen, y = ImageDraw.Draw(image), 16
    for line in lines:
        pen.text((16, y), line, fill=QUIET, font=small)
        y += 18
    for work in works:
        here = [row for row in rows if row.work == work]
        top = max((row.mpx_per_s or 0 for row in here if row.engine), default=0) or 1
        pen.text((16, y + 20), f"{work}: megapixels a second, file to file".translate(PLAIN), fill=INK, font=bold)
        y += 52
        for row in here:
            _bar(pen, y, row, top, plain)
            y += BAR + GAP
        y += 12
    image.save(path, optimize=True)


def _bar(pen: ImageDraw.ImageDraw, y: int, row: Row, top: float, font: ImageFont.FreeTypeFont) -> None:
    name = " ".join(part for part in (row.tool, row.engine, row.precision) if part).translate(PLAIN)
    pen.text((LEFT - 10, y + 2), name, fill=INK, font=font, anchor="ra")
    if row.mpx_per_s is None:
        pen.text((LEFT, y + 2), (row.error or "").translate(PLAIN), fill=QUIET, font=font)
        return
    length = max(2, round((WIDTH - LEFT - RIGHT) * min(1, row.mpx_per_s / top)))
    kind = next((colour for start, colour in COLOURS.items() if row.tool.startswith(start)), OTHER)
    pen.rectangle((LEFT, y, LEFT + length, y + BAR), fill=kind)
    memory = "" if row.peak_gb is None else f", {row.peak_gb:.1f} GB"
    pen.text((LEFT + length + 8, y + 2), f"{row.mpx_per_s:.2f}{memory}", fill=INK, font=font)
