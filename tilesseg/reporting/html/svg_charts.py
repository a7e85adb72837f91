"""Charts as inline SVG: a map of tiles by time, bars of what takes how much, lanes of who worked when.

Colours are classes and variables of `report_style`, so that one chart serves light, dark and paper. Every chart
says in words what it shows; details are tooltips.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, sqrt
from statistics import fmean
from typing import NamedTuple

from tilesseg.raster.tiling import tile_name

STEPS = 7
"""Shades of the map of tiles."""
LANES = 48
BARS = 6000
"""Bars of the lanes, at most; neighbours are joined where there are more."""
COLOURS = 6
"""Of bars; then they begin again."""
CUTS = 12
"""Of the axis of the lanes, at most."""
_WIDTH = 1000.0


class Share(NamedTuple):
    """A piece of a bar."""

    name: str
    value: float
    colour: str
    """Any CSS colour."""
    told: str
    """The value in words."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A tile on the map."""

    kind: str
    """`done`, `skipped`, `failed` or `left`."""
    seconds: float
    told: str
    """Its tooltip."""


class Bar(NamedTuple):
    """A tile in its worker's lane."""

    lane: str
    start: float
    stop: float
    colour: int
    told: str


def bar(shares: Sequence[Share], *, label: str) -> str:
    """A stacked bar with its legend below."""
    total = sum(share.value for share in shares) or 1.0
    pieces = "".join(
        f'<span style="flex:{share.value / total:.5f} 1 0;background:{share.colour}" '
        f'title="{escape(share.name)}: {escape(share.told)}"></span>'
        for share in shares
        if share.value > 0
    )
    told = ", ".join(f"{share.name} {share.told}" for share in shares)
    keys = "".join(
        f'<li><i style="background:{share.colour}"></i>{escape(share.name)} <b>{escape(share.told)}</b></li>'
        for share in shares
    )
    return (
        f'<div class="bar" role="img" aria-label="{escape(label)}: {escape(told)}">{pieces}</div>'
        f'<ul class="legend">{keys}</ul>'
    )


def tile_map(grid: tuple[int, int], cells: Mapping[tuple[int, int], Cell], *, shape: tuple[int, int], most: int) -> str:
    """The tiles of a scene where they lie, coloured by how long they took.

    Args:
        grid: rows and columns of tiles.
        cells: what became of each tile, by row and column.
        shape: of the scene in pixels: the map has its proportions.
        most: cells to draw; where there are more tiles, squares of them are drawn as one.
    """
    step = max(1, ceil(sqrt(grid[0] * grid[1] / max(1, most))))
    drawn = dict(_joined(cells, step)) if step > 1 else dict(cells)
    times = sorted(cell.seconds for cell in drawn.values() if cell.kind == "done")
    low, high = (times[0], times[min(len(times) - 1, int(0.98 * len(times)))]) if times else (0.0, 0.0)
    rows, columns = ceil(grid[0] / step), ceil(grid[1] / step)
    tall = min(3.0, max(0.15, shape[0] / shape[1]))
    width, height = 400 / columns, 400 * tall / rows
    inner = "".join(
        _cell(cell, (x * width, y * height, width, height), _step(cell.seconds, low, high))
        for (y, x), cell in drawn.items()
    )
    counts = ", ".join(
        f"{n} {kind}" for kind in ("done", "skipped", "failed", "left") if (n := _count(cells.values(), kind))
    )
    label = f"Map of {grid[0]} × {grid[1]} tiles: {counts}"
    size = f'viewBox="-1 -1 402 {400 * tall + 2:.1f}" width="402" height="{400 * tall + 2:.0f}"'
    return f'<svg class="map" {size} role="img" aria-label="{label}">{inner}</svg>' + _map_legend(
        low, high, {cell.kind for cell in cells.values()}, step
    )


HATCH = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternTransform="rotate(45)" patternUnits="userSpaceOnUse">'
    '<rect width="6" height="6" class="h0"/><rect width="2" height="6" class="h1"/></pattern></defs></svg>'
)
"""What maps are hatched with: once in a page."""


def _count(cells: Iterable[Cell], kind: str) -> int:
    return sum(cell.kind == kind for cell in cells)


def _step(seconds: float, low: float, high: float) -> int:
    return min(STEPS - 1, int(STEPS * (seconds - low) / (high - low))) if high > low else STEPS // 2


def _cell(cell: Cell, place: tuple[float, float, float, float], step: int) -> str:
    x, y, width, height = place
    gap = min(1.0, width * 0.06, height * 0.06)
    box = f'x="{x:.2f}" y="{y:.2f}" width="{width - gap:.2f}" height="{height - gap:.2f}"'
    name = f"t{step}" if cell.kind == "done" else cell.kind
    cross = ""
    if cell.kind == "failed":  # not by its colour alone
        a, b, c, d = x + width * 0.28, y + height * 0.28, x + width * 0.72 - gap, y + height * 0.72 - gap
        cross = f'<path class="cross" d="M{a:.2f} {b:.2f}L{c:.2f} {d:.2f}M{c:.2f} {b:.2f}L{a:.2f} {d:.2f}"/>'
    return f'<g><title>{escape(cell.told)}</title><rect class="{name}" {box}/>{cross}</g>'


def _joined(cells: Mapping[tuple[int, int], Cell], step: int) -> Iterator[tuple[tuple[int, int], Cell]]:
    """Squares of `step` by `step` tiles as one cell: failed where any is, else as most of them are."""
    groups: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    for (row, column), cell in cells.items():
        groups[row // step, column // step].append(cell)
    for (row, column), group in groups.items():
        times = [cell.seconds for cell in group if cell.kind == "done"]
        failed = _count(group, "failed")
        kind = "failed" if failed else max(("done", "skipped", "left"), key=lambda kind: _count(group, kind))
        mean = fmean(times) if times else 0.0
        told = f"{len(group)} tiles from {tile_name(row * step, column * step)}: mean {mean:.1f} s"
        yield (row, column), Cell(kind, mean, told + (f", {failed} failed" if failed else ""))


def _map_legend(low: float, high: float, kinds: set[str], step: int) -> str:
    shades = "".join(f'<i class="t{k}"></i>' for k in range(STEPS))
    scale = f'<li class="scale">{low:.2g} s {shades} {high:.2g} s</li>' if "done" in kinds else ""
    names = {"failed": "failed", "skipped": "nothing to predict", "left": "not tried yet"}
    keys = "".join(f'<li><i class="{kind}"></i>{name}</li>' for kind, name in names.items() if kind in kinds)
    joined = f"<li>a cell is up to {step} × {step} tiles, with their mean</li>" if step > 1 else ""
    return f'<ul class="legend">{scale}{keys}{joined}</ul>'


def lanes(bars: Sequence[Bar], *, colours: int, most: int = BARS) -> str:
    """Who worked when: a lane for each worker, thinner ones in it for what it did at the same time.

    Where nobody worked for long, the axis is cut.
    """
    if not bars:
        return ""
    by_worker: dict[str, list[Bar]] = defaultdict(list)
    for one in sorted(bars, key=lambda one: one.start):
        by_worker[one.lane].append(one)
    shown = dict(sorted(by_worker.items())[:LANES])
    axis = _Axis([(one.start, one.stop) for one in bars])
    lanes_of = {worker: _stacked(own) for worker, own in shown.items()}
    thin = sum(1 + max(lane for lane, _ in stacked) for stacked in lanes_of.values())
    merge = max(2.0, _WIDTH * thin / most) if len(bars) > most else 0.0
    rows, names, y = [], [], 0.0
    for worker, stacked in lanes_of.items():
        depth = 1 + max(lane for lane, _ in stacked)
        height = max(5.0, 16.0 / depth)
        rows.append(f'<rect class="lane" x="0" y="{y:.1f}" width="1000" height="{height * depth:.1f}"/>')
        rows += _bars(stacked, axis, y, height, merge, colours)
        names.append((worker, y + height * depth / 2))
        y += height * depth + 4
    cuts = "".join(f'<path class="cut" d="M{x:.1f} 0V{y:.1f}"/>' for x in axis.cuts)
    labels = "".join(f'<li style="flex:1 1 0">{escape(worker)}</li>' for worker, _ in names)
    more = f"<p class=quiet>and {len(by_worker) - LANES:,} more workers</p>" if len(by_worker) > LANES else ""
    cut = " Dashed: nobody worked, time left out." if axis.cuts else ""
    return (
        f'<div class="lanes"><ul>{labels}</ul><svg viewBox="0 0 1000 {y:.1f}" preserveAspectRatio="none" role="img" '
        f'style="height:{y:.0f}px" aria-label="{len(by_worker)} workers over {axis.length:.0f} s">'
        f"{''.join(rows)}{cuts}</svg></div>"
        f"<p class=quiet>{axis.length:.0f} s from left to right; a bar is a tile.{cut}</p>{more}"
    )


def _bars(
    stacked: list[tuple[int, Bar]], axis: _Axis, y: float, height: float, merge: float, colours: int
) -> Iterator[str]:
    places = [(lane, axis.place(one.start), axis.place(one.stop), one) for lane, one in stacked]
    for lane, left, right, one in _merged(places, merge) if merge else places:
        box = f'x="{left:.2f}" y="{y + lane * height:.1f}" width="{max(0.6, right - left - 0.4):.2f}"'
        name = f"s{one.colour % COLOURS}" if colours > 1 else "s0"
        yield f'<rect class="{name}" {box} height="{height - 1:.1f}"><title>{escape(one.told)}</title></rect>'


def _merged(places: Iterable[tuple[int, float, float, Bar]], merge: float) -> Iterator[tuple[int, float, float, Bar]]:
    """Neighbours that are too many to be told apart as one bar, about as wide as `merge` says."""
    open_: dict[int, tuple[float, float, Bar, int]] = {}
    for lane, left, right, one in places:
        begun, until, first, count = open_.get(lane, (left, left, one, 0))
        if count and (left - until > merge / 2 or until - begun >= merge):
            yield lane, begun, until, first
            begun, first, count = left, one, 0
        told = f"{first.told.partition(' and ')[0]} and {count} more" if count else one.told
        open_[lane] = begun, right, first._replace(told=told), count + 1
    for lane, (begun, until, first, _) in open_.items():
        yield lane, begun, until, first


def _stacked(bars: Sequence[Bar]) -> list[tuple[int, Bar]]:
    """Each bar with the first thinner lane that is free."""
    free: list[float] = []
    found = []
    for one in bars:
        lane = next((k for k, until in enumerate(free) if until <= one.start + 1e-6), len(free))
        free[lane : lane + 1] = [one.stop]
        found.append((lane, one))
    return found


class _Axis:
    """Time from left to right, without the long stretches in which nobody worked."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        busy = sum(stop - start for start, stop in spans) / max(1, len(spans))
        pause = max(30.0, 5 * busy)
        joined = _without_pauses(spans, pause)
        while len(joined) > CUTS + 1:  # the longest ones alone
            pause *= 2
            joined = _without_pauses(joined, pause)
        self.length = sum(stop - start for start, stop in joined)
        self._scale = (_WIDTH - 12 * (len(joined) - 1)) / max(1e-9, self.length)
        self._parts: list[tuple[float, float, float]] = []
        x = 0.0
        for start, stop in joined:
            self._parts.append((start, stop, x))
            x += (stop - start) * self._scale + 12
        self.cuts = [x - 6 for _, _, x in self._parts[1:]]

    def place(self, when: float) -> float:
        start, _, x = next(part for part in reversed(self._parts) if part[0] <= when + 1e-9)
        return x + (when - start) * self._scale


def _without_pauses(spans: Iterable[tuple[float, float]], pause: float) -> list[tuple[float, float]]:
    """Stretches in which nobody paused for as long as that."""
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if joined and start - joined[-1][1] < pause:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined
