"""Map of the chosen scene: its picture, and over the picture a square for each tile, in the colour of its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, DataRange1d, HoverTool
from bokeh.plotting import figure
from numpy.typing import NDArray

from tilesseg.monitoring.dashboard.palette import STATE_COLOURS, STATE_OPACITY
from tilesseg.monitoring.live.scene_board import STATES, SceneBoard, TileFacts, coarsened
from tilesseg.raster.tiling import tile_name

SQUARES = 5000
"""Number of squares, at most; a scene of more tiles has several to a square."""
EDGES = ("left", "right", "top", "bottom")
FACTS = ("colour", "opacity", "tile", "state", "worker", "seconds", "patches", "error")
COLUMNS = EDGES + FACTS
TOOLTIP = """
<div style="max-width: 320px">
<div><b>@tile</b> · @state</div>
<div style="color: #667">@worker @seconds @patches</div>
<div style="color: #b0106a; white-space: normal">@error</div>
</div>"""


class TileMap:
    """Figure that gets the whole scene once, and after that only the squares that changed."""

    def __init__(self) -> None:
        self._squares = ColumnDataSource({column: [] for column in COLUMNS})
        self._picture = ColumnDataSource({"url": [], "w": [], "h": []})
        self._drawn: SceneBoard | None = None
        self._states: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self.factor = 1
        """Number of tiles that a square is high and wide."""
        self.root = self._figure()

    def update(self, scene: SceneBoard | None, busy: Mapping[str, str], workers: list[str]) -> None:
        """Draw the changes.

        Args:
            scene: the chosen scene.
            busy: phase of each of its tiles that a worker has in hand.
            workers: names by number.
        """
        if scene is None:
            if self._drawn is not None:
                self._squares.data, self._drawn = {column: [] for column in COLUMNS}, None
            return
        states, self.factor = coarsened(scene.states_with(dict(busy)), SQUARES)
        self._show_picture(scene)
        if scene is not self._drawn:
            self._drawn, self._states = scene, states.copy()
            self._squares.data = self._all(scene, states, workers)
            return
        changed = np.flatnonzero(states.ravel() != self._states.ravel())
        if changed.size:
            self._states = states.copy()
            self._squares.patch(self._some(scene, states, changed, workers))

    def _figure(self) -> Any:
        plot: Any = figure(
            name="tile_map",
            x_range=DataRange1d(range_padding=0.01, only_visible=False),
            y_range=DataRange1d(range_padding=0.01, flipped=True),
            match_aspect=True,
            sizing_mode="stretch_both",
            tools="pan,wheel_zoom,box_zoom,reset",
            toolbar_location="above",
            output_backend="canvas",
        )
        plot.image_url(url="url", x=0, y=0, w="w", h="h", anchor="top_left", source=self._picture)
        squares = plot.quad(
            **dict(zip(EDGES, EDGES, strict=True)),
            fill_color="colour",
            fill_alpha="opacity",
            line_color="white",
            line_alpha=0.55,
            line_width=0.7,
            hover_line_color="black",
            hover_line_alpha=1.0,
            hover_fill_color="colour",
            hover_fill_alpha="opacity",
            source=self._squares,
        )
        # The picture is no renderer of the ranges: its height counts upwards where the axis goes down.
        plot.x_range.renderers = plot.y_range.renderers = [squares]
        plot.add_tools(HoverTool(renderers=[squares], tooltips=TOOLTIP, point_policy="follow_mouse"))
        plot.axis.visible = False
        plot.grid.visible = False
        plot.outline_line_color = None
        plot.toolbar.logo = None
        return plot

    def _show_picture(self, scene: SceneBoard) -> None:
        wanted = [scene.picture] if scene.picture else []
        if list(self._picture.data["url"]) != wanted or (wanted and self._drawn is not scene):
            height, width = scene.shape
            self._picture.data = {"url": wanted, "w": [width] * len(wanted), "h": [height] * len(wanted)}

    def _all(self, scene: SceneBoard, states: NDArray[np.uint8], workers: list[str]) -> dict[str, Any]:
        """All columns of all squares."""
        rows, columns = states.shape
        high, wide = (side * self.factor for side in scene.core)
        row, column = np.divmod(np.arange(rows * columns), columns)
        facts = [self._facts(scene, states, place, workers) for place in range(rows * columns)]
        return {
            "left": column * wide,
            "right": np.minimum((column + 1) * wide, scene.shape[1]),
            "top": row * high,
            "bottom": np.minimum((row + 1) * high, scene.shape[0]),
            **{key: [each[key] for each in facts] for key in FACTS},
        }

    def _some(
        self, scene: SceneBoard, states: NDArray[np.uint8], places: NDArray[np.intp], workers: list[str]
    ) -> dict[str, list[tuple[int, Any]]]:
        """Changes of some squares, by column."""
        facts = {int(place): self._facts(scene, states, int(place), workers) for place in places}
        return {key: [(place, each[key]) for place, each in facts.items()] for key in FACTS}

    def _facts(self, scene: SceneBoard, states: NDArray[np.uint8], place: int, workers: list[str]) -> dict[str, Any]:
        state = STATES[states.flat[place]]
        row, column = divmod(place, states.shape[1])
        facts, name = TileFacts(), scene.tile_at(place)
        if self.factor == 1:
            facts = scene.facts(place, workers)
        else:
            part = scene.states[row * self.factor :, column * self.factor :][: self.factor, : self.factor]
            first = tile_name(row * self.factor, column * self.factor)
            name = f"{int((part >= STATES.index('done')).sum())} of {part.size} tiles from {first}"
        return {
            "colour": STATE_COLOURS[state],
            "opacity": STATE_OPACITY[state],
            "tile": name,
            "state": state + (f" ({facts.attempts} attempts)" if facts.attempts > 1 else ""),
            "worker": facts.worker,
            "seconds": f"· {facts.seconds:.1f} s" if facts.seconds else "",
            "patches": f"· {facts.patches:,} patches" if facts.seconds else "",
            "error": facts.error,
        }
