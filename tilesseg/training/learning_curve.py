"""Learning curve of a training as a picture: losses and scores over the steps, drawn point by point.

A library for plots would be a dependency for one picture. Numbers at the axes are written with letters of 3 × 5 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BORDER = 800, 400, 60
WHITE, PALE, GREY, BLACK, ORANGE = (255, 255, 255), (225, 225, 225), (150, 150, 150), (0, 0, 0), (214, 96, 0)
LETTERS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757", "7": "71222",
    "8": "75757", "9": "75717", ".": "00002", "-": "00700", ",": "00024", "+": "02720", "l": "44446", "o": "07557",
    "s": "03636", "t": "27223", "e": "07747", "p": "07574", "c": "07447", "r": "07444",
}  # fmt: skip
"""Rows of each letter from top to bottom, one octal digit of three pixels each."""
SCALE = 2
"""Size of a letter's pixel."""
SMOOTH = 50
"""Number of stretches over which losses are averaged."""

Picture = NDArray[np.uint8]
Points = Sequence[tuple[int, float]]


def draw_curve(losses: Points, scores: Points) -> Picture:
    """Picture `(3, y, x)` of losses (left axis, from 0) and scores (right axis, from 0 to 1) over steps.

    Args:
        losses: step and loss of each step.
        scores: step and score of each validation.
    """
    canvas = np.full((HEIGHT, WIDTH, 3), WHITE, np.uint8)
    last = max([step for step, _ in (*losses, *scores)], default=1)
    values = np.array([loss for _, loss in losses] or [1.0])
    top = max(float(np.percentile(values, 99)), 1e-6)  # a few steps that lose much more do not flatten the rest
    _axes(canvas, last, top)
    for step, loss in losses:
        _dot(canvas, *_place(step / last, loss / top), GREY, 1)
    _line(canvas, [(step / last, loss / top) for step, loss in _averaged(losses)], BLACK)
    _line(canvas, [(step / last, score) for step, score in scores], ORANGE)
    for step, score in scores:
        _dot(canvas, *_place(step / last, score), ORANGE, 3)
    return np.ascontiguousarray(np.moveaxis(canvas, -1, 0))


def _averaged(losses: Points) -> list[tuple[float, float]]:
    """Mean step and mean loss of up to `SMOOTH` stretches."""
    parts = np.array_split(np.array(losses, np.float64).reshape(-1, 2), min(SMOOTH, max(1, len(losses))))
    return [(float(step), float(loss)) for step, loss in (part.mean(axis=0) for part in parts if len(part))]


def _axes(canvas: Picture, last: int, top: float) -> None:
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, _ = _place(0, share)
        canvas[y, BORDER : WIDTH - BORDER] = PALE
        _write(canvas, y - 5, 6, f"{share * top:.3g}", BLACK)
        _write(canvas, y - 5, WIDTH - BORDER + 8, f"{share:.2f}", ORANGE)
        _, x = _place(share, 0)
        _write(canvas, HEIGHT - BORDER + 10, x - 10, f"{round(share * last):,}", BLACK)
    _write(canvas, 16, 6, "loss", BLACK)
    _write(canvas, 16, WIDTH - BORDER + 8, "score", ORANGE)
    _write(canvas, HEIGHT - 24, WIDTH // 2 - 16, "step", BLACK)


def _place(across: float, up: float) -> tuple[int, int]:
    """Row and column of a point between 0 and 1; what lies above is drawn at the top."""
    y = HEIGHT - BORDER - min(max(up, 0.0), 1.0) * (HEIGHT - 2 * BORDER)
    return round(y), round(BORDER + across * (WIDTH - 2 * BORDER))


def _line(canvas: Picture, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    for (x0, y0), (x1, y1) in pairwise(points):
        for share in np.linspace(0, 1, WIDTH):
            _dot(canvas, *_place(x0 + share * (x1 - x0), y0 + share * (y1 - y0)), colour, 1)


def _dot(canvas: Picture, y: int, x: int, colour: tuple[int, int, int], radius: int) -> None:
    canvas[y - radius + 1 : y + radius, x - radius + 1 : x + radius] = colour


def _write(canvas: Picture, y: int, x: int, text: str, colour: tuple[int, int, int]) -> None:
    """Write a text whose first letter has its upper left corner at a pixel."""
    for number, letter in enumerate(text):
        for row, bits in enumerate(LETTERS[letter]):
            for column in range(3):
                if int(bits) >> (2 - column) & 1:
                    top, left = y + row * SCALE, x + (4 * number + column) * SCALE
                    canvas[top : top + SCALE, left : left + SCALE] = colour
