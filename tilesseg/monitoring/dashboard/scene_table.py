"""Table of the scenes, to click on: scenes that run first, then those with something wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bokeh.models import AllIndices, ColumnDataSource, InlineStyleSheet
from bokeh.models.widgets import DataTable, HTMLTemplateFormatter, TableColumn

from tilesseg.monitoring.dashboard.palette import SCENE_COLOURS
from tilesseg.monitoring.live.run_board import RunBoard

LISTED = 100
"""Number of scenes in the table, at most; a line below them says how many more there are."""
NAME = '<span style="color:<%- colour %>">●</span> <span title="<%- name %> (<%- state %>)"><%- name %></span>'
SHARE = (
    '<div style="position:relative;height:14px;margin-top:3px;background:#eceff2;border-radius:3px;overflow:hidden">'
    '<div style="position:absolute;height:100%;width:<%- share %>%;background:#a9dcc0"></div>'
    '<div style="position:absolute;height:100%;right:0;width:<%- wrong %>%;background:#e0218a"></div>'
    '<div style="position:relative;text-align:center;font-size:11px;line-height:14px"><%- value %></div></div>'
)
STYLE = """
.slick-row.odd, .slick-row { background: white }
.slick-cell { border-right: none !important }
.slick-cell.selected, .slick-row:hover { background: #fbeedd !important }
"""
COLUMNS = ("name", "state", "colour", "tiles", "share", "wrong")


class SceneTable:
    """Table with a line for each scene; `chosen` is called with the name of the scene that a person clicks."""

    def __init__(self, chosen: Callable[[str], None]) -> None:
        self._source = ColumnDataSource({column: [] for column in COLUMNS})
        self._chosen, self._ours = chosen, False
        self._drawn: tuple[Any, ...] = ()
        columns = [
            TableColumn(field="name", title="scene", formatter=HTMLTemplateFormatter(template=NAME), width=130),
            TableColumn(field="tiles", title="tiles", formatter=HTMLTemplateFormatter(template=SHARE), width=100),
        ]
        self.root = DataTable(
            name="scenes",
            source=self._source,
            columns=columns,
            index_position=None,
            sizing_mode="stretch_both",
            row_height=24,
            header_row=False,
            stylesheets=[InlineStyleSheet(css=STYLE)],
            sortable=False,
            reorderable=False,
        )
        self._source.selected.on_change("indices", self._clicked)

    def update(self, board: RunBoard, scene: str | None) -> None:
        """Draw the table, where anything in it changed, with one scene chosen."""
        if (state := (id(board), board.version, scene)) == self._drawn:
            return
        self._drawn = state
        rows = self._rows(board)
        names = rows["name"]
        self._ours = True
        if rows != self._source.data:
            self._source.data = rows
            self.root.view.filter = AllIndices()  # a table is drawn again only where its view changes, not its figures
        wanted = [names.index(scene)] if scene in names else []
        if list(self._source.selected.indices) != wanted:
            self._source.selected.indices = wanted
        self._ours = False

    def _rows(self, board: RunBoard) -> dict[str, list[Any]]:
        listed = board.in_order()[:LISTED]
        rows: dict[str, list[Any]] = {
            "name": [scene.name for scene in listed],
            "state": [scene.state for scene in listed],
            "colour": [SCENE_COLOURS.get(scene.state, "#8a94a0") for scene in listed],
            "tiles": [f"{scene.done + scene.failed:,} / {scene.tiles:,}" for scene in listed],
            "share": [round(100 * (scene.done + scene.failed) / max(1, scene.tiles), 1) for scene in listed],
            "wrong": [round(100 * scene.failed / max(1, scene.tiles), 1) for scene in listed],
        }
        counts = board.scene_counts()
        for state, colour in (("refused", "#e0218a"), ("waiting", "#b8bec6")):
            if counts[state]:
                _append(rows, f"{counts[state]:,} {state}", state, colour)
        more = sum(counts.values()) - counts["refused"] - counts["waiting"] - len(listed)
        if more > 0:
            _append(rows, f"and {more:,} more, finished", "complete", "#2ca25f")
        return rows

    def _clicked(self, attribute: str, old: list[int], new: list[int]) -> None:
        names, tiles = self._source.data["name"], self._source.data["tiles"]
        if (
            not self._ours and new and new[0] < len(names) and tiles[new[0]]
        ):  # the table may be shorter than when it was drawn
            self._chosen(names[new[0]])


def _append(rows: dict[str, list[Any]], name: str, state: str, colour: str) -> None:
    """Append a line that is no scene."""
    for column, value in zip(COLUMNS, (name, state, colour, "", 0, 0), strict=True):
        rows[column].append(value)
