"""Charts of the page over time: the rate of the run, and the tiles of each worker in the last minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    FactorRange,
    HoverTool,
    Range1d,
)
from bokeh.plotting import figure

from tilesseg.events import account
from tilesseg.monitoring.dashboard.palette import ACCENT, INK, PART_COLOURS, STATE_COLOURS
from tilesseg.monitoring.live.run_board import RunBoard
from tilesseg.monitoring.live.worker_board import Stretch

MINUTES = 5.0
"""Minutes that the timeline shows."""
WORKERS = 24
"""Number of workers in the timeline, at most."""
BARS = 6000
"""Number of bars in the timeline, at most: parts of the tiles of 24 workers with two tiles a second each."""
CLOCK = """
const [h, m, s] = [Math.floor(tick / 3600), Math.floor(tick / 60) % 60, Math.round(tick) % 60]
const two = (number) => String(number).padStart(2, "0")
return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
"""
"""Seconds as m:ss or h:mm:ss."""
COLUMNS = ("row", "left", "right", "colour", "tile", "part", "spent", "wall")


class RateChart:
    """Mpx/s since the start, each point the mean of the seconds before it."""

    def __init__(self) -> None:
        self._source = ColumnDataSource({"at": [], "rate": []})
        self.root = plot = _plot("rate", tools="xpan,xwheel_zoom,reset", y_axis_label="Mpx/s")
        plot.varea(x="at", y1=0, y2="rate", fill_color=ACCENT, fill_alpha=0.45, source=self._source)
        line = plot.line(x="at", y="rate", line_color=INK, line_width=1.5, source=self._source)
        plot.add_tools(HoverTool(renderers=[line], tooltips="@rate{0.00} Mpx/s at @at{00:00:00}", mode="vline"))
        plot.y_range.start = 0
        plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
        self._drawn = (-1, -1.0)

    def update(self, board: RunBoard) -> None:
        """Draw the series anew, where it has changed."""
        state = (board.version, board.now if board.ended is None else 0.0)
        if state != self._drawn:
            ends, rates = board.history.series(board.ended or board.now, over=board.pace.window)
            keep = ends >= min(1.0, ends[-1]) if len(ends) else slice(None)
            self._source.data, self._drawn = {"at": ends[keep], "rate": rates[keep]}, state


class Timeline:
    """Chart with a row for each tile that a worker has at the same time; a tile's bar has a part for each phase."""

    def __init__(self) -> None:
        self._source = ColumnDataSource({column: [] for column in COLUMNS})
        self._running = ColumnDataSource({column: [] for column in COLUMNS})
        self._rows = FactorRange(range_padding=0.05)
        self._time = Range1d(start=0, end=30)
        self.root = plot = _plot(
            "timeline", tools="xpan,xwheel_zoom,reset", x_range=self._time, y_range=self._rows, toolbar_location="above"
        )
        place: dict[str, Any] = {"y": "row", "left": "left", "right": "right", "height": 0.86, "fill_color": "colour"}
        bars = plot.hbar(**place, line_color=None, source=self._source)
        now = plot.hbar(**place, fill_alpha=0.3, line_color="colour", source=self._running)
        tooltips = "<div><b>@tile</b> @wall{0.00} s in all</div><div>@part @spent{0.00} s</div>"
        plot.add_tools(HoverTool(renderers=[bars, now], tooltips=tooltips, point_policy="follow_mouse"))
        plot.yaxis.major_label_text_font_size = "0px"
        plot.yaxis.major_tick_line_color = None
        plot.yaxis.group_text_font_size = "11px"
        plot.yaxis.group_text_color = INK
        plot.yaxis.group_label_orientation = "horizontal"
        plot.yaxis.separator_line_color = "#dde"
        plot.ygrid.visible = False
        self._board: RunBoard | None = None
        self._drawn, self._factors = 0, dict[tuple[str, str], None]()

    def update(self, board: RunBoard, tables: Mapping[str, dict[str, Any]]) -> None:
        """Add the bars of the tiles that are new, and go on with the time.

        Args:
            board: the run.
            tables: table of each worker, with the tiles that it has in hand, by address.
        """
        if board is not self._board:
            self._board, self._drawn, self._factors = board, 0, {}
            self._source.data = {column: [] for column in COLUMNS}
        timeline, count = board.workers.timeline, board.workers.stretch_count
        if count > self._drawn:
            self._add(board, list(islice(timeline, max(0, len(timeline) - (count - self._drawn)), None)))
            self._drawn = count
        self._draw_running(board, tables)
        end = max(5.0, (board.ended or board.now) - board.began)
        if end != self._time.end:
            self._time.update(start=max(0.0, end - 60 * MINUTES), end=end)

    def _draw_running(self, board: RunBoard, tables: Mapping[str, dict[str, Any]]) -> None:
        """Draw a pale bar for each tile that a worker has in hand, as long as it has taken so far."""
        rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
        for table in tables.values() if board.ended is None else ():
            for values in self._running_bars(board, table):
                for column, value in zip(COLUMNS, values, strict=True):
                    rows[column].append(value)
        if rows != self._running.data:
            self._running.data = rows

    def _running_bars(self, board: RunBoard, table: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Bars of the tiles that one worker has in hand, each in the slot where it will probably end."""
        name = str(table.get("worker"))
        ends = board.workers.by_name[name].ends if name in board.workers.by_name else []
        slots = [int(slot) for worker, slot in self._factors if worker == name and int(slot) <= len(ends)]
        slots.sort(key=lambda k: -ends[k - 1])
        for scene, tile, phase, seconds in sorted(table.get("tiles", ()), key=lambda each: -each[3])[: len(slots)]:
            left = board.now - board.began - seconds
            slot = next((k for k in slots if ends[k - 1] - board.began <= left + 1), slots[0])
            slots.remove(slot)
            colour, name_of_tile = STATE_COLOURS.get(phase, INK), f"{scene} {tile}"
            yield (name, str(slot)), left, left + seconds, colour, name_of_tile, phase, seconds, seconds

    def _add(self, board: RunBoard, stretches: list[Stretch]) -> None:
        rows: dict[str, list[Any]] = {column: [] for column in COLUMNS}
        for stretch in stretches:
            row = (stretch.worker, str(stretch.slot + 1))
            if row not in self._factors and len({*(w for w, _ in self._factors), stretch.worker}) > WORKERS:
                continue
            self._factors[row] = None
            for values in _bars(stretch, row, board.began):
                for column, value in zip(COLUMNS, values, strict=True):
                    rows[column].append(value)
        factors = sorted(self._factors, reverse=True)
        if factors != list(self._rows.factors):
            self._rows.factors = factors
        self._source.stream(dict(rows), rollover=BARS)


def _bars(stretch: Stretch, row: tuple[str, str], began: float) -> list[tuple[Any, ...]]:
    """Bars of a tile: predicting and waiting one after the other, although they alternate."""
    left, bars = stretch.began - began, []
    spent, _ = account(stretch.seconds)
    spent["other"] = max(0.0, stretch.wall - sum(spent.values()))
    for part, seconds in spent.items():
        if seconds > 0:
            tile, colour = f"{stretch.scene} {stretch.tile}", PART_COLOURS.get(part, PART_COLOURS["other"])
            bars.append((row, left, left + seconds, colour, tile, part, seconds, stretch.wall))
            left += seconds
    return bars


def _plot(name: str, **options: Any) -> Any:
    """Figure in the style of Dask's own."""
    plot: Any = figure(
        name=name, **{"sizing_mode": "stretch_both", "toolbar_location": None, "min_border_right": 12, **options}
    )
    plot.xaxis.formatter = CustomJSTickFormatter(code=CLOCK)
    plot.xaxis.ticker = AdaptiveTicker(base=60, mantissas=[1, 2, 5, 10, 15, 30], desired_num_ticks=6, min_interval=1)
    plot.xgrid.grid_line_color = "#eef0f3"
    plot.ygrid.grid_line_color = "#eef0f3"
    plot.outline_line_color = None
    plot.toolbar.logo = None
    for axis in plot.axis:
        axis.axis_line_color = "#c5cad1"
        axis.major_label_text_color = INK
        axis.axis_label_text_color = INK
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
        axis.major_tick_line_color = "#c5cad1"
        axis.major_tick_in = 0
    return plot
