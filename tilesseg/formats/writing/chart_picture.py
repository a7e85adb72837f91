"""Charts as PNG: lines over an axis, and a matrix of shares. For people to look at, and for papers in a hurry."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite, log10
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tilesseg.atomic_write import published
from tilesseg.errors import FormatError, cannot

INK, FAINT, PAPER = "#222222", "#d8d8d8", "#ffffff"
COLOURS = ("#1b6ca8", "#d1495b", "#2e933c", "#8f5fb0", "#c97b00", "#3aa6a6")
"""Colours of lines that have none, in their order."""
SIZE = (900, 560)
"""Width and height of a chart of lines, in pixels."""
LEFT, TOP, RIGHT, BOTTOM = 80, 72, 60, 60
"""Margins of the area of a chart of lines."""
CELL = 96
"""Side in pixels of a cell of a matrix that holds its share and count."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart; points with a value that is not finite interrupt it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str | None = None
    dots: Literal["none", "both", "only"] = "none"
    """Whether points are marked, beside the line or instead of it."""
    right: bool = False
    """Whether the line is measured on the right axis, from 0 to 1."""


def draw_lines(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Draw lines over a common axis, as a picture `(3, y, x)`.

    Args:
        lines: the lines; their names are the legend.
        title: title of the chart.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        y_range: range of the vertical axis; None: that of the values. What lies outside is drawn at its edge.
    """
    chart = _Chart(lines, y_range)
    chart.frame(title, x_label, y_label)
    for number, line in enumerate(lines):
        chart.line(line, line.colour or COLOURS[number % len(COLOURS)], number)
    return np.ascontiguousarray(np.moveaxis(np.asarray(chart.image), -1, 0))


def write_line_chart(path: Path, lines: Sequence[Line], **labels: Any) -> None:
    """Write a chart of lines as a PNG; see `draw_lines` for the arguments.

    Raises:
        FormatError: the file cannot be written.
    """
    _save(Image.fromarray(np.moveaxis(draw_lines(lines, **labels), 0, -1)), path)


def write_matrix(
    path: Path, counts: NDArray[np.int64], *, rows: Sequence[str], columns: Sequence[str], title: str
) -> None:
    """Draw a matrix of counts: each cell with its share of the row, darker where it is larger.

    Of more than 32 columns the cells are smaller, and have shades alone.

    Args:
        path: the PNG.
        counts: counts `(row, column)`.
        rows: names of the rows.
        columns: names of the columns.
        title: title of the picture.

    Raises:
        FormatError: the file cannot be written.
    """
    cell = min(CELL, max(12, 32 * CELL // len(columns)))
    font, whole = _font(min(15, cell)), cell == CELL
    left = 30 + max(int(font.getlength(name)) for name in rows)
    top = 90
    image = Image.new("RGB", (left + cell * len(columns) + 20, top + cell * len(rows) + 20), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((20, 14), title, INK, _font(18))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for j, name in enumerate(columns if whole else ()):
        draw.text((left + cell * (j + 0.5), top - 10), name[:12], INK, font, anchor="ms")
    for i, name in enumerate(rows):
        draw.text((left - 10, top + cell * (i + 0.5)), name, INK, font, anchor="rm")
        for j in range(len(columns)):
            _cell(
                draw, left + cell * j, top + cell * i, cell, float(shares[i, j]), int(counts[i, j]) if whole else None
            )
    _save(image, path)


def _cell(draw: ImageDraw.ImageDraw, x: int, y: int, side: int, share: float, count: int | None) -> None:
    shade = tuple(round(255 + share * (dark - 255)) for dark in (27, 108, 168))
    draw.rectangle((x, y, x + side - 2, y + side - 2), shade)
    if count is None:
        return
    ink = PAPER if share > 0.55 else INK
    draw.text((x + side / 2, y + side / 2 - 2), f"{share:.1%}", ink, _font(17), anchor="ms")
    draw.text((x + side / 2, y + side / 2 + 18), f"{count:,}", ink, _font(12), anchor="ms")


class _Chart:
    """A chart of lines that is being drawn."""

    def __init__(self, lines: Sequence[Line], y_range: tuple[float, float] | None) -> None:
        self.image = Image.new("RGB", SIZE, PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.x_range = _span([x for line in lines for x in line.x])
        self.y_range = y_range or _span([y for line in lines if not line.right for y in line.y])
        self.right = any(line.right for line in lines)

    def at(self, x: float, y: float, *, right: bool = False) -> tuple[float, float]:
        """Position of a point in pixels."""
        (x0, x1), (y0, y1) = self.x_range, (0.0, 1.0) if right else self.y_range
        up = min(max((y - y0) / (y1 - y0), 0.0), 1.0)
        across = LEFT + (x - x0) / (x1 - x0) * (SIZE[0] - LEFT - RIGHT)
        return across, SIZE[1] - BOTTOM - up * (SIZE[1] - TOP - BOTTOM)

    def frame(self, title: str, x_label: str, y_label: str) -> None:
        """Draw title, axes and their ticks."""
        font = _font(14)
        self.draw.text((LEFT, 10), title, INK, _font(18))
        for x in _ticks(*self.x_range):
            place = self.at(x, self.y_range[0])
            self.draw.line((place, self.at(x, self.y_range[1])), FAINT)
            self.draw.text((place[0], place[1] + 8), f"{x:g}", INK, font, anchor="mt")
        for y in _ticks(*self.y_range):
            place = self.at(self.x_range[0], y)
            self.draw.line((place, self.at(self.x_range[1], y)), FAINT)
            self.draw.text((place[0] - 8, place[1]), f"{y:g}", INK, font, anchor="rm")
        for y in _ticks(0.0, 1.0) if self.right else ():
            place = self.at(self.x_range[1], y, right=True)
            self.draw.text((place[0] + 8, place[1]), f"{y:g}", INK, font, anchor="lm")
        self.draw.text((SIZE[0] / 2, SIZE[1] - 14), x_label, INK, font, anchor="ms")
        self.draw.text((LEFT, TOP - 6), y_label, INK, font, anchor="ls")

    def line(self, line: Line, colour: str, number: int) -> None:
        """Draw a line, and its name in the legend."""
        points = [
            self.at(x, y, right=line.right) if isfinite(x) and isfinite(y) else None
            for x, y in zip(line.x, line.y, strict=True)
        ]
        radius = 1 if line.dots == "only" else 4
        for first, second in pairwise(points):
            if first and second and line.dots != "only":
                self.draw.line((first, second), colour, 2)
        for point in points:
            if point and (line.dots != "none" or len(points) == 1):
                x, y = point
                self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        self.draw.text((SIZE[0] - RIGHT, 8 + 18 * number), line.name, colour, _font(14), anchor="ra")


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Range of the finite values, of a length above 0."""
    finite = [value for value in values if isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round values in a range: about five."""
    step = 10 ** floor(log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = int(np.ceil(low / step - 1e-9))
    return [round(n * step, 12) for n in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, which comes with it."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow without FreeType is not built any more
    return font


def _save(image: Image.Image, path: Path) -> None:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    try:
        with published(path) as temporary:
            temporary.write_bytes(content.getvalue())
    except OSError as error:
        raise FormatError(cannot(f"write {path}", error, "choose another folder")) from None
