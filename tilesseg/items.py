"""What goes out to a worker: names and coordinates, never pixels."""

from __future__ import annotations

from typing import NamedTuple

from tilesseg.finding import Scene


class TileItem(NamedTuple):
    """A tile to segment."""

    scene: str
    tile: str


class StageItem(NamedTuple):
    """A region of a scene's image that is to be copied."""

    scene: str
    region: str


class PlanItem(NamedTuple):
    """A scene about which everything is to be decided."""

    scene: Scene


class FinishItem(NamedTuple):
    """A scene whose products are to be written: all its tiles have been tried."""

    scene: str


Item = TileItem | StageItem | PlanItem | FinishItem
