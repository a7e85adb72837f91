"""Colours of the page, by state of a tile, part of the work, and state of a scene."""

from __future__ import annotations

from tilesseg.monitoring.live.scene_board import STATES

STATE_COLOURS = dict(
    zip(STATES, ("#b8bec6", "#4c9be8", "#f5a623", "#9b59b6", "#2ca25f", "#7f8c8d", "#e0218a", "#b5bd00"), strict=True)
)
"""Failed is the magenta of 254 in every product."""
STATE_OPACITY = dict(zip(STATES, (0.30, 0.85, 0.85, 0.85, 0.38, 0.55, 0.95, 0.60), strict=True))
"""Opacity of a square by state; the image shows through tiles that are done."""
PART_COLOURS = {
    "predict": "#f5a623",
    "wait": "#8fc1f2",
    "read": "#4c9be8",
    "blend": "#f8d08a",
    "write": "#9b59b6",
    "other": "#d5d8dc",
}
SCENE_COLOURS = {
    "running": "#f5a623",
    "complete": "#2ca25f",
    "failed tiles": "#e0218a",
    "failed products": "#e0218a",
    "damaged": "#e0218a",
}
INK, ACCENT = "#34495e", "#eaaa6d"
"""Colours of texts and of the rate; the accent is the colour of Dask's navigation."""
