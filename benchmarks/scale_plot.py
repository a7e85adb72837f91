"""The plots of docs/scale.md, as SVG written by hand: few lines and dots, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 680, 360, 64, 24, 110, 48
Points = Sequence[tuple[float, float]]


def plot(
    path: Path, *, title: str, x: str, y: str, lines: Mapping[str, Points], dots: Mapping[str, Points] | None = None,
    ticks: tuple[Sequence[float], Sequence[float]],
) -> None:  # fmt: skip
    """Lines with their names at their ends, and dots of the same colour; the x axis is logarithmic.

    Args:
        path: of the SVG.
        title: what is seen, for those who do not see it.
        x: what the horizontal axis is.
        y: what the vertical axis is.
        lines: by name.
        dots: by the name of their line.
        ticks: of x, of y; their ends are the ends of the axes.
    """
    (left, *_, right), (low, *_, high) = ticks

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = math.log(point[0] / left) / math.log(right / left)
        up = (point[1] - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="13" '
        f'font-family="sans-serif"><title>{title}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for value in ticks[0]:
        a, b = place((value, low))
        parts.append(f'<path d="M{a:.1f} {TOP}V{b:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{a:.1f}" y="{b + 18:.1f}" text-anchor="middle" fill="#444">{value:,.0f}</text>')
    for value in ticks[1]:
        a, b = place((left, value))
        parts.append(f'<path d="M{a:.1f} {b:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{a - 8:.1f}" y="{b + 4:.1f}" text-anchor="end" fill="#444">{value:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" fill="#222">{x}</text>')
    parts.append(f'<text x="{LEFT - 52}" y="{TOP - 8}" fill="#222">{y}</text>')
    ends: list[float] = []
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        kept = [place(point) for point in points]
        path_data = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in kept)
        parts.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        height = kept[-1][1]
        while any(abs(height - other) < 14 for other in ends):
            height -= 1
        ends.append(height)
        parts.append(f'<text x="{kept[-1][0] + 8:.1f}" y="{height + 4:.1f}" fill="{colour}">{name}</text>')
        for a, b in map(place, (dots or {}).get(name, ())):
            parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" fill="{colour}" stroke="#fff"/>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
