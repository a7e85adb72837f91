"""Charts of the report, laid out: a map of tiles by time, and who worked when. `charts.html.j2` draws them as SVG.

Colours are classes and variables of `style.css`, so that a chart serves light, dark and paper. Every chart has a
label that says in words what it shows; details are tooltips.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import fmean
from typing import NamedTuple

from tilesseg.raster.tiling import tile_name

STEPS = 7
"""Shades of the map of tiles."""
LANES = 48
"""Largest number of workers on a timeline."""
BARS = 6000
"""Largest number of bars on a timeline; neighbours are joined where there are more."""
COLOURS = 6
"""Colours of bars; then they begin again."""
CUTS = 12
"""Largest number of cuts of the time axis."""
_WIDTH = 1000.0


class Share(NamedTuple):
    """A piece of a stacked bar."""

    name: str
    value: float
    colour: str
    """Any CSS colour."""
    text: str
    """The value in words."""


class TileOutcome(NamedTuple):
    """Outcome of a tile, for the map."""

    kind: str
    """`done`, `skipped`, `failed` or `left`."""
    seconds: float
    text: str
    """Tooltip."""


class Square(NamedTuple):
    """A tile on the map, or several of them."""

    look: str
    """CSS class: its kind, or the shade of its time."""
    text: str
    x: float
    y: float
    width: float
    height: float
    cross: str
    """SVG path of a cross, for failures are not shown by colour alone."""


@dataclass(frozen=True, slots=True)
class MapLayout:
    """The map of a scene's tiles, 400 units wide."""

    label: str
    height: float
    squares: Sequence[Square]
    fastest: float
    """Seconds at the light end of the scale."""
    slowest: float
    kinds: frozenset[str]
    step: int
    """Tiles along the side of a square."""
    shades: int = STEPS


class TileBar(NamedTuple):
    """A tile on the timeline of its worker."""

    worker: str
    start: float
    stop: float
    colour: int
    text: str


class Rectangle(NamedTuple):
    """A bar of the timeline as it is drawn."""

    look: str
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class TimelineLayout:
    """Timeline of the workers: a lane for each of them, 1000 units wide."""

    lanes: Mapping[str, tuple[float, float, Sequence[Rectangle]]]
    """By worker: top and height of its lane, and its bars."""
    height: float
    cuts: Sequence[float]
    seconds: float
    """Time from left to right, without the pauses that are cut out."""
    workers: int
    """Number of workers, also of those that are not drawn."""


def lay_out_map(
    grid: tuple[int, int], tiles: Mapping[tuple[int, int], TileOutcome], *, shape: tuple[int, int], most: int
) -> MapLayout:
    """Lay out the tiles of a scene where they lie, coloured by how long they took.

    Args:
        grid: rows and columns of tiles.
        tiles: outcome of each tile, by row and column.
        shape: of the scene in pixels: the map has its proportions.
        most: squares to draw; where there are more tiles, several of them are drawn as one square.
    """
    step = max(1, ceil(sqrt(grid[0] * grid[1] / max(1, most))))
    drawn = dict(_joined(tiles, step)) if step > 1 else tiles
    times = sorted(tile.seconds for tile in drawn.values() if tile.kind == "done")
    fastest, slowest = (times[0], times[min(len(times) - 1, int(0.98 * len(times)))]) if times else (0.0, 0.0)
    rows, columns = ceil(grid[0] / step), ceil(grid[1] / step)
    high = 400 * min(3.0, max(0.15, shape[0] / shape[1]))
    width, height = 400 / columns, high / rows
    squares = [
        _square(tile, (x * width, y * height, width, height), _shade(tile.seconds, fastest, slowest))
        for (y, x), tile in drawn.items()
    ]
    counts = Counter(tile.kind for tile in tiles.values())
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in ("done", "skipped", "failed", "left") if counts[kind])
    label = f"Map of {grid[0]} × {grid[1]} tiles: {listed}"
    return MapLayout(label, high, squares, fastest, slowest, frozenset(counts), step)


def _shade(seconds: float, fastest: float, slowest: float) -> int:
    span = slowest - fastest
    return min(STEPS - 1, int(STEPS * (seconds - fastest) / span)) if span > 0 else STEPS // 2


def _square(tile: TileOutcome, place: tuple[float, float, float, float], shade: int) -> Square:
    x, y, width, height = place
    gap = min(1.0, width * 0.06, height * 0.06)
    look = f"t{shade}" if tile.kind == "done" else tile.kind
    left, top, right, low = x + width * 0.28, y + height * 0.28, x + width * 0.72 - gap, y + height * 0.72 - gap
    cross = f"M{left:.2f} {top:.2f}L{right:.2f} {low:.2f}M{right:.2f} {top:.2f}L{left:.2f} {low:.2f}"
    return Square(look, tile.text, x, y, width - gap, height - gap, cross if tile.kind == "failed" else "")


def _joined(tiles: Mapping[tuple[int, int], TileOutcome], step: int) -> Iterator[tuple[tuple[int, int], TileOutcome]]:
    """Groups of `step` by `step` tiles as one tile: failed where any is, else as most of them are."""
    groups: dict[tuple[int, int], list[TileOutcome]] = defaultdict(list)
    for (row, column), tile in tiles.items():
        groups[row // step, column // step].append(tile)
    for (row, column), group in groups.items():
        kinds = Counter(tile.kind for tile in group)
        failed = kinds["failed"]
        kind = "failed" if failed else max(("done", "skipped", "left"), key=lambda kind: kinds[kind])
        mean = fmean([tile.seconds for tile in group if tile.kind == "done"] or [0.0])
        text = f"{len(group)} tiles from {tile_name(row * step, column * step)}: mean {mean:.1f} s"
        yield (row, column), TileOutcome(kind, mean, text + (f", {failed} failed" if failed else ""))


def lay_out_timeline(bars: Sequence[TileBar], *, colours: int, most: int = BARS) -> TimelineLayout | None:
    """Lay out who worked when; thinner lanes in the lane of a worker hold what it did at the same time.

    Where nobody worked for long, the axis is cut. Without bars there is no timeline.
    """
    if not bars:
        return None
    by_worker: dict[str, list[TileBar]] = defaultdict(list)
    for bar in sorted(bars, key=lambda bar: bar.start):
        by_worker[bar.worker].append(bar)
    axis = _Axis([(bar.start, bar.stop) for bar in bars])
    stacks = {worker: _stacked(by_worker[worker]) for worker in sorted(by_worker)[:LANES]}
    depths = {worker: 1 + max(lane for lane, _ in stack) for worker, stack in stacks.items()}
    merge = max(2.0, _WIDTH * sum(depths.values()) / most) if len(bars) > most else 0.0
    lanes: dict[str, tuple[float, float, Sequence[Rectangle]]] = {}
    y = 0.0
    for worker, stack in stacks.items():
        height = max(5.0, 16.0 / depths[worker])
        lanes[worker] = y, height * depths[worker], list(_rectangles(stack, axis, y, height, merge, colours))
        y += height * depths[worker] + 4
    return TimelineLayout(lanes, y, axis.cuts, axis.length, len(by_worker))


def _rectangles(
    stack: list[tuple[int, TileBar]], axis: _Axis, y: float, height: float, merge: float, colours: int
) -> Iterator[Rectangle]:
    places = [(lane, axis.place(bar.start), axis.place(bar.stop), bar) for lane, bar in stack]
    for lane, left, right, bar in _merged(places, merge) if merge else places:
        look = f"s{bar.colour % COLOURS}" if colours > 1 else "s0"
        yield Rectangle(look, left, y + lane * height, max(0.6, right - left - 0.4), height - 1, bar.text)


def _merged(
    places: Iterable[tuple[int, float, float, TileBar]], merge: float
) -> Iterator[tuple[int, float, float, TileBar]]:
    """Neighbours that are too many to be distinguished as one bar, about as wide as `merge` says."""
    open_: dict[int, tuple[float, float, TileBar, int]] = {}
    for lane, left, right, bar in places:
        begun, until, first, count = open_.get(lane, (left, left, bar, 0))
        if count and (left - until > merge / 2 or until - begun >= merge):
            yield lane, begun, until, first
            begun, first, count = left, bar, 0
        text = f"{first.text.partition(' and ')[0]} and {count} more" if count else bar.text
        open_[lane] = begun, right, first._replace(text=text), count + 1
    for lane, (begun, until, first, _) in open_.items():
        yield lane, begun, until, first


def _stacked(bars: Sequence[TileBar]) -> list[tuple[int, TileBar]]:
    """Each bar with the first thinner lane that is free."""
    free: list[float] = []
    stack = []
    for bar in bars:
        lane = next((k for k, until in enumerate(free) if until <= bar.start + 1e-6), len(free))
        free[lane : lane + 1] = [bar.stop]
        stack.append((lane, bar))
    return stack


class _Axis:
    """Time from left to right, without the long stretches in which nobody worked."""

    def __init__(self, spans: Sequence[tuple[float, float]]) -> None:
        busy = sum(stop - start for start, stop in spans) / max(1, len(spans))
        pause = max(30.0, 5 * busy)
        joined = _without_pauses(spans, pause)
        while len(joined) > CUTS + 1:  # the longest pauses alone
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
        """Distance from the left of a time within a stretch."""
        start, _, x = next(part for part in reversed(self._parts) if part[0] <= when + 1e-9)
        return x + (when - start) * self._scale


def _without_pauses(spans: Iterable[tuple[float, float]], pause: float) -> list[tuple[float, float]]:
    """Stretches of time between which nobody worked for at least `pause` seconds."""
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if joined and start - joined[-1][1] < pause:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined
